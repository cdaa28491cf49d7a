"""What OpenAI's clients are answered: the shapes of its API reference, for the documents."""

from typing import Literal

import msgspec


class OpenAIFault(msgspec.Struct):
    """What was wrong, in OpenAI's words."""

    message: str
    type: str
    param: str | None
    code: str | None


class OpenAIError(msgspec.Struct):
    """An error in OpenAI's form."""

    error: OpenAIFault


class Model(msgspec.Struct):
    """An agent, as OpenAI names a model."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class Models(msgspec.Struct):
    """The agents that work."""

    object: Literal["list"]
    data: list[Model]


class Reply(msgspec.Struct):
    """The agent's text."""

    role: Literal["assistant"]
    content: str
    refusal: None


class Choice(msgspec.Struct):
    """The one answer."""

    index: int
    message: Reply
    logprobs: None
    finish_reason: Literal["stop", "length", "content_filter", "tool_calls"]


class TokenCount(msgspec.Struct):
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
    choices: list[Choice]
    usage: TokenCount | None
