"""What an agent file and an adapter see of the hub."""

from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar, overload

import attrs

from hub.errors import AgentError
from hub.messages import Author, Body, FinishReason, Interrupt, ReplyStatus, StopReason, Usage


@attrs.frozen
class Message:
    """A whole text, yielded by an agent that does not stream it; *parts* go beside it (see hub.messages.parts)."""

    content: str
    parts: Sequence[Mapping[str, Any]] | None = None


@attrs.frozen
class Finish:
    """Yielded last by an agent that knows why it stopped, or what it used."""

    reason: FinishReason = "end_turn"
    usage: Usage | None = None


AgentOutput = str | Message | Finish | Body  # of hub.messages.CONTENT


@attrs.frozen
class Past:
    """One finished message of the session; *agent* is None for what people wrote.

    *stop_reason* says how the agent's answer ended; None if it ended by itself. The role `system` comes only from
    clients of the OpenAI endpoint: instructions for the model.
    """

    role: Literal["user", "assistant", "system"]
    content: str
    agent: str | None = None
    parts: Sequence[Mapping[str, Any]] = ()
    stop_reason: StopReason | None = attrs.field(default=None, kw_only=True)


class Call:
    """Another agent's answer, as it comes: `async for text in run.call(...)`, or whole: `await run.call(...)`."""

    def __init__(self, texts: AsyncIterator[str]) -> None:
        self._texts = texts

    def __aiter__(self) -> AsyncIterator[str]:
        return self._texts

    def __await__(self) -> Generator[Any, None, str]:
        return self._whole().__await__()

    async def _whole(self) -> str:
        return "".join([text async for text in self._texts])


async def _no_file(file_id: str) -> bytes:
    raise AgentError(f"there is no file {file_id}", "unknown_file")


async def _nothing_kept(name: str, type: str, data: bytes) -> str:
    raise AgentError("a conversation without a session keeps no files", "unknown_session")


@attrs.frozen
class Shelf:
    """The files of a session, as its agents have them; without a session there are none."""

    file: Callable[[str], Awaitable[bytes]] = _no_file
    keep: Callable[[str, str, bytes], Awaitable[str]] = _nothing_kept


@attrs.frozen
class Reply:
    """What somebody answered to a question: *payload* is any JSON; `cancelled` says that they will not answer."""

    status: ReplyStatus
    payload: Any
    by: Author


# Asks people; the id of the question is the hub's to give.
Ask = Callable[[Interrupt], Awaitable[Reply]]


async def nobody(question: Interrupt) -> Reply:
    """Answer for people where there are none."""
    raise AgentError("nobody can be asked here: ask in a session, which people can join", "nobody_to_ask")


def no_call(run: "Run", agent: str, message: str) -> Call:
    """Refuse a call: the default for a run that no hub made."""
    raise AgentError("no other agent can be called: this run was not started by a hub")


@attrs.frozen(kw_only=True)
class Run:
    """What an agent may know about the answer it is giving.

    *history* holds the session's finished messages before this one, oldest first, at most the last 100. *parts* are
    what the message holds beside its text (see hub.messages.parts), *metadata* is what its sender says of it.
    """

    id: str
    agent: str
    session: str
    message: str
    principal: Author
    history: Sequence[Past]
    _call: Callable[["Run", str, str], Call] = attrs.field(default=no_call, alias="call", repr=False)
    _ask: Ask = attrs.field(default=nobody, alias="ask", repr=False)
    _shelf: Shelf = attrs.field(default=Shelf(), alias="shelf", repr=False)
    parts: Sequence[Mapping[str, Any]] = ()
    metadata: Mapping[str, Any] = attrs.Factory(dict)

    def call(self, agent: str, message: str) -> Call:
        """Ask another agent; its text comes to the caller alone, and stops with this run.

        It sees no history. If that agent has `max_runs`, the call waits for a free slot. Raises AgentError
        (`unknown_agent`, `agent_broken`, `call_depth`, `call_deadlock`, `timeout`) when iterated.
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
        """Ask the people in the session, and wait for the first answer, however long; several may be asked at once.

        Cancelled (by asyncio.timeout, say), it takes the question back. Raises AgentError (`nobody_to_ask`,
        `too_many_questions`, `agent_bad_output`, `answer_too_long`).
        """
        return await self._ask(
            Interrupt(id="", reason=reason, message=message, toolCallId=tool_call_id, responseSchema=schema)
        )

    async def file(self, file_id: str) -> bytes:
        """Return the bytes of a file of this session; raises AgentError (`unknown_file`)."""
        return await self._shelf.file(file_id)

    async def keep(self, name: str, type: str, data: bytes) -> str:
        """Keep a file in this session, and return its id: clients read it at `/api/v1/files/ID`.

        Raises AgentError with the code that an upload would get (`file_too_large`, `quota_exceeded`, `bad_type` ...).
        """
        return await self._shelf.keep(name, type, data)


# An adapter's agent: one async generator function over a run.
AnswerFunction = Callable[[Run], AsyncIterator[AgentOutput]]


@attrs.frozen
class AgentPaths:
    """Where an adapter's agent lives: its id, the hub's data folder (for child processes), and its cache folder.

    The cache is for what is large and can be fetched again, as models; hubs with other data folders share it.
    """

    agent: str
    data: Path
    cache: Path


class Adapter(Protocol):
    """What an adapter offers: a module, or any object, with the names below.

    `Options` is an attrs class: the keys of the agent's TOML file, checked by name and type. `open` is entered when
    the agent is loaded and left when the hub stops; what it gives answers the runs. It raises AgentError or ValueError
    with one line for the operator where it cannot work; the agent is then listed as broken with that line.

    An adapter may also have a function `check(options)`. `hubbub agents` calls it instead of `open`: it raises the same
    errors and starts nothing.
    """

    Options: type[Any]

    def open(self, options: Any, paths: AgentPaths, /) -> AbstractAsyncContextManager[AnswerFunction]: ...


Function = TypeVar("Function", bound=Callable[..., Any])


@attrs.frozen
class Marks:
    """What @agent says of a function: see `agent`."""

    restartable: bool = False
    max_runs: int | None = None
    time_limit: float | None = None
    silence_limit: float | None = None


@overload
def agent(function: Function) -> Function: ...
@overload
def agent(
    *,
    restartable: bool = False,
    max_runs: int | None = None,
    time_limit: float | None = None,
    silence_limit: float | None = None,
) -> Callable[[Function], Function]: ...
def agent(function: Any = None, **marks: Any) -> Any:
    """Mark the function of an agent file that answers, and say how it may be run.

    *restartable*: run it again, once, where the hub died in the middle. *max_runs*: how many at a time (32 for plain
    functions, which take a thread each; else without limit). *time_limit*, *silence_limit*: seconds for a whole answer
    and between two pieces of it (an hour; ten minutes).
    """

    def mark(function: Any) -> Any:
        function.__hubbub__ = Marks(**marks)
        return function

    return mark if function is None else mark(function)
