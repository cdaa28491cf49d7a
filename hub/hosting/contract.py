"""The interface between the hub and agent files or adapters."""

import math
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Protocol, TypeVar, overload

import attrs

from hub.errors import AgentError
from hub.messages import (
    Author,
    Body,
    FinishReason,
    Interrupt,
    Past,
    ReplyStatus,
    Request,
    Usage,
)
from hub.messages.parts import find_file_id


@attrs.frozen
class Message:
    """A complete message of an agent, for an agent that does not stream its text.

    *parts* are its images, files and other parts; see hub.messages.parts.
    """

    content: str
    parts: Sequence[Mapping[str, Any]] | None = None


@attrs.frozen
class Finish:
    """Why the answer ended, and the tokens that it used. An agent may yield a Finish as its last output."""

    reason: FinishReason = "end_turn"
    usage: Usage | None = None


# The values that an agent may yield. A Body is one of the events in hub.messages.CONTENT.
AgentOutput = str | Message | Finish | Body


class Call:
    """The answer of another agent: iterate over it to stream the text, or await it for the complete text.

    Both raise AgentError if the call fails; see Run.call.
    """

    def __init__(self, texts: AsyncIterator[str]) -> None:
        self._texts = texts

    def __aiter__(self) -> AsyncIterator[str]:
        return self._texts

    def __await__(self) -> Generator[Any, None, str]:
        return self._join().__await__()

    async def _join(self) -> str:
        return "".join([text async for text in self._texts])


async def _refuse_read(file_id: str) -> bytes:
    raise AgentError(f"there is no file {file_id}: this run has no session", "unknown_file")


async def _refuse_store(name: str, type: str, data: bytes) -> str:
    raise AgentError("this run has no session, so no file can be stored", "unknown_session")


@attrs.frozen
class FileAccess:
    """The functions behind `run.file` and `run.keep`. The defaults, for runs without a session, raise AgentError."""

    read: Callable[[str], Awaitable[bytes]] = _refuse_read
    store: Callable[[str, str, bytes], Awaitable[str]] = _refuse_store


@attrs.frozen
class Reply:
    """The answer of a person to a question of an agent.

    *payload* is any JSON value. *status* is `cancelled` if the person declined to answer. *by* is the person who
    replied.
    """

    status: ReplyStatus
    payload: Any
    by: Author


AskFunction = Callable[[Interrupt], Awaitable[Reply]]  # the hub sets the id of the question


async def refuse_question(question: Interrupt) -> Reply:
    """Raise AgentError for every question. A run without a session uses this function."""
    raise AgentError("nobody can be asked here: ask in a session, which people can join", "nobody_to_ask")


def refuse_call(run: "Run", agent: str, message: str) -> Call:
    """Raise AgentError for every call. A run that no hub started uses this function."""
    raise AgentError("no other agent can be called: this run was not started by a hub")


@attrs.frozen(kw_only=True)
class Run:
    """The message to answer, its context, and the functions of the hub that an agent may use.

    *id*, *agent* and *session* are ids. *principal* is who asks for the answer: the author of *message*, or the
    principal that had it answered again. *history* holds the earlier messages of the session, oldest first, by default
    at most 100. *parts* are the images, files and other parts of the message (see hub.messages.parts). *metadata* is
    any JSON object that the client sent with the message. *request* has the client's tools and other options; it may be
    empty. Results of tool calls are *parts* with the type `tool_result`; *message* may be empty then.
    """

    id: str
    agent: str
    session: str
    message: str
    principal: Author
    history: Sequence[Past]
    _call: Callable[["Run", str, str], Call] = attrs.field(default=refuse_call, alias="call", repr=False)
    _ask: AskFunction = attrs.field(default=refuse_question, alias="ask", repr=False)
    _file_access: FileAccess = attrs.field(default=FileAccess(), alias="file_access", repr=False)
    parts: Sequence[Mapping[str, Any]] = ()
    metadata: Mapping[str, Any] = attrs.Factory(dict)
    request: Request = Request()

    def call(self, agent: str, message: str) -> Call:
        """Call another agent, and return its answer as a Call; only this agent gets the text.

        The other agent gets no history, and an empty request. It is cancelled when this run ends. If all its `max_runs`
        slots are in use, the call waits for a free slot. Iterating or awaiting the Call raises AgentError with the code
        `unknown_agent`, `agent_broken`, `call_depth`, `call_deadlock`, `timeout`, or a code of the other agent. After
        the end of this run, and outside of the hub's event loop, the code is `agent_error`.
        """
        return self._call(self, agent, message)

    async def ask(
        self,
        message: str,
        *,
        reason: str = "input_required",
        schema: dict[str, Any] | None = None,
        tool_call_id: str | None = None,
    ) -> Reply:
        """Ask the people in the session a question, and wait without a time limit for the first reply.

        *schema* is a JSON Schema for the reply. *tool_call_id* is the id of the tool call that the question is about.
        Several questions may be open at a time. To limit the wait, use asyncio.timeout: a cancel withdraws the
        question. Raises AgentError with the code `nobody_to_ask`, `too_many_questions`, `agent_bad_output` or
        `answer_too_long`.
        """
        return await self._ask(
            Interrupt(id="", reason=reason, message=message, toolCallId=tool_call_id, responseSchema=schema)
        )

    async def file(self, file: str | Mapping[str, Any]) -> bytes:
        """Return the bytes of a file of this session. *file* is its id, or a part of a message that names the file.

        Raises AgentError with the code `unknown_file` or `storage_unavailable`.
        """
        file_id = file if isinstance(file, str) else find_file_id(file)
        if file_id is None:
            text = "this part names no file of the hub: its source needs the type file and the provider hubbub"
            raise AgentError(text, "unknown_file")
        return await self._file_access.read(file_id)

    async def keep(self, name: str, type: str, data: bytes) -> str:
        """Store a file in this session, and return its id; clients read the file at `/api/v1/files/ID`.

        *type* is a media type such as `image/png`. Raises AgentError with the code that an upload would get:
        `file_too_large`, `quota_exceeded`, `bad_type` and others.
        """
        return await self._file_access.store(name, type, data)


# The agent of an adapter: an async generator function over a run.
AnswerFunction = Callable[[Run], AsyncIterator[AgentOutput]]


@attrs.frozen
class AgentPaths:
    """The id of an adapter's agent, the hub's data folder, and the hub's cache folder.

    The cache folder is for large files that can be downloaded again, such as models. Hubs with different data folders
    may share it.
    """

    agent: str
    data: Path
    cache: Path


class Adapter(Protocol):
    """The contract of an adapter: a module, or another object, with these names.

    `Options` is an attrs class. Its fields are the keys of the agent's TOML file; the hub checks their names and types.
    `open` returns an async context manager, which yields the function that answers runs. The hub enters it when it
    loads the agent, and leaves it when the agent is reloaded or removed, or when the hub stops. If the agent cannot
    work, `open` raises AgentError or ValueError with a message of one line for the operator. The agent is then listed
    as broken with that message.

    An adapter may also have a function `check(options)`, which `hubbub agents` calls instead of `open`. `check` raises
    the same errors as `open`, and starts nothing. An adapter whose agents take the tools of clients has a function
    `takes_tools(options)`, which returns True if the agent with these options does.
    """

    Options: type[Any]

    def open(self, options: Any, paths: AgentPaths, /) -> AbstractAsyncContextManager[AnswerFunction]: ...


Function = TypeVar("Function", bound=Callable[..., Any])


def _check_count(marks: "Marks", field: "attrs.Attribute[int | None]", value: Any) -> None:
    if value is not None and (type(value) is not int or value < 1):
        raise ValueError(f"{field.name} must be a whole number, 1 or more, not {value!r}")


def _check_seconds(marks: "Marks", field: "attrs.Attribute[float | None]", value: Any) -> None:
    if value is not None and (type(value) not in (int, float) or not 0 < value < math.inf):
        raise ValueError(f"{field.name} must be a number of seconds above 0, not {value!r}")


def _check_bool(marks: "Marks", field: "attrs.Attribute[bool]", value: Any) -> None:
    if type(value) is not bool:
        raise ValueError(f"{field.name} must be True or False, not {value!r}")


@attrs.frozen(kw_only=True)
class Marks:
    """The arguments of the decorator `agent`. None stands for the default that the docstring of `agent` states."""

    restartable: bool = False
    max_runs: int | None = attrs.field(default=None, validator=_check_count)
    time_limit: float | None = attrs.field(default=None, validator=_check_seconds)
    silence_limit: float | None = attrs.field(default=None, validator=_check_seconds)
    unheard_seconds: float | None = attrs.field(default=None, validator=_check_seconds)
    tools: bool = attrs.field(default=False, validator=_check_bool)


@overload
def agent(function: Function) -> Function: ...
@overload
def agent(
    *,
    restartable: bool = False,
    max_runs: int | None = None,
    time_limit: float | None = None,
    silence_limit: float | None = None,
    unheard_seconds: float | None = None,
    tools: bool = False,
) -> Callable[[Function], Function]: ...
def agent(function: Any = None, **marks: Any) -> Any:
    """Mark the function that is the agent of a file, and set its limits.

    *restartable*: if the hub stops or is killed during an answer, it runs the agent again, once, at its next start.
    *max_runs*: the number of answers at a time; 32 by default for plain functions, which use a thread each, else
    unlimited.
    *time_limit*: seconds for one answer; one hour by default. *silence_limit*: seconds between two outputs; ten minutes
    by default. At a limit the answer ends with the stop reason `timeout`.
    *unheard_seconds*: an answer is cancelled this long after its last listener has left; never by default.
    *tools*: the agent takes the tools of clients (`run.request.tools`), and calls them with ToolCallStart and others.

    Raises ValueError or TypeError for a wrong argument: the agent is then broken, with that text.
    """

    unknown = marks.keys() - attrs.fields_dict(Marks).keys()
    if unknown:
        raise TypeError(f"@agent has no argument {min(unknown)}: use {', '.join(attrs.fields_dict(Marks))}")
    checked_marks = Marks(**marks)

    def mark(function: Any) -> Any:
        function.__hubbub__ = checked_marks
        return function

    return mark if function is None else mark(function)
