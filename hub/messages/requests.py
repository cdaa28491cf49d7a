"""What a client asks for beside its message: tools, the form of the answer, sampling, and what it shares."""

from typing import Any, Literal

import attrs


@attrs.frozen(kw_only=True)
class Tool:
    """A tool of the client: an agent calls it, and the client sends the result. *parameters* is a JSON Schema."""

    name: str
    description: str = ""
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


@attrs.frozen(kw_only=True)
class ResponseFormat:
    """The form of the answer: any text, a JSON object, or JSON that matches *schema* (`json_schema`)."""

    type: Literal["text", "json_object", "json_schema"]
    name: str = ""
    description: str = ""
    schema: dict[str, Any] | None = None
    strict: bool | None = None


@attrs.frozen(kw_only=True)
class Request:
    """What a client of OpenAI's routes or of AG-UI asks for beside its message. All of it may be empty.

    *tool_choice* is `auto`, `none`, `required`, the name of one of *tools*, or None. *sampling* has OpenAI's names:
    `temperature`, `top_p`, `max_tokens`, `stop`, `seed` and others. *state*, *context* and *forwarded* are what an
    AG-UI client shares: any JSON, with *context* as a list of objects.
    """

    tools: tuple[Tool, ...] = ()
    tool_choice: str | None = None
    response_format: ResponseFormat | None = None
    sampling: dict[str, Any] = attrs.Factory(dict)
    state: Any = None
    context: tuple[dict[str, Any], ...] = ()
    forwarded: Any = None

    @property
    def is_empty(self) -> bool:
        return self == EMPTY_REQUEST

    @property
    def tool_names(self) -> frozenset[str]:
        return frozenset(tool.name for tool in self.tools)

    @property
    def is_tool_required(self) -> bool:
        """True if the answer must call a tool, or one named tool."""
        return self.tool_choice not in (None, "auto", "none")


EMPTY_REQUEST = Request()
