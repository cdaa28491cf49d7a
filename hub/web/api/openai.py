"""HTTP routes of OpenAI's chat completions: an agent is a model, and the request has the complete conversation."""

import sys
from functools import wraps
from typing import Annotated, Any

import attrs
import msgspec
from aiohttp import web

from hub.commands import table as commands
from hub.errors import (
    AgentBroken,
    AgentError,
    Busy,
    Draining,
    HubError,
    PrincipalQuotaExceeded,
    SessionDeleted,
    StorageUnavailable,
    ToolsUnsupported,
    UnknownAgent,
    UnknownSession,
    UnknownToolCall,
)
from hub.messages import Id, PageRequest
from hub.protocols import openai_chat, openai_request
from hub.protocols.openai_chat import AnswerForm
from hub.protocols.openai_conversation import read_conversation
from hub.protocols.openai_errors import OpenAIError, openai_error_of
from hub.protocols.openai_request import CompletionRequest
from hub.protocols.openai_shapes import ChatCompletion, OpenAIErrorBody, OpenAIModel, OpenAIModelList
from hub.protocols.reading import MAX_SEED
from hub.web import bodies
from hub.web.api.openai_answers import Completion, answer_conversation
from hub.web.api.openai_sessions import answer_in_session
from hub.web.doorkeeper import principal_of
from hub.web.handshake import refuse_http_1_0
from hub.web.routes import (
    API_PREFIX,
    HUB_KEY,
    STREAM_CONTENT,
    Handler,
    Route,
    base_path_of,
    limits_of,
    make_error_headers,
)


def make_openai_response(error: Exception) -> web.Response:
    """Return the response for a HubError, an AgentError or a TimeoutError, in OpenAI's form."""
    openai_error = openai_error_of(error)
    headers = make_error_headers(error) if isinstance(error, HubError) else {}
    return web.json_response(
        openai_error.body, status=openai_error.status, headers={**headers, **openai_error.make_headers()}
    )


def is_openai_request(request: web.Request) -> bool:
    """Return whether an error gets OpenAI's form: under /v1, also for paths and methods that do not exist."""
    path = request.path.removeprefix(base_path_of(request))
    return f"{path}/".startswith(OPENAI_PATHS)


def with_openai_errors(handler: Handler) -> Handler:
    """Return a handler that reports errors in OpenAI's form."""

    @wraps(handler)
    async def handle(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except (OpenAIError, HubError, AgentError, TimeoutError) as error:
            if isinstance(error, HubError):
                request.app[HUB_KEY].counters.door.refusals[error.code] += 1
            return make_openai_response(error)
        except ConnectionError:
            return web.Response(status=499)  # the client has disconnected, and reads no response

    return handle


@with_openai_errors
async def get_models(request: web.Request) -> web.Response:
    """List the working agents as OpenAI lists models."""
    page = await commands.list_agents(request.app[HUB_KEY], principal_of(request), PageRequest(sys.maxsize))
    return web.json_response(openai_chat.model_list([agent.agentId for agent in page.rows if agent.status == "ok"]))


@with_openai_errors
async def show_model(request: web.Request) -> web.Response:
    """Show a working agent as OpenAI shows a model."""
    agent = await commands.get_agent(request.app[HUB_KEY], principal_of(request), request.match_info["id"])
    if agent.status != "ok":
        raise AgentBroken(f"agent {agent.agentId} is broken: {agent.error}")
    return web.json_response(openai_chat.model_body(agent.agentId))


@with_openai_errors
async def post_completion(request: web.Request) -> web.StreamResponse:
    """Answer a conversation in the form of OpenAI's chat completions.

    With `stream` the response is a stream of server-sent events that ends with `[DONE]`. If the client disconnects, the
    hub stops the agent. In a session, the run continues without the client.
    """
    # Some parameters have longer integers (`seed`) and more keys (`logit_bias`). What the hub uses is checked later.
    limits = limits_of(request)
    limits = attrs.evolve(limits, max_integer=MAX_SEED, object_keys=limits.conversation_bytes)
    body = await bodies.read_fields(request, CompletionRequest.example, limits.conversation_bytes, limits)
    fields = openai_request.read_completion(body, request.headers)
    if fields.stream:
        refuse_http_1_0(request)
    completion = _make_completion(fields, body)
    if completion.session_id is not None:
        return await answer_in_session(request, completion)
    return await answer_conversation(request, completion)


def _make_completion(fields: CompletionRequest, body: dict[str, Any]) -> Completion:
    prompt, request = read_conversation(fields.messages), openai_request.make_request(fields, body)
    options = fields.stream_options
    form = AnswerForm(
        model=fields.model,
        wants_usage=options is not None and options.include_usage is True,
        prompt_bytes=prompt.text_bytes,
        tool_names=request.tool_names,
    )
    return Completion(
        prompt=prompt,
        request=request,
        form=form,
        is_streamed=fields.stream is True,
        session_id=fields.sessionId,
        client_msg_id=fields.clientMsgId,
    )


OPENAI_TAG = "OpenAI"
OPENAI_PREFIXES = (API_PREFIX, "/v1")  # by default, OpenAI's clients use /v1
OPENAI_PATHS = ("/v1/", f"{API_PREFIX}/chat/completions/", f"{API_PREFIX}/models/")
ROUTES = (
    Route(
        method="POST",
        path="/chat/completions",
        handler=post_completion,
        tag=OPENAI_TAG,
        responses={200: (ChatCompletion, STREAM_CONTENT)} | dict.fromkeys((422, 499, 500, 502, 504), OpenAIErrorBody),
        body=CompletionRequest,
        headers={
            openai_request.SESSION_HEADER: Annotated[
                Id, msgspec.Meta(description="The session to chat in, as `sessionId` in the body.")
            ],
            openai_request.KEY_HEADER: Annotated[
                Id, msgspec.Meta(description="In a session: the idempotency key, as `clientMsgId` in the body.")
            ],
        },
        raises=(
            UnknownAgent,
            UnknownSession,
            UnknownToolCall,
            ToolsUnsupported,
            AgentBroken,
            SessionDeleted,
            Busy,
            PrincipalQuotaExceeded,
            Draining,
            StorageUnavailable,
        ),
        error_body=OpenAIErrorBody,
        prefixes=OPENAI_PREFIXES,
        has_slash_form=True,
    ),
    Route(
        method="GET",
        path="/models",
        handler=get_models,
        tag=OPENAI_TAG,
        responses={200: OpenAIModelList},
        error_body=OpenAIErrorBody,
        prefixes=OPENAI_PREFIXES,
        has_slash_form=True,
    ),
    Route(
        method="GET",
        path="/models/{id}",
        handler=show_model,
        tag=OPENAI_TAG,
        responses={200: OpenAIModel},
        raises=(UnknownAgent, AgentBroken),
        error_body=OpenAIErrorBody,
        prefixes=OPENAI_PREFIXES,
        has_slash_form=True,
    ),
)
