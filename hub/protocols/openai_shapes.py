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


class CalledTool(msgspec.Struct):
    """The name of a tool, and the arguments as JSON text."""

    name: str
    arguments: str


class AnswerToolCall(msgspec.Struct):
    """A call of a tool that the client runs."""

    id: str
    type: Literal["function"]
    function: CalledTool


class AssistantMessage(msgspec.Struct):
    """The message of the agent. Its content is null if it has tool calls and no text."""

    role: Literal["assistant"]
    content: str | None
    refusal: None
    reasoning_content: str | msgspec.UnsetType = msgspec.UNSET
    tool_calls: list[AnswerToolCall] | msgspec.UnsetType = msgspec.UNSET


class CompletionChoice(msgspec.Struct):
    """The answer; there is always one choice."""

    index: int
    message: AssistantMessage
    logprobs: None
    finish_reason: Literal["stop", "length", "content_filter", "tool_calls"]


class TokenUsage(msgspec.Struct):
    """The token counts of the agent's model. `estimated` of the tokens are an estimate of the hub."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    estimated: int | msgspec.UnsetType = msgspec.UNSET


class ChatCompletion(msgspec.Struct):
    """The answer to a conversation."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: TokenUsage
