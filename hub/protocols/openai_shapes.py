"""The response bodies of OpenAI's API, for the OpenAPI document."""

from typing import Literal

import msgspec


class OpenAIErrorDetails(msgspec.Struct):
    """The details of an error."""

    message: str
    type: str
    param: str | None
    code: str | None


class OpenAIErrorBody(msgspec.Struct):
    """An error as OpenAI's API sends it."""

    error: OpenAIErrorDetails


class OpenAIModel(msgspec.Struct):
    """An agent, listed as a model."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class OpenAIModelList(msgspec.Struct):
    """The agents that could be loaded."""

    object: Literal["list"]
    data: list[OpenAIModel]


class AssistantMessage(msgspec.Struct):
    """The message of the agent."""

    role: Literal["assistant"]
    content: str
    refusal: None


class CompletionChoice(msgspec.Struct):
    """The answer; there is always one choice."""

    index: int
    message: AssistantMessage
    logprobs: None
    finish_reason: Literal["stop", "length", "content_filter", "tool_calls"]


class TokenUsage(msgspec.Struct):
    """The token counts of the agent's model."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class ChatCompletion(msgspec.Struct):
    """The answer to a conversation; `usage` is null if the agent does not give both counts."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: TokenUsage | None
