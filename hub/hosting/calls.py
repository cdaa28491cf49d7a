"""Answers that no session keeps: their text comes to the one who asked alone."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any, cast

import attrs

from hub.errors import AgentError, HubError
from hub.hosting.answering import Answering
from hub.hosting.contract import Call, Finish
from hub.hosting.contract import Message as Whole
from hub.hosting.contract import Reply
from hub.hosting.contract import Run as RunView
from hub.hosting.faults import cleaned, refuse, said_too_much, utf8
from hub.hosting.output import KINDS, pieces
from hub.hosting.places import Place
from hub.limits import Limits
from hub.messages import Interrupt, StopReason

Given = str | Finish
AHEAD = 16


def calling(caller: Answering) -> Callable[[RunView, str, str], Call]:
    """Return what `run.call` does in an answer."""
    return lambda run, agent_id, message: Call(_texts(caller, run, agent_id, message))


async def _texts(caller: Answering, run: RunView, agent_id: str, message: str) -> AsyncGenerator[str, None]:
    caller.check_calls()
    try:
        place = await caller.place.places.take_for_call(agent_id, caller.place)
    except HubError as gone:
        raise AgentError(gone.message, gone.code) from None
    if not caller.place.is_held:  # the caller has ended as it waited
        place.release()
    caller.check_calls()
    # It asks people, and has the files, where its caller does.
    run = attrs.evolve(run, agent=agent_id, message=message, history=(), parts=(), metadata={})
    async with answer(place, caller.limits, run, caller) as given:
        async for piece in given:
            if isinstance(piece, str):
                yield piece


@asynccontextmanager
async def answer(
    place: Place, limits: Limits, run: RunView, caller: Answering | None = None
) -> AsyncIterator[AsyncIterator[Given]]:
    """Let an agent answer at *place*, which this releases; the context gives its texts and its end as they come.

    Reading them raises AgentError: with the code `timeout` past the agent's limits. Leaving the context stops the
    agent, and waits until its code has ended or its grace time is over.
    """
    feed = Feed(run=run)
    feed.answering = answering = Answering(
        place=place,
        ids={"session": run.session, "run": run.id, "agent": run.agent},
        limits=limits,
        stop=feed.stop,
        is_excused=feed.is_excused,
        ended=feed.end,
        abandoned=feed.close,
        depth=caller.depth + 1 if caller is not None else 0,
    )
    calls = caller.calls if caller is not None else set()
    calls.add(answering)
    answering.start(feed.work())
    try:
        yield feed
    finally:
        answering.cancel()
        calls.discard(answering)
        await feed.over.wait()


@attrs.define(eq=False, repr=False, kw_only=True)
class Feed:
    """What an agent's code gives, for one who takes it piece by piece; the code waits where it is AHEAD pieces ahead.

    *over* is set when the code has ended, or was abandoned.
    """

    run: RunView
    answering: Answering = attrs.field(init=False)
    over: asyncio.Event = attrs.Factory(asyncio.Event)
    _given: deque[Given] = attrs.Factory(deque)
    _news: asyncio.Event = attrs.Factory(asyncio.Event)
    _room: asyncio.Event = attrs.Factory(asyncio.Event)
    _questions: int = 0
    _size: int = 0
    _failure: BaseException | None = None

    def __attrs_post_init__(self) -> None:
        self._room.set()

    def __aiter__(self) -> "Feed":
        return self

    async def __anext__(self) -> Given:
        while not self._given:
            if self.over.is_set():
                raise self._failure or StopAsyncIteration
            self._news.clear()
            await self._news.wait()
        piece = self._given.popleft()
        if not self._room.is_set():
            self.answering.deadlines.note()  # until now the agent was not what was silent
            self._room.set()
        return piece

    # --- in the task of the code ------------------------------------------------------------------------------------

    async def work(self) -> None:
        agent, deadlines = self.answering.agent, self.answering.deadlines
        run = attrs.evolve(self.run, call=calling(self.answering), ask=self._ask)
        try:
            async with aclosing(cast(Any, pieces(agent, run))) as given:
                async for piece in given:
                    deadlines.note()
                    text = piece.content if isinstance(piece, Whole) else piece
                    if isinstance(text, (str, Finish)):
                        await self._give(text)
                    elif type(piece) in KINDS or piece is None:
                        await asyncio.sleep(0)  # one that gives no text at all must not hold the loop
                    else:
                        raise refuse(agent.id, piece)
        except AgentError as error:
            raise cleaned(error) from error
        except (Exception, SystemExit, KeyboardInterrupt) as error:  # asyncio would let the last two end the hub
            raise self.answering.explain(error) from error

    async def _give(self, piece: Given) -> None:
        if isinstance(piece, str):
            most = self.answering.limits.run_bytes
            self._size += len(piece) if piece.isascii() else len(utf8(self.run.agent, piece))
            if self._size > most:
                raise said_too_much(self.run.agent, most)
        self._given.append(piece)
        self._news.set()
        if len(self._given) >= AHEAD:
            self._room.clear()
            await self._room.wait()

    async def _ask(self, question: Interrupt) -> Reply:
        self._questions += 1
        try:
            return await self.run._ask(question)
        finally:
            self._questions -= 1
            self.answering.deadlines.note()

    # --- what becomes of it (see Answering) -------------------------------------------------------------------------

    def is_excused(self) -> bool:
        """Return whether the agent waits for who takes its pieces, or for people."""
        return bool(self._questions) or not self._room.is_set()

    def stop(self, reason: StopReason) -> None:
        self._failure = AgentError(f"agent {self.run.agent} took longer than it may", reason, retryable=True)
        self.answering.cancel()

    def end(self, task: asyncio.Task[None]) -> None:
        error: BaseException | None = None if task.cancelled() else task.exception()
        if task.cancelled() and not self.answering.is_cancelled:
            error = self.answering.explain(AgentError(f"agent {self.run.agent} cancelled itself"))
        self._failure = self._failure or error
        self.close()

    def close(self) -> None:
        self.over.set()
        self._news.set()
