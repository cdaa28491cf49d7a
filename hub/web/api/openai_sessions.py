"""Answers in the form of OpenAI's chat completions in a session: whole, or streamed."""

from functools import partial
from typing import Any

import msgspec
from aiohttp import web

from hub.commands import table as commands
from hub.commands.client import ClientHandle
from hub.errors import Draining, IdReused, ToolCallAnswered, UnknownToolCall
from hub.messages import Chat, ChatWithRequest, Event
from hub.messages.parts import JsonParts, Parts
from hub.protocols import openai_chat
from hub.protocols.openai_chat import AnswerForm, OpenAIStream
from hub.protocols.openai_deltas import answer_message, count_message_bytes
from hub.protocols.openai_errors import bad_request_error, convert_failure, make_final
from hub.protocols.run_failures import find_failure
from hub.web.api.openai_answers import Completion
from hub.web.doorkeeper import principal_of
from hub.web.loss import while_connected
from hub.web.routes import HUB_KEY
from hub.web.sse import EventStream


async def answer_in_session(request: web.Request, completion: Completion) -> web.StreamResponse:
    """Chat in a session: the hub has the history, and a disconnect does not stop the run.

    If the session does not wait for the results before a text, the text is sent without them.
    """
    prompt = completion.prompt
    if prompt.is_continuation:
        text = "in a session, the last message must be a user's, or the result of a tool call"
        raise bad_request_error(text, "messages")
    parts = prompt.late_results + (prompt.results or prompt.parts)
    try:
        return await _answer_parts(request, completion, parts)
    except (UnknownToolCall, ToolCallAnswered, IdReused):
        if not prompt.late_results:
            raise
    return await _answer_parts(request, completion, prompt.parts)


async def _answer_parts(request: web.Request, completion: Completion, parts: JsonParts) -> web.StreamResponse:
    hub, principal, form = request.app[HUB_KEY], principal_of(request), completion.form
    command = ChatWithRequest(
        message=completion.prompt.message,
        agentId=form.model,
        sessionId=completion.session_id,
        clientMsgId=completion.client_msg_id,
        parts=msgspec.convert(parts, Parts) if parts else None,
        request=completion.request,
    )
    if not completion.is_streamed:
        return web.json_response(await _ask_in_session(request, form, command))
    async with EventStream(request) as stream:

        async def open_stream(run_id: str, cursor_event: Event | None) -> ClientHandle:
            return await stream.open(OpenAIStream(form, run_id))  # it ends at a question

        receipt = await commands.stream_chat(hub, principal, command, open_stream)
        await stream.serve_run(receipt.runId)
    return stream.response


async def _ask_in_session(request: web.Request, form: AnswerForm, command: Chat) -> dict[str, Any]:
    """Return the body of a complete answer in a session.

    Once the session holds the message, an error is final: a retry would add the message again. With an idempotency key,
    it would get the same answer, which is of use only if the answer is still to come.
    """
    hub, principal = request.app[HUB_KEY], principal_of(request)
    try:
        outcome = await commands.ask(hub, principal, command, partial(while_connected, request))
    except Draining as error:
        if "runId" in error.fields and command.clientMsgId is None:
            raise make_final(error) from None
        raise
    if (failure := find_failure(outcome)) is not None:
        details = {"sessionId": outcome.sessionId, "runId": outcome.runId, "messageId": outcome.messageId}
        raise convert_failure(failure, outcome.interrupts or (), **details, content=outcome.content)
    assert outcome.stopReason is not None
    calls = [call for call in outcome.toolCalls or () if call.toolCallName in form.tool_names]
    message = answer_message(outcome.content, outcome.reasoning or "", calls)
    counts = openai_chat.usage_body(outcome.usage, form.prompt_bytes, count_message_bytes(message))
    return openai_chat.completion_body(form, f"chatcmpl-{outcome.runId}", message, outcome.stopReason, counts)
