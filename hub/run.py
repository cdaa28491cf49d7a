"""One answer: drives an agent, gives its text to the outbox, and ends exactly once."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing
from time import perf_counter
from typing import Any, cast

import attrs
import msgspec
import orjson
import structlog

from hub.agent import Call, Finish
from hub.agent import Message as Whole
from hub.agent import Past, Reply
from hub.agent import Run as RunView
from hub.agent import Shelf
from hub.asking import Questions
from hub.config import Limits
from hub.errors import AgentError, HubError
from hub.faults import explain, refuse
from hub.loading import Agent
from hub.logs import Message, RunRecord
from hub.messages import (
    CONTENT,
    Body,
    Interrupt,
    Reasoning,
    RunError,
    RunFinished,
    StopReason,
    ToolCallResult,
    WholeMessage,
)
from hub.outbox import Item, Outbox
from hub.parts import Parts, Plain, plain
from hub.threads import in_thread

log = structlog.get_logger()

KINDS = frozenset(CONTENT.values())
SLICE_SECONDS = 0.005  # a generator that never waits is given back to the loop this often


def pieces(agent: Agent, run: RunView) -> AsyncIterator[Any]:
    """Return what the agent gives, unchecked; a plain function runs in a thread."""
    if agent.answer is not None:
        return agent.answer(run)
    work = agent.work
    assert work is not None
    return in_thread(lambda: work(run), f"agent {agent.id}")


def _is_sound(finish: Finish) -> bool:
    """Tell whether the log can hold what an agent made by hand."""
    usage = finish.usage
    counts = () if usage is None else (getattr(usage, "inputTokens", None), getattr(usage, "outputTokens", None))
    return finish.reason in ("end_turn", "max_tokens") and all(type(count) is int for count in counts)


@attrs.define(eq=False)
class Run:
    """One answer of one agent to one message.

    *history* reads what was said before. *call* is what `run.call` does, *shelf* has its session's files. *asked* is
    called when its questions changed, *over* once, when the end is in the log, *freed* when the agent may take another.
    All methods are called in the loop.
    """

    record: RunRecord
    agent: Agent | None
    outbox: Outbox
    limits: Limits
    history: Callable[["Run"], Awaitable[Sequence[Past]]]
    call: Callable[[RunView, str, str], Call]
    asked: Callable[["Run"], None]
    over: Callable[["Run"], None]
    freed: Callable[[Agent], None]
    shelf: Shelf
    ended: bool = False
    stopping: StopReason | None = None
    task: asyncio.Task[None] | None = None
    questions: Questions = attrs.field(init=False)
    _message_id: str = attrs.field(init=False)
    _texts: list[Message] = attrs.Factory(list)
    _parts: list[str] = attrs.Factory(list)
    _offset: int = 0
    _thought: str = ""
    _total: int = 0
    _pending: int = 0
    _finish: Finish = Finish()
    _refused: AgentError | None = None
    _slot: bool = False
    _room: asyncio.Future[None] | None = None
    _timers: list[asyncio.TimerHandle] = attrs.Factory(list)
    _heard: float = 0.0
    _turned: bool = True
    _new_id: Callable[[str], str] = attrs.field(kw_only=True, alias="new_id")

    def __attrs_post_init__(self) -> None:
        record = self.record
        self._message_id = record.messageId
        self.questions = Questions(
            record.agentId, record.runId, self.outbox, self.limits, self._break, self._questions_changed
        )

    @property
    def id(self) -> str:
        return self.record.runId

    @property
    def message_ids(self) -> tuple[str, ...]:
        """The ids of what it has said, as far as that is finished, and of its first message in any case."""
        return (self.record.messageId, *(message.messageId for message in self._texts))

    # --- start and stop ---------------------------------------------------------------------------------------------

    def reserve(self) -> None:
        """Count against the agent's limit, until the code has ended or will not be called."""
        assert self.agent is not None
        self.agent.working += 1
        self._slot = True

    def release(self) -> None:
        if self._slot and self.agent is not None:
            self._slot = False
            self.agent.working -= 1
            self.freed(self.agent)

    def go(self) -> None:
        """Call the agent's code; its `run_started` is in the log."""
        if self.ended:
            return
        assert self.agent is not None
        loop = asyncio.get_running_loop()
        self._heard = perf_counter()
        marks = self.agent.marks
        self._timers.append(loop.call_later(marks.time_limit or self.limits.run_seconds, self.stop, "timeout"))
        self._watch_silence(marks.silence_limit or self.limits.silence_seconds)
        self.task = asyncio.create_task(self._work(self.agent), name=f"run {self.id}")
        self.task.add_done_callback(self._worked)

    def stop(self, reason: StopReason) -> None:
        """End the run for *reason*, when its work has stopped or after the grace time; twice is once."""
        if self.ended or self.stopping:
            return
        self.stopping = reason
        self.questions.shut()
        if self.task is None:
            self._end(reason)
            return
        self.task.cancel()
        grace = asyncio.get_running_loop().call_later(self.limits.grace_seconds, self._abandon)
        self._timers.append(grace)

    def resume_texts(self, said: Iterable[WholeMessage]) -> None:
        """Take what the run said in an earlier process, in order; its end writes these to the history."""
        for message in said:
            self._message_id = message.messageId
            self._texts.append(self._message(message.content, message.parts))

    def leave(self) -> None:
        """Stop without an end: the run stays in the log as started, and runs again at the next start."""
        self.ended = True
        self._clear_timers()
        self.questions.leave()
        if self.task is not None:
            self.task.cancel()
        else:
            self.release()

    def _abandon(self) -> None:
        log.warning("agent ignores its cancel; its later output is dropped", agent=self.record.agentId, run=self.id)
        self._end(self.stopping or "cancelled")

    def _watch_silence(self, limit: float) -> None:
        loop = asyncio.get_running_loop()

        def look() -> None:
            quiet = 0.0 if self.questions.open else perf_counter() - self._heard
            if quiet >= limit and self._pending == 0:
                self.stop("timeout")
            else:
                self._timers.append(loop.call_later(max(limit - quiet, limit / 10), look))

        self._timers.append(loop.call_later(limit, look))

    def _clear_timers(self) -> None:
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()

    # --- the work ---------------------------------------------------------------------------------------------------

    async def _work(self, agent: Agent) -> None:
        try:
            await self._answer(agent)
        except (SystemExit, KeyboardInterrupt) as exit:  # asyncio would let these end the hub
            raise RuntimeError(repr(exit)).with_traceback(exit.__traceback__) from None

    async def _answer(self, agent: Agent) -> None:
        run, since = self._view(await self.history(self)), 0.0
        async with aclosing(cast(Any, pieces(agent, run))) as given:
            async for piece in given:
                if self.questions.open:
                    await self.questions.settled()
                self._heard = now = perf_counter()
                try:
                    if type(piece) is str:
                        self._say(piece)
                    elif type(piece) is ToolCallResult:
                        self._content(await self._shortened(piece))
                    else:
                        self._take(piece)
                except AgentError as refused:
                    self._refused = explain(agent, refused, given)
                    return
                if self._pending > self.limits.pending_bytes:
                    await self._until_room()
                elif now - since > SLICE_SECONDS:
                    if not self._turned:
                        await asyncio.sleep(0)
                    since, self._turned = now, False

    def _view(self, past: Sequence[Past]) -> RunView:
        it = self.record
        return RunView(
            *(it.runId, it.agentId, it.sessionId, it.message, it.author, past),
            call=self.call,
            ask=self.ask,
            shelf=self.shelf,
            parts=it.parts or (),
            metadata=it.metadata or {},
        )

    async def _until_room(self) -> None:
        """Wait, as the agent must, while the log is slower than it."""
        while self._pending > self.limits.pending_bytes // 2 and not self.ended:
            self._room = asyncio.get_running_loop().create_future()
            await self._room

    def _take(self, piece: object) -> None:
        if isinstance(piece, str):
            self._say(str(piece))
        elif isinstance(piece, Whole) and isinstance(piece.content, str):
            self._whole(piece)
        elif isinstance(piece, Finish) and _is_sound(piece):
            self._finish = piece
        elif type(piece) in KINDS:
            self._content(cast(Body, piece))
        else:
            raise refuse(self.record.agentId, piece)

    def _say(self, text: str) -> None:
        if self.ended or not text:
            return
        size = len(text) if text.isascii() else len(self._utf8(text))
        self._count(size)
        if size <= self.limits.chunk_bytes:
            self._put(text, size)
            return
        step = self.limits.chunk_bytes // 4  # a code point takes at most 4 bytes
        for at in range(0, len(text), step):
            part = text[at : at + step]
            self._put(part, len(part.encode()))

    def _utf8(self, text: str) -> bytes:
        try:
            return text.encode()
        except UnicodeEncodeError:
            raise AgentError(
                f"agent {self.record.agentId} gave text with a lone surrogate, which no UTF-8 can hold",
                "agent_bad_output",
            ) from None

    def _count(self, size: int) -> None:
        self._total += size
        if self._total > self.limits.run_bytes:
            raise AgentError(
                f"agent {self.record.agentId} said more than {self.limits.run_bytes >> 20} MiB in one answer",
                "answer_too_long",
            )

    def _put(self, text: str, size: int) -> None:
        self._thought = ""
        self._pending += size
        record = self.record
        self.outbox.say(record.runId, record.agentId, self._message_id, self._offset, text, size, self._landed)
        self._parts.append(text)
        self._offset += len(text)

    def _landed(self, size: int) -> None:
        self._pending -= size
        self._turned = True  # the loop has: an agent of which something lands between two pieces waits by itself
        if self._room is not None:
            self._tell_room()

    def _tell_room(self) -> None:
        waited, self._room = self._room, None
        if waited is not None and not waited.done():
            waited.set_result(None)

    def _whole(self, whole: Whole) -> None:
        """Log a message that came in one piece; it ends the streamed one before it."""
        if self.ended:
            return
        parts = self._parts_of(whole)
        self._count(len(self._utf8(whole.content)))
        self._break()
        self._texts.append(self._message(whole.content, parts))
        self.outbox.put(Item(self.record.agentId, self.id, WholeMessage(self._message_id, whole.content, parts)))
        self._message_id = self._new_id("m")

    def _parts_of(self, whole: Whole) -> Plain | None:
        """Return a copy of the parts that the agent cannot change any more, and that the log can hold."""
        if not whole.parts:
            return None
        try:
            data = orjson.dumps(whole.parts)
            parts = plain(msgspec.json.decode(data, type=Parts))
        except (TypeError, msgspec.ValidationError) as wrong:
            agent = self.record.agentId
            raise AgentError(f"agent {agent} gave a message with bad parts: {wrong}", "agent_bad_output") from None
        self._count(len(data))
        self._check_size(len(data), "message with parts")
        return parts

    def _check_size(self, size: int, what: str) -> None:
        if size > self.limits.content_bytes:
            most = self.limits.content_bytes >> 10
            raise AgentError(f"agent {self.record.agentId} gave a {what} of more than {most} KiB", "answer_too_long")

    def _content(self, piece: Body) -> None:
        """Log what is no text; it ends the streamed message before it."""
        if self.ended:
            return
        body, size = self._copy(piece)
        if isinstance(body, Reasoning):
            self._close_message()
            self._thought = self._thought or self._new_id("m")
            body = attrs.evolve(body, messageId=self._thought)
        else:
            self._break()
        self._pending += size
        self.outbox.put(Item(self.record.agentId, self.id, body, landed=lambda _: self._landed(size)))

    def _copy(self, piece: Body) -> tuple[Body, int]:
        """Return what an agent made as it is kept, and its bytes, which count; raises AgentError."""
        agent = self.record.agentId
        try:
            # A copy that the agent cannot change any more, and that the log can hold: one commit carries all sessions.
            data = orjson.dumps(attrs.asdict(piece))
            body = msgspec.convert(orjson.loads(data), type(piece))
        except (TypeError, msgspec.ValidationError) as wrong:
            raise AgentError(f"agent {agent} gave a bad {piece.type}: {wrong}", "agent_bad_output") from None
        self._count(len(data))
        self._check_size(len(data), piece.type)
        return body, len(data)

    async def ask(self, question: Interrupt) -> Reply:
        """Ask people, and wait; called by the agent's code, from any task of it."""
        self.questions.check()
        body, _ = self._copy(attrs.evolve(question, id=self._new_id("i")))
        return await self.questions.ask(cast(Interrupt, body))

    def _questions_changed(self) -> None:
        self._heard = perf_counter()
        self.asked(self)

    def _break(self) -> None:
        """End the streamed message and the thought: another event of the run follows."""
        self._thought = ""
        self._close_message()

    async def _shortened(self, result: ToolCallResult) -> ToolCallResult:
        """Return what a tool gave as its event has it: what is large is kept as a file first, and the agent waits."""
        content, limits = result.content, self.limits
        if self.ended or not isinstance(content, str) or len(content) <= limits.result_bytes // 4:
            return result
        data = await asyncio.to_thread(self._utf8, content)  # of 32 MiB it takes long enough to be felt
        if len(data) <= limits.result_bytes or self.ended:
            return result
        if len(data) > limits.file_bytes:
            agent, most = self.record.agentId, limits.file_bytes >> 20
            raise AgentError(f"agent {agent} gave a tool's result of more than {most} MiB", "answer_too_long")
        file_id = await self.shelf.keep("tool-result.txt", "text/plain; charset=utf-8", data)
        start = data[: limits.result_start_bytes].decode(errors="ignore")  # cut between two code points
        return attrs.evolve(result, content=start, fileId=file_id, size=len(data))

    def _close_message(self) -> None:
        if self._parts:
            self._texts.append(self._message("".join(self._parts)))
            self._parts, self._offset = [], 0
            self._message_id = self._new_id("m")

    def _message(self, content: str, parts: Plain | None = None) -> Message:
        record = self.record
        return Message(
            *(self._message_id, "assistant", content, record.agentId, self.id, None),
            parts=parts,
            userMessageId=record.userMessageId,
        )

    # --- the end ----------------------------------------------------------------------------------------------------

    def _worked(self, task: asyncio.Task[None]) -> None:
        assert self.agent is not None
        self.release()
        error = None if task.cancelled() else task.exception()
        if self.ended:
            return
        if self.stopping:
            self._end(self.stopping)
        elif self._refused is not None:
            self._end("error", self._refused)
        elif error is not None:
            self._end("error", explain(self.agent, error))
        elif task.cancelled():
            self._end("error", explain(self.agent, AgentError(f"agent {self.agent.id} cancelled itself")))
        else:
            self._end(self._finish.reason)

    def fail(self, error: HubError | AgentError) -> None:
        """End a run that could not start."""
        self._end("error", AgentError(error.message, error.code))

    def _end(self, reason: StopReason, error: AgentError | None = None) -> None:
        if self.ended:
            return
        self.ended = True
        self._clear_timers()
        if self.task is None:
            self.release()
        last_id = self._message_id if self._parts or not self._texts else self._texts[-1].messageId
        self._close_message()
        record, items = self.record, []
        if error is not None:
            said = RunError(error.code, error.message, error.retryable, error.retry_after_ms)
            items.append(Item(record.agentId, self.id, said))
        end = RunFinished(last_id, reason, self._finish.usage)
        items.append(
            Item(
                record.agentId,
                self.id,
                end,
                messages=tuple(self._texts),
                ended=(self.id,),
                landed=lambda _: self.over(self),
            )
        )
        self.questions.close(lambda closing: self.outbox.put(*closing, *items))
        self._tell_room()
