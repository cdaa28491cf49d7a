"""Answers that no session keeps: only the caller gets their text."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any, cast

import attrs

from hub.errors import AgentError, HubError
from hub.hosting.agent_task import AgentTask
from hub.hosting.contract import Call, Finish
from hub.hosting.contract import Message as Whole
from hub.hosting.contract import Reply
from hub.hosting.contract import Run as RunView
from hub.hosting.faults import bad_output_error, clean_error, encode_text, too_long_error
from hub.hosting.output import AGENT_EVENTS, call_agent
from hub.hosting.slots import Slot
from hub.limits import Limits
from hub.messages import Interrupt, StopReason

TextOrFinish = str | Finish
AHEAD = 16  # pieces that the code may be ahead of its reader


def call_from(caller: AgentTask) -> Callable[[RunView, str, str], Call]:
    """Return the function behind `run.call` in the answer *caller*."""
    return lambda run, agent_id, message: Call(_texts(caller, run, agent_id, message))


async def _texts(caller: AgentTask, run: RunView, agent_id: str, message: str) -> AsyncGenerator[str, None]:
    caller.check_calls()
    try:
        slot = await caller.slot.slots.acquire(agent_id, caller.slot)
    except HubError as error:
        raise AgentError(error.message, error.code) from None
    if not caller.slot.is_used:  # the caller has ended while it waited
        slot.release()
    caller.check_calls()
    # The other agent uses the questions and files of the caller's run.
    run = attrs.evolve(run, agent=agent_id, message=message, history=(), parts=(), metadata={})
    async with open_answer(slot, caller.limits, run, caller) as reader:
        async for piece in reader:
            if isinstance(piece, str):
                yield piece


@asynccontextmanager
async def open_answer(
    slot: Slot, limits: Limits, run: RunView, caller: AgentTask | None = None
) -> AsyncIterator["OutputReader"]:
    """Let an agent answer at *slot*, and release that slot; the context is an iterator of its texts and its end.

    Iteration raises AgentError, with the code `timeout` if the agent takes longer than its limits. Leaving the context
    stops the agent, and waits until its code has ended or its grace time is over.
    """
    reader = OutputReader(run=run)
    reader.agent_task = agent_task = AgentTask(
        slot=slot,
        ids={"session": run.session, "run": run.id, "agent": run.agent},
        limits=limits,
        stop=reader.stop,
        is_excused=reader.is_excused,
        ended=reader.end,
        abandoned=reader.close,
        depth=caller.depth + 1 if caller is not None else 0,
    )
    calls = caller.calls if caller is not None else set()
    calls.add(agent_task)
    agent_task.start(reader.work())
    try:
        yield reader
    finally:
        agent_task.cancel()
        calls.discard(agent_task)
        await reader.over.wait()


@attrs.define(eq=False, repr=False, kw_only=True)
class OutputReader:
    """An iterator over the output of an agent's code. The code waits while AHEAD pieces are unread (backpressure).

    *over* is set when the code has ended, or was abandoned.
    """

    run: RunView
    agent_task: AgentTask = attrs.field(init=False)
    over: asyncio.Event = attrs.Factory(asyncio.Event)
    _unread: deque[TextOrFinish] = attrs.Factory(deque)
    _news: asyncio.Event = attrs.Factory(asyncio.Event)
    _room: asyncio.Event = attrs.Factory(asyncio.Event)
    _questions: int = 0
    _size: int = 0
    _failure: BaseException | None = None

    def __attrs_post_init__(self) -> None:
        self._room.set()

    def __aiter__(self) -> "OutputReader":
        return self

    async def __anext__(self) -> TextOrFinish:
        while not self._unread:
            if self.over.is_set():
                raise self._failure or StopAsyncIteration
            self._news.clear()
            await self._news.wait()
        piece = self._unread.popleft()
        if not self._room.is_set():
            self.agent_task.deadlines.note()  # the reader was slow, not the agent
            self._room.set()
        return piece

    # --- in the task of the code ------------------------------------------------------------------------------------

    async def work(self) -> None:
        agent, deadlines = self.agent_task.agent, self.agent_task.deadlines
        run = attrs.evolve(self.run, call=call_from(self.agent_task), ask=self._ask)
        try:
            async with aclosing(cast(Any, call_agent(agent, run))) as output:
                async for piece in output:
                    if self.over.is_set():  # the answer was abandoned: drop the rest
                        return
                    deadlines.note()
                    text = piece.content if isinstance(piece, Whole) else piece
                    if isinstance(text, (str, Finish)):
                        await self._give(text)
                    elif type(piece) in AGENT_EVENTS or piece is None:
                        await asyncio.sleep(0)  # an agent that gives no text must not block the loop
                    else:
                        raise bad_output_error(agent.id, piece)
        except AgentError as error:
            raise clean_error(error) from error
        except (Exception, SystemExit, KeyboardInterrupt) as error:  # asyncio would end the hub for the last two
            raise self.agent_task.explain(error) from error

    async def _give(self, piece: TextOrFinish) -> None:
        if isinstance(piece, str):
            limit = self.agent_task.limits.run_bytes
            self._size += len(piece) if piece.isascii() else len(encode_text(self.run.agent, piece))
            if self._size > limit:
                raise too_long_error(self.run.agent, limit)
        self._unread.append(piece)
        self._news.set()
        if len(self._unread) >= AHEAD:
            self._room.clear()
            await self._room.wait()

    async def _ask(self, question: Interrupt) -> Reply:
        self._questions += 1
        try:
            return await self.run._ask(question)
        finally:
            self._questions -= 1
            self.agent_task.deadlines.note()

    # --- callbacks of AgentTask ---------------------------------------------------------------------------------------

    def is_excused(self) -> bool:
        """Return whether the agent waits for its reader, or for people."""
        return bool(self._questions) or not self._room.is_set()

    def stop(self, reason: StopReason) -> None:
        """End the answer for *reason*, when its code has stopped or after the grace time; twice is once."""
        if self._failure is None and not self.over.is_set():
            late = f"agent {self.run.agent} took longer than its time limit or its silence limit"
            self._failure = AgentError("the hub ended" if reason == "aborted" else late, reason, retryable=True)
            self.agent_task.cancel()

    def end(self, task: asyncio.Task[None]) -> None:
        error: BaseException | None = None if task.cancelled() else task.exception()
        if task.cancelled() and not self.agent_task.is_cancelled:
            error = self.agent_task.explain(AgentError(f"agent {self.run.agent} cancelled itself"))
        self._failure = self._failure or error
        self.close()

    def close(self) -> None:
        self.over.set()
        self._news.set()
