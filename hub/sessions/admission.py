"""Admit chats to a session, one at a time: each is logged with its run, or refused."""

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
from hub.sessions.chats import NewIds, Removal
from hub.sessions.hosts import SessionHost
from hub.sessions.outbox import Outbox, OutboxState, attach_future
from hub.sessions.run import ActiveRun
from hub.sessions.schedule import Schedule
from hub.sessions.single_flight import SingleFlight


@attrs.define(eq=False, repr=False, kw_only=True)
class Admission:
    """Admits chats to one session: each becomes a message and a run, in one commit. While *is_deleting*, none."""

    channel: Channel
    host: SessionHost
    outbox: Outbox
    schedule: Schedule
    single_flight: SingleFlight
    is_deleting: bool = False

    async def admit(self, chat: Chat, author: Author, agent: Agent) -> Accepted:
        """Log a message and its run in one commit; return when the log holds both.

        Raises Busy, IdReused, StorageUnavailable and the errors of check_open(); then nothing is logged.
        """
        digest = chats.make_digest(chat, agent.id)
        admit = partial(self._admit, chat, author, agent, digest)
        return await self.single_flight.run_once(chat, author, digest, admit)

    async def _admit(self, chat: Chat, author: Author, agent: Agent, digest: str) -> Accepted:
        if chat.ifBusy == "rollback":
            return await self._roll_back(chat, author, agent, digest)
        async with self.schedule.lock:  # an edit, regeneration or rollback goes on undisturbed
            answer = self.put(chat, author, agent, digest)
        return await answer

    def put(
        self, chat: Chat, author: Author, agent: Agent, digest: str, removal: Removal | None = None
    ) -> Coroutine[Any, Any, Accepted]:
        """Give a chat, its run and its removal to the outbox. The returned coroutine waits for the commit.

        The caller holds the schedule's lock. No await in between: the check of the limits must still be true when the
        run is queued. Raises Busy, Draining, SessionDeleted, StorageUnavailable, and the errors of Agents.get().
        """
        self.check_open(clientMsgId=chat.clientMsgId)
        schedule = self.schedule
        agent = self.host.agents.get(agent.id)  # it may have been reloaded while the chat waited
        new_id = self.host.seams.new_id
        ids, key, head = NewIds(new_id("r"), new_id("m"), new_id("m")), self.channel.key, self.channel.head
        record = chats.make_run_record(chat, author, key, agent.id, head=head, ids=ids, removal=removal)
        run = schedule.make_run(record, agent)
        replaced_runs = list(schedule.active_runs.values()) if chat.ifBusy == "replace" else []
        schedule.queued_runs.insert(0 if chat.ifBusy in ("replace", "rollback") else len(schedule.queued_runs), run)
        starts = chat.ifBusy == "parallel" or not schedule.must_wait(run)
        if removal is None:
            self._check_capacity(chat, agent, starts, run)
        else:  # runs were stopped for this chat and cannot be restored: it waits rather than being refused
            starts = starts and not agent.is_full
        events = chats.make_events(chat, run.record, starts, digest, removal)
        has_message = bool(events[-1].messages)
        seq = attach_future(events[-1], lambda result: self._on_result(replaced_runs, run, has_message, result))
        if starts:
            schedule.start(run, *events)
        else:
            self.outbox.put(*events)
        return self._wait_for_commit(chat, run, starts, seq)

    async def _roll_back(self, chat: Chat, author: Author, agent: Agent, digest: str) -> Accepted:
        """Stop the active runs, remove their messages and answers, and put the chat in front of the queue."""
        async with self.lock(chat):
            runs = list(self.schedule.active_runs.values())
            if runs:  # otherwise put() knows whether the chat must wait at all
                self._check_queue(chat, len(self.schedule.queued_runs) + 1)
            await stopping.end_runs(self.schedule, runs)
            ids = dict.fromkeys(id for run in runs for id in (run.record.userMessageId, *run.message_ids))
            answer = self.put(chat, author, agent, digest, Removal(tuple(ids), "rollback") if ids else None)
        return await answer

    @asynccontextmanager
    async def lock(self, chat: Chat = Chat(message="")) -> AsyncIterator[None]:
        """Admit no chat and start no run within the context. On entry the log holds the complete history."""
        self.check_open(clientMsgId=chat.clientMsgId)
        try:
            async with self.schedule.lock:
                await self.outbox.wait_for_history()
                self.check_open(clientMsgId=chat.clientMsgId)  # it may have been deleted meanwhile
                yield
        finally:
            self.schedule.wake()

    def check_open(self, **about: str | None) -> None:
        """Raise SessionDeleted, Draining or StorageUnavailable if the session admits nothing now."""
        if self.is_deleting:
            raise SessionDeleted(self.channel.id, **about)
        if self.schedule.is_draining:
            text = "the hub is going down: reconnect in a moment"
            raise Draining(text, **about, sessionId=self.channel.id, retryAfterMs=1000)
        if self.outbox.state is OutboxState.BACKING_OFF:
            raise self.outbox.make_error(**about)

    def _check_capacity(self, chat: Chat, agent: Agent, starts: bool, run: ActiveRun) -> None:
        queue = self.schedule.queued_runs  # with this chat's run
        try:
            if chat.ifBusy == "reject" and (self.schedule.active_runs or len(queue) > 1):
                raise self._make_busy_error(
                    chat, "the session is answering, and ifBusy is reject: try again later, or use another ifBusy"
                )
            if not starts:
                self._check_queue(chat, len(queue))
            elif agent.is_full:
                raise self._make_busy_error(
                    chat, f"agent {agent.id} is at its limit of simultaneous answers (max_runs): try again later"
                )
        except Busy:
            queue.remove(run)
            raise

    def _check_queue(self, chat: Chat, length: int) -> None:
        if length > self.host.limits.queued_runs:
            raise self._make_busy_error(
                chat, f"the queue of this session is full with {length - 1} messages: try again later"
            )

    def _make_busy_error(self, chat: Chat, line: str) -> Busy:
        return Busy(line, sessionId=self.channel.id, clientMsgId=chat.clientMsgId, retryAfterMs=1000)

    def _on_result(
        self, replaced_runs: list[ActiveRun], run: ActiveRun, has_message: bool, result: int | StorageUnavailable
    ) -> None:
        """Count a logged chat and stop the runs that it replaces, or drop the run of a refused chat."""
        if isinstance(result, int):
            self.host.counters.chats += has_message
            for replaced_run in replaced_runs:
                replaced_run.stop("cancelled")
        else:
            run.suspend()
            self.outbox.drop_run(run.id)
            self.schedule.remove(run)
        self.schedule.on_change()

    async def _wait_for_commit(
        self, chat: Chat, run: ActiveRun, starts: bool, future: "asyncio.Future[int]"
    ) -> Accepted:
        seq = await future
        ids = (self.channel.id, run.record.userMessageId, run.id)
        queue = self.schedule.queued_runs
        position = queue.index(run) + 1 if run in queue else 0
        return chats.make_accepted(chat, ids, seq, "started" if starts else "queued", position)
