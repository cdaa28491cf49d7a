"""What OpenAI's clients are answered: the shapes of its API reference, for the documents."""

from typing import Literal

import msgspec


class OpenAIErrorDetails(msgspec.Struct):
    """What was wrong, in OpenAI's words."""

    message: str
    type: str
    param: str | None
    code: str | None


class OpenAIErrorBody(msgspec.Struct):
    """An error in OpenAI's form."""

    error: OpenAIErrorDetails


class OpenAIModel(msgspec.Struct):
    """An agent, as OpenAI names a model."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class OpenAIModelList(msgspec.Struct):
    """The agents that work."""

    object: Literal["list"]
    data: list[OpenAIModel]


class AssistantMessage(msgspec.Struct):
    """The agent's text."""

    role: Literal["assistant"]
    content: str
    refusal: None


class CompletionChoice(msgspec.Struct):
    """The one answer."""

    index: int
    message: AssistantMessage
    logprobs: None
    finish_reason: Literal["stop", "length", "content_filter", "tool_calls"]


class TokenUsage(msgspec.Struct):
    """What the agent's model counted."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class ChatCompletion(msgspec.Struct):
    """An answer to a conversation; *usage* is null where nobody counted."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: TokenUsage | None
