"""Admit chats to a session, one at a time: log each chat together with its run, or refuse the chat."""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import attrs

from hub.delivery.channel import Channel
from hub.errors import Busy, Draining, SessionDeleted, StorageUnavailable
from hub.hosting.hosted import Agent
from hub.ids import tenant_of
from hub.messages import Accepted, Author, Chat, ChatWithRequest, find_request
from hub.sessions import chats, stopping
from hub.sessions.chats import NewIds, Removal, Sender
from hub.sessions.file_access import fill_file_parts
from hub.sessions.hosts import RunPlace, SessionHost
from hub.sessions.outbox import Outbox, OutboxState
from hub.sessions.pending import attach_future
from hub.sessions.run import ActiveRun
from hub.sessions.schedule import Schedule
from hub.sessions.single_flight import SingleFlight
from hub.sessions.tool_results import CallFinder, RunBasis, list_result_ids


@attrs.define(eq=False, repr=False, kw_only=True)
class Admission:
    """Admits chats to one session, each as a message and a run in one commit.

    While *is_deleting* is set, every chat is refused.
    """

    channel: Channel
    host: SessionHost
    outbox: Outbox
    schedule: Schedule
    single_flight: SingleFlight
    is_deleting: bool = False
    call_finder: CallFinder = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.call_finder = CallFinder(
            key=self.channel.key,
            store=self.host.log.sessions,
            outbox=self.outbox,
            active_runs=self.schedule.active_runs,
            queued_runs=self.schedule.queued_runs,
        )

    async def admit(self, chat: Chat, sender: Sender, agent: Agent | None) -> Accepted:
        """Log a message and its run in one commit. Return when the log holds both.

        *agent* may be None for a chat with the results of tool calls: then the agent of the calls answers.

        *sender.on_accept* is called before the agent is called. For a duplicate, the agent may have been called long
        before.

        Raises IdReused, ToolsUnsupported, UnknownFile, StorageUnavailable, and the errors of reserve_place(),
        find_basis() and put(): then the chat is not logged, but a rollback may have ended the active runs. Raises the
        errors of *on_accept*, too: then the chat is logged.
        """
        if agent is not None:
            agent.check_request(find_request(chat))
        digest = chats.make_digest(chat, agent.id if agent is not None else None)
        admit = partial(self._admit, chat, sender, agent, digest)
        accepted = await self.single_flight.run_once(chat, sender.author, digest, admit)
        if accepted.status == "duplicate":
            sender.on_accept(accepted)
        return accepted

    async def _admit(self, chat: Chat, sender: Sender, agent: Agent | None, digest: str) -> Accepted:
        chat = await fill_file_parts(self.host.files, self.channel.key, chat)
        async with self.reserve_place(sender.author) as place:
            call_ids = list_result_ids(chat.parts)
            if agent is None or call_ids or chat.ifBusy == "rollback":
                accepted = await self._admit_alone(chat, sender, agent, digest, place, call_ids)
            else:
                async with self.schedule.lock:  # an edit, a regeneration or a rollback holds it until its put() is done
                    basis = RunBasis(request=find_request(chat))
                    answer = self.put(chat, sender, agent, digest, basis, place=place)
                accepted = await answer
        # The commit wakes this task first, and starts the agent's task after that. With a clientMsgId, the task that
        # called admit() is woken later still, perhaps after the delivery of the first chunk.
        sender.on_accept(accepted)
        return accepted

    @asynccontextmanager
    async def reserve_place(self, author: Author) -> AsyncIterator[RunPlace | None]:
        """Reserve a place for a run in the quotas of its author, and give it back unless put() has used it.

        Raises PrincipalQuotaExceeded, StorageUnavailable.
        """
        quotas, tenant = self.host.quotas, tenant_of(self.channel.key)
        place = await quotas.reserve(tenant, author.id) if quotas is not None else None
        try:
            yield place
        finally:
            if place is not None and not place.is_used:
                place.close()

    def put(
        self,
        chat: Chat,
        sender: Sender,
        agent: Agent,
        digest: str,
        basis: RunBasis,
        removal: Removal | None = None,
        place: RunPlace | None = None,
    ) -> Coroutine[Any, Any, Accepted]:
        """Give a chat, its run and *removal* to the outbox. Return a coroutine that waits for the commit.

        The run gets *place*. The caller holds the schedule's lock. Raises Busy, and the errors of check_open(), of
        *sender.check* and of Agents.get_working().
        """
        # No await in this function: another chat must not take the place in the queue after the check of the limits.
        self.check_open(clientMsgId=chat.clientMsgId)
        sender.check(agent.id)
        schedule = self.schedule
        agent = self.host.agents.get_working(agent.id)  # the agent may have been reloaded while the chat waited
        new_id = self.host.seams.new_id
        ids, key, head = NewIds(new_id("r"), new_id("m"), new_id("m")), self.channel.key, self.channel.head
        record = chats.make_run_record(
            chat, sender.author, key, agent.id, head=head, ids=ids, removal=removal, basis=basis
        )
        run = schedule.make_run(record, agent)
        replaced_runs = list(schedule.active_runs.values()) if chat.ifBusy == "replace" else []
        schedule.queued_runs.insert(0 if chat.ifBusy in ("replace", "rollback") else len(schedule.queued_runs), run)
        can_start = (chat.ifBusy == "parallel" and not basis.must_wait) or not schedule.must_wait(run)
        if removal is None:
            self._check_capacity(chat, agent, can_start, run)
        else:  # runs may have been stopped for this chat, so it is not refused: if the agent is full, the chat waits
            can_start = can_start and not agent.is_full
        run.take_place(place)
        events = chats.make_events(chat, run.record, can_start, digest, removal)
        has_message = bool(events[-1].messages)
        seq = attach_future(events[-1], lambda result: self._on_result(replaced_runs, run, has_message, result))
        if can_start:
            schedule.start(run, *events)
        else:
            self.outbox.put(*events)
        return self._wait_for_commit(chat, run, can_start, seq)

    async def _admit_alone(
        self,
        chat: Chat,
        sender: Sender,
        agent: Agent | None,
        digest: str,
        place: RunPlace | None,
        call_ids: Sequence[str],
    ) -> Accepted:
        """Admit a chat with the results of tool calls, or a rollback, while no other chat is admitted."""
        basis, removal = RunBasis(request=find_request(chat)), None
        is_rollback = chat.ifBusy == "rollback"
        async with self.pause(chat):
            if call_ids:  # the calls of the runs that a rollback takes back do not count
                basis = await self.find_basis(chat, call_ids, with_active_runs=not is_rollback)
            if agent is None:
                sender.check(basis.agent_id or "")  # first: it must not learn whether another agent works
                agent = self.host.agents.get_working(basis.agent_id or "")
                agent.check_request(basis.request)
            if is_rollback:
                removal = await self._end_active_runs(chat)
            answer = self.put(chat, sender, agent, digest, basis, removal, place)
        return await answer

    async def find_basis(self, chat: Chat, call_ids: Sequence[str], **options: Any) -> RunBasis:
        """Return what the run of a chat takes over, as CallFinder.find_basis() does. The chat's own request counts."""
        run_ids = chat.callRuns if isinstance(chat, ChatWithRequest) else {}
        basis = await self.call_finder.find_basis(call_ids, run_ids=run_ids, **options)
        request = find_request(chat)
        return basis if request is None else attrs.evolve(basis, request=request)

    async def _end_active_runs(self, chat: Chat) -> Removal | None:
        """Stop the active runs for a rollback. Return the removal of their messages and answers, if there are any."""
        runs = list(self.schedule.active_runs.values())
        if runs:  # else the chat may start at once, and if it cannot, put() checks the queue
            self._check_queue(chat, len(self.schedule.queued_runs) + 1)
        await stopping.end_runs(self.schedule, runs)
        ids = dict.fromkeys(id for run in runs for id in (run.record.userMessageId, *run.message_ids))
        return Removal(tuple(ids), "rollback") if ids else None

    @asynccontextmanager
    async def pause(self, chat: Chat = Chat(message="")) -> AsyncIterator[None]:
        """Within the context, only the caller admits a chat. On entry the log holds the complete history.

        Schedule.wake() starts no run before the end of the context. Raises the errors of check_open(), with the
        clientMsgId of *chat*, and StorageUnavailable if a change of the history cannot be logged.
        """
        self.check_open(clientMsgId=chat.clientMsgId)
        try:
            async with self.schedule.lock:
                await self.outbox.wait_for_history()
                self.check_open(clientMsgId=chat.clientMsgId)  # the session may have been deleted during the waits
                yield
        finally:
            self.schedule.wake()

    def check_open(self, **fields: str | None) -> None:
        """Raise SessionDeleted, Draining or StorageUnavailable if the session admits no chat now."""
        if self.is_deleting:
            raise SessionDeleted(self.channel.id, **fields)
        if self.schedule.is_draining:
            text = "the hub is going down: reconnect in a moment"
            raise Draining(text, **fields, sessionId=self.channel.id, retryAfterMs=1000)
        if self.outbox.state is OutboxState.BACKING_OFF:
            raise self.outbox.make_error(**fields)

    def _check_capacity(self, chat: Chat, agent: Agent, can_start: bool, run: ActiveRun) -> None:
        """If a limit or `ifBusy: reject` refuses the chat, remove its run from the queue and raise Busy."""
        queue = self.schedule.queued_runs  # includes the run of this chat
        try:
            if chat.ifBusy == "reject" and (self.schedule.active_runs or len(queue) > 1):
                raise self._make_busy_error(
                    chat, "the session is answering, and ifBusy is reject: try again later, or use another ifBusy"
                )
            if not can_start:
                self._check_queue(chat, len(queue))
            elif (problem := self.host.slots.find_reached_limit(agent)) is not None:
                raise self._make_busy_error(chat, problem)
        except Busy:
            queue.remove(run)
            raise

    def _check_queue(self, chat: Chat, length: int) -> None:
        if length > self.host.limits.queued_runs:
            raise self._make_busy_error(
                chat, f"the queue of this session is full with {length - 1} messages: try again later"
            )

    def _make_busy_error(self, chat: Chat, text: str) -> Busy:
        return Busy(text, sessionId=self.channel.id, clientMsgId=chat.clientMsgId, retryAfterMs=1000)

    def _on_result(
        self, replaced_runs: list[ActiveRun], run: ActiveRun, has_message: bool, result: int | StorageUnavailable
    ) -> None:
        """If the chat was logged, count it and stop the runs that it replaces; if it was refused, drop its run."""
        if isinstance(result, int):
            self.host.counters.chats += has_message
            # The orphans of now: during the commit, a run may have become one, or its request may have come again.
            for replaced_run in (*replaced_runs, *self.schedule.hearing.list_orphans()):
                replaced_run.stop("cancelled")
        else:
            run.suspend()
            self.outbox.drop_run(run.id)
            self.schedule.remove(run)
        self.schedule.on_change()

    async def _wait_for_commit(
        self, chat: Chat, run: ActiveRun, is_started: bool, future: "asyncio.Future[int]"
    ) -> Accepted:
        seq = await future
        queue = self.schedule.queued_runs
        position = queue.index(run) + 1 if run in queue else 0
        return chats.make_accepted(
            chat,
            session_id=self.channel.id,
            message_id=run.record.userMessageId,
            run_id=run.id,
            seq=seq,
            status="started" if is_started else "queued",
            position=position,
        )
