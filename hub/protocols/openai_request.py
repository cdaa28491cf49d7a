"""OpenAI's chat completions, as in its API reference: requests."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import msgspec

from hub.ids import quote
from hub.messages import Id, Role
from hub.protocols.openai_chat import AnswerForm
from hub.protocols.openai_errors import OpenAIError
from hub.protocols.reading import split_error

OPENAI_ROLES: dict[str, Role] = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
# Parameters that change the form of the answer, and that the hub does not support. Only the listed values, which change
# nothing, are accepted.
UNSUPPORTED_PARAMETERS: dict[str, tuple[Any, ...]] = {
    "tools": (None, []),
    "functions": (None, []),
    "n": (None, 1),
    "logprobs": (None, False),
    "audio": (None,),
    "modalities": (None, ["text"]),
    "response_format": (None, {"type": "text"}),
}


class ContentPart(msgspec.Struct):
    """One part of a message's content; only text is supported."""

    type: Annotated[str, msgspec.Meta(extra_json_schema={"enum": ["text"]})]
    text: str | None = None


class ConversationMessage(msgspec.Struct):
    """One message of the conversation."""

    role: Annotated[str, msgspec.Meta(examples=["user"], extra_json_schema={"enum": list(OPENAI_ROLES)})]
    content: Annotated[str | list[ContentPart] | None, msgspec.Meta(examples=["hello"])] = None


class StreamOptions(msgspec.Struct):
    """Options of a stream."""

    include_usage: bool = False


class CompletionRequest(msgspec.Struct):
    """The body of a request. Other parameters of OpenAI are ignored, or refused if they change the answer's form."""

    example: ClassVar[str] = '{"model":"main","messages":[{"role":"user","content":"hello"}]}'
    model: Annotated[str, msgspec.Meta(examples=["main"])]
    messages: Annotated[list[ConversationMessage], msgspec.Meta(extra_json_schema={"minItems": 1})]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    sessionId: Id | None = None
    clientMsgId: Id | None = None  # the idempotency key of the message; used only with a sessionId

    @property
    def form(self) -> AnswerForm:
        """The form of the answer."""
        wants_usage = self.stream_options is not None and self.stream_options.include_usage
        texts = [_join_text(message, index) for index, message in enumerate(self.messages)]
        prompt_bytes = sum(len(text.encode()) for text in texts)
        return AnswerForm(model=self.model, wants_usage=wants_usage, prompt_bytes=prompt_bytes)


# Headers for sessionId and clientMsgId. OpenAI's clients may send an idempotency key with every request. Without a
# session, the key is ignored.
SESSION_HEADER, KEY_HEADER = "X-Session-Id", "Idempotency-Key"


def read_completion(body: dict[str, Any], headers: Mapping[str, str]) -> CompletionRequest:
    """Return the request in a body and its headers. Raises OpenAIError if it is malformed or not supported."""
    for param, neutral_values in UNSUPPORTED_PARAMETERS.items():
        if body.get(param) not in neutral_values:
            text = f"the hub does not support this value of {param}: leave {param} out"
            raise OpenAIError(400, "invalid_request_error", text, param, "unsupported_parameter")
    if SESSION_HEADER in headers:
        body = {**body, "sessionId": headers[SESSION_HEADER]}
    if KEY_HEADER in headers and body.get("sessionId") is not None:
        body = {**body, "clientMsgId": headers[KEY_HEADER]}
    try:
        return msgspec.convert(body, CompletionRequest)
    except msgspec.ValidationError as error:
        problem, field = split_error(error, CompletionRequest)
        raise OpenAIError(400, "invalid_request_error", problem, field or None) from None


def split_conversation(messages: list[ConversationMessage]) -> tuple[str, list[tuple[Role, str]]]:
    """Return the text of the last message, and the role and text of each earlier one.

    Raises OpenAIError for a role or content that is not supported, or if the last message is not a user's.
    """
    texts: list[tuple[Role, str]] = []
    for index, message in enumerate(messages):
        if message.role not in OPENAI_ROLES:
            text = f"the hub does not support the role {quote(message.role)}: use one of {', '.join(OPENAI_ROLES)}"
            raise OpenAIError(400, "invalid_request_error", text, f"messages[{index}].role")
        texts.append((OPENAI_ROLES[message.role], _join_text(message, index)))
    if not texts or texts[-1][0] != "user":
        text = 'the last message must have the role "user": the agent answers it'
        raise OpenAIError(400, "invalid_request_error", text, "messages")
    return texts[-1][1], texts[:-1]


def _join_text(message: ConversationMessage, index: int) -> str:
    if not isinstance(message.content, list):
        return message.content or ""
    wrong_type = next((part.type for part in message.content if part.type != "text"), None)
    if wrong_type is not None:
        text = f"the hub does not support content of the type {quote(wrong_type)}: send parts of the type text"
        raise OpenAIError(400, "invalid_request_error", text, f"messages[{index}].content")
    return "".join(part.text or "" for part in message.content)
