"""How chats come into a session: one at a time, each with its run, or not at all."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import attrs

from hub.delivery.channel import Channel
from hub.errors import Busy, Draining, SessionDeleted, StorageUnavailable
from hub.hosting.hosted import Agent
from hub.messages import Accepted, Author, Chat
from hub.sessions import chats, stopping
from hub.sessions.chats import Taken
from hub.sessions.hosts import SessionHost
from hub.sessions.once import Once
from hub.sessions.outbox import Outbox, OutboxState, attach_future
from hub.sessions.run import ActiveRun
from hub.sessions.schedule import Schedule


@attrs.define(eq=False, repr=False, kw_only=True)
class Admission:
    """Lets chats into one session: each becomes a message and a run, in one commit. While it is *deleting*, none."""

    channel: Channel
    host: SessionHost
    outbox: Outbox
    schedule: Schedule
    once: Once
    deleting: bool = False

    async def chat(self, chat: Chat, author: Author, agent: Agent) -> Accepted:
        """Keep a message and its run in one commit; return when both are kept.

        Raises Busy, IdReused, StorageUnavailable; nothing is kept then.
        """
        said = chats.digest(chat, agent.id)
        return await self.once.keep(chat, author, said, partial(self._admit, chat, author, agent, said))

    async def _admit(self, chat: Chat, author: Author, agent: Agent, said: str) -> Accepted:
        if chat.ifBusy == "rollback":
            return await self._roll_back(chat, author, agent, said)
        async with self.schedule.turn:  # who takes something back goes first
            accepted = self.put(chat, author, agent, said)
        return await accepted

    def put(
        self, chat: Chat, author: Author, agent: Agent, said: str, taken: Taken | None = None
    ) -> Coroutine[Any, Any, Accepted]:
        """Give a chat and its run to the outbox, with what is taken back for it; what is returned waits for the commit.

        One step, in which the schedule's *turn* is held. Raises Busy, Draining, SessionDeleted, StorageUnavailable, and
        what Agents.get() does.
        """
        self.check_open(clientMsgId=chat.clientMsgId)
        schedule = self.schedule
        agent = self.host.agents.get(agent.id)  # it may have been loaded anew while the chat waited
        new_id = self.host.seams.new_id
        place, ids = (self.channel.key, agent.id, self.channel.head), (new_id("r"), new_id("m"), new_id("m"))
        run = schedule.make_run(chats.record(chat, author, place, ids, taken), agent)
        replaced = list(schedule.running.values()) if chat.ifBusy == "replace" else []
        schedule.waiting.insert(0 if chat.ifBusy in ("replace", "rollback") else len(schedule.waiting), run)
        starts = chat.ifBusy == "parallel" or not schedule.must_wait(run)
        if taken is None:
            self._check_room(chat, agent, starts, run)
        else:  # what was stopped for it cannot be given back: it waits rather than being refused
            starts = starts and not agent.is_full
        first = chats.items(chat, run.record, starts, said, taken)
        new = bool(first[-1].messages)
        kept = attach_future(first[-1], lambda seq: self._landed(replaced, run, new, seq))
        if starts:
            schedule.start(run, *first)
        else:
            self.outbox.put(*first)
        return self._when_kept(chat, run, starts, kept)

    async def _roll_back(self, chat: Chat, author: Author, agent: Agent, said: str) -> Accepted:
        """Take back what is being answered, with its answers, and let the chat go first."""
        async with self.alone(chat):
            runs = list(self.schedule.running.values())
            if runs:  # without one, put() knows whether the chat must wait at all
                self._check_queue(chat, len(self.schedule.waiting) + 1)
            await stopping.end(self.schedule, runs)
            ids = dict.fromkeys(one for run in runs for one in (run.record.userMessageId, *run.message_ids))
            accepted = self.put(chat, author, agent, said, Taken(tuple(ids), "rollback") if ids else None)
        return await accepted

    @asynccontextmanager
    async def alone(self, chat: Chat = Chat(message="")) -> AsyncIterator[None]:
        """Let no chat in and no run start, until what is taken back is on its way; chats before it are in the log."""
        self.check_open(clientMsgId=chat.clientMsgId)
        try:
            async with self.schedule.turn:
                await self.outbox.wait_for_history()
                self.check_open(clientMsgId=chat.clientMsgId)  # it may have been deleted meanwhile
                yield
        finally:
            self.schedule.wake()

    def check_open(self, **about: str | None) -> None:
        """Raise SessionDeleted, Draining or StorageUnavailable where nothing new is taken now."""
        if self.deleting:
            raise SessionDeleted(self.channel.id, **about)
        if self.schedule.draining:
            text = "the hub is going down: reconnect in a moment"
            raise Draining(text, **about, sessionId=self.channel.id, retryAfterMs=1000)
        if self.outbox.state is OutboxState.BACKING_OFF:
            raise self.outbox.make_error(**about)

    def _check_room(self, chat: Chat, agent: Agent, starts: bool, run: ActiveRun) -> None:
        waiting = self.schedule.waiting
        try:
            if chat.ifBusy == "reject" and (self.schedule.running or len(waiting) > 1):
                raise self._busy(chat, "the session is answering, and the chat said ifBusy: reject")
            if not starts:
                self._check_queue(chat, len(waiting))
            elif agent.is_full:
                raise self._busy(chat, f"agent {agent.id} gives as many answers as it may: try again later")
        except Busy:
            waiting.remove(run)
            raise

    def _check_queue(self, chat: Chat, length: int) -> None:
        if length > self.host.limits.queued_runs:
            raise self._busy(chat, f"{length - 1} messages wait in this session already: try again later")

    def _busy(self, chat: Chat, line: str) -> Busy:
        return Busy(line, sessionId=self.channel.id, clientMsgId=chat.clientMsgId, retryAfterMs=1000)

    def _landed(self, replaced: list[ActiveRun], run: ActiveRun, new: bool, seq: int | StorageUnavailable) -> None:
        """The chat is in the log, or was refused: then its run never was. *new* says that it has a message."""
        if isinstance(seq, int):
            self.host.counters.chats += new
            for other in replaced:
                other.stop("cancelled")
        else:
            run.suspend()
            self.outbox.drop_run(run.id)
            self.schedule.remove(run)
        self.schedule.changed()

    async def _when_kept(self, chat: Chat, run: ActiveRun, starts: bool, kept: "asyncio.Future[int]") -> Accepted:
        seq = await kept
        ids = (self.channel.id, run.record.userMessageId, run.id)
        waiting = self.schedule.waiting
        position = waiting.index(run) + 1 if run in waiting else 0
        return chats.accepted(chat, ids, seq, "started" if starts else "queued", position)
