"""One conversation: chats become messages and queued runs, runs start and stop, each in one step with the log."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any, Literal

import attrs
from msgspec.structs import replace

from hub.delivery.channel import Channel
from hub.errors import Busy, Draining, HubError, NotRunning, SessionDeleted, StorageUnavailable
from hub.hosting.calls import calling
from hub.hosting.contract import Call, Past
from hub.hosting.contract import Run as RunView
from hub.hosting.contract import Shelf
from hub.hosting.folder import Agents
from hub.hosting.hosted import Agent
from hub.ids import Key
from hub.limits import Limits
from hub.messages import Accepted, Author, Chat, RunStarted, State
from hub.observe.counters import Counts
from hub.seams import Seams
from hub.sessions import admission
from hub.sessions.admission import Taken
from hub.sessions.once import Once
from hub.sessions.outbox import Item, Outbox, landing
from hub.sessions.pace import Pace
from hub.sessions.past import past
from hub.sessions.questions import Questions
from hub.sessions.run import Run
from hub.sessions.shelf import shelf
from hub.storage.blobs import Files
from hub.storage.log import Log
from hub.storage.records import RunRecord


@attrs.define(eq=False, repr=False)
class Session:
    """A conversation in memory: its outbox, its queue, its runs.

    *changed* is called when runs or queue changed, *idle* when the session may leave memory,
    *freed* when an agent has ended some work. *turn* is held while a chat comes in, or something is taken back. While
    it is *deleting* it takes nothing new.
    """

    channel: Channel
    log: Log
    agents: Agents
    limits: Limits
    pace: Pace
    changed: Callable[["Session"], None]
    idle: Callable[[], None]
    freed: Callable[[Agent], None]
    files: Files
    counts: Counts
    seams: Seams
    outbox: Outbox = attrs.field(init=False)
    once: Once = attrs.field(init=False)
    call: Callable[[RunView, str, str], Call] = attrs.field(init=False)
    shelf: Shelf = attrs.field(init=False)
    runs: dict[str, Run] = attrs.Factory(dict)
    queue: list[Run] = attrs.Factory(list)
    ends: dict[str, asyncio.Event] = attrs.Factory(dict)
    turn: asyncio.Lock = attrs.Factory(asyncio.Lock)
    holders: int = 0
    draining: bool = False
    deleting: bool = False

    def __attrs_post_init__(self) -> None:
        self.outbox = Outbox(self.key, self.log, self.limits, self.pace, self.idle)
        self.once = Once(self.key, self.log)
        self.call, self.shelf = calling(self.agents, self.limits.call_depth), shelf(self.files, self.key)

    @property
    def key(self) -> Key:
        return self.channel.key

    @property
    def id(self) -> str:
        """The id, as clients know it."""
        return self.channel.id

    def unused(self) -> bool:
        """Tell whether nothing needs this session in memory: no subscriber, run, outbox, append in flight or waiter."""
        return self.silent and not (self.channel.subscriptions or self.holders)

    @property
    def silent(self) -> bool:
        """Tell whether nothing goes on or waits, and all that was said is in the log."""
        return self.outbox.empty and not (self.runs or self.queue or self.once.coming)

    def has(self, run_id: str) -> bool:
        """Tell whether a run goes on here, or waits."""
        return run_id in self.runs or any(run.id == run_id for run in self.queue)

    def state(self) -> State:
        active = tuple(_short(run) for run in self.runs.values())
        queue = tuple(_short(run) for run in self.queue)
        asked = tuple({"id": name, "runId": run.id} for run in self.runs.values() for name in run.questions.kept)
        state: Literal["requires_action", "running", "queued", "idle"]
        state = "requires_action" if asked else "running" if active else "queued" if queue else "idle"
        return State(sessionId=self.id, state=state, active=active, queue=queue, interrupts=asked or None)

    def asking(self, interrupt_id: str) -> Questions | None:
        """Return the questions among which this one is open, or None."""
        return next((run.questions for run in self.runs.values() if interrupt_id in run.questions.answerable), None)

    # --- chat -------------------------------------------------------------------------------------------------------

    async def chat(self, chat: Chat, author: Author, agent: Agent) -> Accepted:
        """Keep a message and its run in one commit; return when both are kept.

        Raises Busy, IdReused, StorageUnavailable; nothing is kept then.
        """
        said = admission.digest(chat, agent.id)
        return await self.once.keep(chat, author, said, partial(self._admit, chat, author, agent, said))

    async def _admit(self, chat: Chat, author: Author, agent: Agent, said: str) -> Accepted:
        if chat.ifBusy == "rollback":
            return await self._roll_back(chat, author, agent, said)
        async with self.turn:  # who takes something back goes first
            accepted = self.put(chat, author, agent, said)
        return await accepted

    def put(
        self, chat: Chat, author: Author, agent: Agent, said: str, taken: Taken | None = None
    ) -> Coroutine[Any, Any, Accepted]:
        """Give a chat and its run to the outbox, with what is taken back for it; what is returned waits for the commit.

        One step, in which *turn* is held. Raises Busy, Draining, SessionDeleted, StorageUnavailable, and what
        Agents.get() does.
        """
        self.check_open(clientMsgId=chat.clientMsgId)
        agent = self.agents.get(agent.id)  # it may have been loaded anew while the chat waited
        new_id = self.seams.new_id
        place, ids = (self.key, agent.id, self.channel.head), (new_id("r"), new_id("m"), new_id("m"))
        run = self.make_run(admission.record(chat, author, place, ids, taken), agent)
        replaced = list(self.runs.values()) if chat.ifBusy == "replace" else []
        self.queue.insert(0 if chat.ifBusy in ("replace", "rollback") else len(self.queue), run)
        starts = chat.ifBusy == "parallel" or not self._waits(run)
        if taken is None:
            self._check_room(chat, agent, starts, run)
        else:  # what was stopped for it cannot be given back: it waits rather than being refused
            starts = starts and not agent.full
        items = admission.items(chat, run.record, starts, said, taken)
        new = bool(items[-1].messages)
        kept = landing(items[-1], lambda seq: self._chat_landed(replaced, run, new, seq))
        if starts:
            self.start(run, *items)
        else:
            self.outbox.put(*items)
        return self._when_kept(chat, run, starts, kept)

    async def _roll_back(self, chat: Chat, author: Author, agent: Agent, said: str) -> Accepted:
        """Take back what is being answered, with its answers, and let the chat go first."""
        async with self.alone(chat):
            runs = list(self.runs.values())
            if runs:  # without one, put() knows whether the chat must wait at all
                self._check_queue(chat, len(self.queue) + 1)
            await self.end(runs)
            ids = dict.fromkeys(one for run in runs for one in (run.record.userMessageId, *run.message_ids))
            accepted = self.put(chat, author, agent, said, Taken(tuple(ids), "rollback") if ids else None)
        return await accepted

    @asynccontextmanager
    async def alone(self, chat: Chat = Chat(message="")) -> AsyncIterator[None]:
        """Let no chat in and no run start, until what is taken back is on its way; chats before it are in the log."""
        self.check_open(clientMsgId=chat.clientMsgId)
        try:
            async with self.turn:
                await self.outbox.settled()
                self.check_open(clientMsgId=chat.clientMsgId)  # it may have been deleted meanwhile
                yield
        finally:
            self.next()

    async def end(self, runs: Sequence[Run]) -> None:
        """Stop runs, and return when their ends are in the log; raises StorageUnavailable where that cannot be."""
        for run in runs:
            run.stop("cancelled")
        for run in runs:
            while self.has(run.id):
                if self.outbox.failed:
                    raise self.outbox.unwritable()
                with suppress(TimeoutError):
                    async with asyncio.timeout(self.limits.retry_seconds):
                        await self.finished(run.id)

    def check_open(self, **about: str | None) -> None:
        """Raise SessionDeleted, Draining or StorageUnavailable where nothing new is taken now."""
        if self.deleting:
            raise SessionDeleted(self.id, **about)
        if self.draining:
            text = "the hub is going down: reconnect in a moment"
            raise Draining(text, **about, sessionId=self.id, retryAfterMs=1000)
        if self.outbox.failing:
            raise self.outbox.unwritable(**about)

    def _check_room(self, chat: Chat, agent: Agent, starts: bool, run: Run) -> None:
        try:
            if chat.ifBusy == "reject" and (self.runs or len(self.queue) > 1):
                raise _busy(chat, self.id, "the session is answering, and the chat said ifBusy: reject")
            if not starts:
                self._check_queue(chat, len(self.queue))
            elif agent.full:
                raise _busy(chat, self.id, f"agent {agent.id} gives as many answers as it may: try again later")
        except Busy:
            self.queue.remove(run)
            raise

    def _check_queue(self, chat: Chat, length: int) -> None:
        if length > self.limits.queued_runs:
            raise _busy(chat, self.id, f"{length - 1} messages wait in this session already: try again later")

    def make_run(self, record: RunRecord, agent: Agent | None) -> Run:
        """Return a run of this session; it is in neither *queue* nor *runs* yet."""
        return Run(
            record,
            agent,
            self.outbox,
            self.limits,
            self._history,
            self.call,
            lambda _: self.changed(self),
            self._over,
            self.freed,
            self.shelf,
            self.seams,
        )

    def _chat_landed(self, replaced: list[Run], run: Run, new: bool, seq: int | StorageUnavailable) -> None:
        """The chat is in the log, or was refused: then its run never was. *new* says that it has a message."""
        if isinstance(seq, int):
            self.counts.chats += new
            for other in replaced:
                other.stop("cancelled")
        else:
            run.leave()
            self.outbox.forget(run.id)
            self._remove(run)
        self.changed(self)

    async def _when_kept(self, chat: Chat, run: Run, starts: bool, kept: "asyncio.Future[int]") -> Accepted:
        seq = await kept
        ids = (self.id, run.record.userMessageId, run.id)
        position = self.queue.index(run) + 1 if run in self.queue else 0
        return admission.accepted(chat, ids, seq, "started" if starts else "queued", position)

    async def finished(self, run_id: str) -> None:
        """Wait until a run's end is in the log and delivered, or the hub leaves it to the next start."""
        if self.has(run_id):
            await self.ends.setdefault(run_id, asyncio.Event()).wait()

    # --- runs -------------------------------------------------------------------------------------------------------

    def _waits(self, run: Run) -> bool:
        """Tell whether a queued run must wait: for its agent's runs, or, where one of the two is wide, for any."""
        before = [*self.runs.values(), *self.queue[: self.queue.index(run)]]
        return any(
            run.record.wide or other.record.wide or other.record.agentId == run.record.agentId for other in before
        )

    def start(self, run: Run, *first: Item) -> None:
        """Move a run out of the queue; its agent is called when `run_started` is in the log."""
        self.queue.remove(run)
        self.runs[run.id] = run
        run.reserve()
        record = run.record = replace(run.record, state="started")
        started = Item(
            record.agentId,
            run.id,
            RunStarted(record.messageId, record.attempt),
            saved=(record,),
            landed=lambda seq: run.go() if isinstance(seq, int) else None,
            refusable=bool(first),
        )
        self.outbox.put(*first, started)

    def next(self) -> None:
        """Start what waits and may go, unless something is being taken back."""
        if self.draining or self.turn.locked():
            return
        for run in list(self.queue):
            if run.ended or self._waits(run):
                continue
            try:
                run.agent = self.agents.get(run.record.agentId)
            except HubError as gone:
                run.fail(gone)
                continue
            if not run.agent.full:
                self.start(run)

    def _remove(self, run: Run) -> None:
        self.runs.pop(run.id, None)
        if run in self.queue:
            self.queue.remove(run)
        self.next()

    def _over(self, run: Run) -> None:
        self._remove(run)
        self._ended(run.id)
        self.changed(self)

    def _ended(self, run_id: str) -> None:
        end = self.ends.pop(run_id, None)
        if end is not None:
            end.set()

    def cancel(self, run_id: str | None, queued: bool) -> tuple[str, ...]:
        """Stop one run, or the queued (where *queued*) and then the running; return their ids.

        Raises NotRunning where there is none. Each says its end when its work has stopped.
        """
        runs = [*(self.queue if queued or run_id else ()), *self.runs.values()]
        chosen = [run for run in runs if not run.ended and run_id in (None, run.id)]
        if not chosen:
            raise NotRunning(
                f"nothing is being answered in session {self.id}" + (f" by run {run_id}" if run_id else ""),
                sessionId=self.id,
                **({"runId": run_id} if run_id else {}),
            )
        for run in chosen:
            run.stop("cancelled")
        return tuple(run.id for run in chosen)

    async def _history(self, run: Run) -> Sequence[Past]:
        waiting = [run.record, *(other.record for other in self.queue)]
        return await past(self.log, self.key, waiting, self.limits)

    def drain(self) -> None:
        """End what runs (`aborted`; a restartable run stays in the log as started); what waits stays queued."""
        self.draining = True
        for run in list(self.runs.values()):
            if run.agent is not None and run.agent.marks.restartable and not run.ended and not run.stopping:
                run.leave()
                self.runs.pop(run.id)
                self._ended(run.id)
            else:
                run.stop("aborted")


def _busy(chat: Chat, session_id: str, line: str) -> Busy:
    return Busy(line, sessionId=session_id, clientMsgId=chat.clientMsgId, retryAfterMs=1000)


def _short(run: Run) -> dict[str, str]:
    record = run.record
    return {
        "runId": record.runId,
        "agentId": record.agentId,
        "messageId": record.messageId,
        "userMessageId": record.userMessageId,
    }
