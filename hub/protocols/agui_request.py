"""Read the requests of AG-UI clients: the new message or tool results, tools, and what the client shares."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import attrs
import msgspec
import orjson

from hub.errors import BadFrame
from hub.limits import Limits
from hub.messages import Id, ReplyStatus, Request, Tool
from hub.messages.parts import Parts, TextPart, ToolResultPart
from hub.protocols.reading import check_parts, convert, split_error

# AG-UI's package for Python also writes the names of fields in this form.
SNAKE_CASE_NAMES = {
    "thread_id": "threadId",
    "run_id": "runId",
    "forwarded_props": "forwardedProps",
    "interrupt_id": "interruptId",
    "tool_call_id": "toolCallId",
    "mime_type": "mimeType",
    "protocol_version": "protocolVersion",
}
IDS_KEY = "aguiMessageIds"  # in the metadata of a user's message: the ids that its client chose
MAX_STORED_IDS = 16
RUN_SUFFIX = re.compile(r"-(r_[0-9a-z]+)\Z")


class ResumeEntry(msgspec.Struct):
    """AG-UI's answer to a question."""

    interruptId: Id
    status: ReplyStatus
    payload: Any = None


class ClientTool(msgspec.Struct):
    """A tool that the client runs. `parameters` is a JSON Schema."""

    name: str
    description: str = ""
    parameters: Any = None


class RunInput(msgspec.Struct):
    """The fields of AG-UI's RunAgentInput that the hub uses. Of `messages`, the hub reads only what is new at the end.

    The names of the fields may also be in snake_case. Clients before AG-UI 1.0 send no `protocolVersion`.
    """

    example: ClassVar[str] = '{"threadId":"s1","runId":"r1","messages":[{"role":"user","content":"hello"}]}'
    threadId: Id
    runId: Id
    messages: Annotated[list[dict[str, Any]], msgspec.Meta(examples=[[{"role": "user", "content": "hello"}]])]
    tools: list[ClientTool] | None = None
    state: Any = None
    context: list[dict[str, Any]] | None = None
    forwardedProps: Any = None
    resume: list[ResumeEntry] | None = None
    protocolVersion: str | None = None

    @property
    def has_cancelled_outcome(self) -> bool:
        """True if the client accepts the outcome `cancelled`."""
        return self.protocolVersion is not None


@attrs.frozen(kw_only=True)
class NewInput:
    """What is new in the messages of a request: a text with its *parts*, or only results, which are parts too.

    *late_results* are the results just before the text. The session may have them already. *message_ids* are
    the client's ids of the results, and of the message with the text.
    """

    text: str = ""
    parts: Parts = ()
    late_results: Parts = ()
    message_ids: tuple[Any, ...] = ()

    def make_metadata(self, *, with_late_results: bool) -> dict[str, Any] | None:
        """Return the metadata of the hub's message: the ids of the client's messages, or None if they are unusual."""
        ids = self.message_ids if with_late_results else self.message_ids[len(self.late_results) :]
        is_usual = len(ids) <= MAX_STORED_IDS and all(isinstance(id, str) and 0 < len(id) <= 128 for id in ids)
        return {IDS_KEY: list(ids)} if is_usual else None


def make_call_id(call_id: str, run_id: str) -> str:
    """Return the id of a tool call for AG-UI's clients, who need ids that are unique in the thread.

    Agents and models use their ids again in each run. The messages of a fork have no run.
    """
    return f"{call_id}-{run_id}" if run_id else call_id


def read_call_id(client_call_id: str) -> str:
    """Return the agent's own id of a tool call; make_call_id() made the client's id."""
    return RUN_SUFFIX.sub("", client_call_id)


def list_call_runs(messages: list[dict[str, Any]]) -> dict[str, str]:
    """Return the runs of the calls whose results are in the messages, by the agent's ids. The last result counts."""
    ids = [id for message in messages if isinstance(id := _rename(message).get("toolCallId"), str)]
    return {read_call_id(id): match[1] for id in ids if (match := RUN_SUFFIX.search(id)) is not None}


def make_result_id(client_call_id: str) -> str:
    """Return the id of the message with the result of a tool that the agent ran itself."""
    return f"{client_call_id}-result"


def read_input(body: dict[str, Any], limits: Limits) -> RunInput:
    """Return the request in a body. Raises BadId or BadFrame."""
    fields = _rename(body)
    if isinstance(entries := fields.get("resume"), list):
        fields["resume"] = [_rename(entry) for entry in entries]
    return convert(fields, RunInput, limits, "body")


def make_hub_request(run_input: RunInput) -> Request:
    """Return what the client asks for beside its message. A state or props of `{}` count as none."""
    return Request(
        tools=tuple(map(_make_tool, run_input.tools or ())),
        state=None if run_input.state == {} else run_input.state,
        context=tuple(run_input.context or ()),
        forwarded=None if run_input.forwardedProps == {} else run_input.forwardedProps,
    )


def _make_tool(tool: ClientTool) -> Tool:
    parameters = tool.parameters if isinstance(tool.parameters, dict) else None
    return Tool(name=tool.name, description=tool.description, parameters=parameters)


def read_messages(messages: list[dict[str, Any]], limits: Limits) -> NewInput:
    """Return what is new at the end: a user's message, or the results of tool calls. Raises BadFrame."""
    camel_messages = [_rename(message) for message in messages]
    last = camel_messages[-1] if camel_messages else {}
    if last.get("role") == "user" and isinstance(last.get("content"), (str, list)):
        text, parts = _read_content(last["content"], limits)
        late_results, ids = _read_results(camel_messages[:-1], limits)
        return NewInput(text=text, parts=parts or (), late_results=late_results, message_ids=(*ids, last.get("id")))
    if last.get("role") == "tool":
        results, ids = _read_results(camel_messages, limits)
        if results:
            return NewInput(parts=results, message_ids=ids)
    raise BadFrame("the last of the messages must be a user's, with text or parts, or the result of a client's tool")


def _read_results(messages: list[dict[str, Any]], limits: Limits) -> tuple[Parts, tuple[Any, ...]]:
    """Return the results at the end of the messages and the ids of their messages.

    Leave out results of tools that the agent ran itself.
    """
    results: list[tuple[ToolResultPart, Any]] = []
    for message in reversed(messages):
        if message.get("role") != "tool":
            break
        call_id, content = message.get("toolCallId"), message.get("content")
        if not isinstance(call_id, str) or not isinstance(content, (str, list)):
            raise BadFrame("a message with the role tool needs toolCallId, and text or parts as its content")
        if message.get("id") != make_result_id(call_id):
            part = _make_result(read_call_id(call_id), content, message.get("error"), limits)
            results.append((part, message.get("id")))
    results.reverse()
    return tuple(part for part, _ in results), tuple(id for _, id in results)


def _make_result(call_id: str, content: str | list[Any], error: Any, limits: Limits) -> ToolResultPart:
    text, parts = _read_content(content, limits)
    if parts is not None:  # the hub's results are text
        text = orjson.dumps(content).decode()
    if not isinstance(error, str):
        return ToolResultPart(call_id, text)
    return ToolResultPart(call_id, text or error, isError=True)


def _read_content(content: str | list[Any], limits: Limits) -> tuple[str, Parts | None]:
    """Return the text and the parts of a content; the parts are None if it is only text."""
    if isinstance(content, str):
        return content, None
    try:
        check_parts(content, limits)
        parts = msgspec.convert([_rename_part(part) for part in content], Parts)
    except ValueError as error:
        problem, field = split_error(error, Parts)
        raise BadFrame(f"bad content of the last message: {problem} - at `${field}`") from None
    texts = [part.text for part in parts if isinstance(part, TextPart)]
    return "".join(texts), parts if len(texts) < len(parts) else None


def _rename_part(part: Any) -> Any:
    fields = _rename(part)
    return fields | {"source": _rename(fields["source"])} if isinstance(fields, dict) and "source" in fields else fields


def _rename(fields: Any) -> Any:
    """Return a JSON object with the names of its fields in camelCase, and any other value as it is."""
    if not isinstance(fields, Mapping):
        return fields
    return {SNAKE_CASE_NAMES.get(name, name): value for name, value in fields.items()}
