"""OpenAI's chat completions, as in its API reference: the body of a request."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import msgspec

from hub.messages import Id, Request, ResponseFormat, Tool
from hub.protocols.openai_errors import OpenAIError, bad_request_error
from hub.protocols.openai_parts import ContentPart
from hub.protocols.reading import split_error

OPENAI_ROLES = ("system", "developer", "user", "assistant", "tool", "function")
# Parameters that change the form of the answer, and that the hub does not support. Only the listed values, which change
# nothing, are accepted.
UNSUPPORTED_PARAMETERS: dict[str, tuple[Any, ...]] = {
    "functions": (None, []),
    "n": (None, 1),
    "logprobs": (None, False),
    "audio": (None,),
    "modalities": (None, ["text"]),
}
# What `run.request.sampling` has. Agents ignore what they do not know.
SAMPLING_PARAMETERS = (
    *("temperature", "top_p", "top_k", "min_p", "max_tokens", "max_completion_tokens", "stop", "seed", "logit_bias"),
    *("presence_penalty", "frequency_penalty", "repetition_penalty", "reasoning_effort", "verbosity"),
    "parallel_tool_calls",
)
# Headers for sessionId and clientMsgId. OpenAI's clients may send an idempotency key with every request. Without a
# session, the key is ignored.
SESSION_HEADER, KEY_HEADER = "X-Session-Id", "Idempotency-Key"


class CalledFunction(msgspec.Struct):
    """The function of a tool call; `arguments` is JSON text."""

    name: str
    arguments: str | dict[str, Any] | None = None  # some clients send the object itself


class MessageToolCall(msgspec.Struct):
    """A tool call in an assistant's message."""

    id: str
    function: CalledFunction
    type: Literal["function"] = "function"


class ConversationMessage(msgspec.Struct):
    """One message of the conversation.

    A message with the role `assistant` may have tool calls, and one with the role `tool` has the result of a call.
    """

    role: Annotated[str, msgspec.Meta(examples=["user"], extra_json_schema={"enum": list(OPENAI_ROLES)})]
    content: Annotated[str | list[ContentPart] | None, msgspec.Meta(examples=["hello"])] = None
    tool_calls: list[MessageToolCall] | None = None
    tool_call_id: str | None = None
    name: str | None = None
    refusal: str | None = None
    function_call: CalledFunction | None = None  # of a message with the older form of tool calls


class RequestedFunction(msgspec.Struct):
    """A function that the client can run; `parameters` is a JSON Schema."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class RequestedTool(msgspec.Struct):
    """A tool of the client."""

    function: RequestedFunction
    type: Literal["function"] = "function"


class ChosenFunction(msgspec.Struct):
    """The name of a function."""

    name: str


class ToolChoice(msgspec.Struct):
    """The tool that the agent must call."""

    function: ChosenFunction
    type: Literal["function"] = "function"


class AnswerSchema(msgspec.Struct):
    """The JSON Schema of the answer."""

    name: str = ""
    description: str | None = None
    schema: dict[str, Any] | None = None
    strict: bool | None = None


class AnswerFormat(msgspec.Struct):
    """The form of the answer."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: AnswerSchema | None = None


class StreamOptions(msgspec.Struct):
    """Options of a stream."""

    include_usage: bool | None = False


class CompletionRequest(msgspec.Struct):
    """The body of a request.

    Other parameters of OpenAI go to the agent, are ignored, or are refused if they change the form of the answer.
    """

    example: ClassVar[str] = '{"model":"main","messages":[{"role":"user","content":"hello"}]}'
    model: Annotated[str, msgspec.Meta(examples=["main"])]
    messages: Annotated[list[ConversationMessage], msgspec.Meta(extra_json_schema={"minItems": 1})]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    tools: list[RequestedTool] | None = None
    tool_choice: ToolChoice | Literal["auto", "none", "required"] | None = None
    response_format: AnswerFormat | None = None
    sessionId: Id | None = None
    clientMsgId: Id | None = None  # the idempotency key of the message; used only with a sessionId


def read_completion(body: dict[str, Any], headers: Mapping[str, str]) -> CompletionRequest:
    """Return the request in a body and its headers. Raises OpenAIError if it is malformed or not supported."""
    for param, neutral_values in UNSUPPORTED_PARAMETERS.items():
        if body.get(param) not in neutral_values:
            hint = "use tools" if param == "functions" else f"leave {param} out"
            text = f"the hub does not support this value of {param}: {hint}"
            raise bad_request_error(text, param, "unsupported_parameter")
    if SESSION_HEADER in headers:
        body = {**body, "sessionId": headers[SESSION_HEADER]}
    if KEY_HEADER in headers and body.get("sessionId") is not None:
        body = {**body, "clientMsgId": headers[KEY_HEADER]}
    try:
        return msgspec.convert(body, CompletionRequest)
    except msgspec.ValidationError as error:
        problem, field = split_error(error, CompletionRequest)
        raise OpenAIError(400, "invalid_request_error", problem, field or None) from None


def make_request(completion: CompletionRequest, body: Mapping[str, Any]) -> Request:
    """Return what the client asks for beside its messages. *body* is the body that *completion* was read from."""
    choice, form = completion.tool_choice, completion.response_format
    sampling = {name: body[name] for name in SAMPLING_PARAMETERS if body.get(name) is not None}
    return Request(
        tools=tuple(_make_tool(tool.function) for tool in completion.tools or ()),
        tool_choice=choice.function.name if isinstance(choice, ToolChoice) else choice,
        response_format=None if form is None else _make_format(form),
        sampling=sampling,
    )


def _make_tool(function: RequestedFunction) -> Tool:
    return Tool(
        name=function.name,
        description=function.description or "",
        parameters=function.parameters,
        strict=function.strict,
    )


def _make_format(form: AnswerFormat) -> ResponseFormat:
    schema = form.json_schema or AnswerSchema()
    return ResponseFormat(
        type=form.type,
        name=schema.name,
        description=schema.description or "",
        schema=schema.schema,
        strict=schema.strict,
    )
