"""Questions to people: each is in the log before anyone hears it, and its answer before the agent goes on."""

import asyncio
from collections.abc import Callable
from typing import Any

import attrs
import orjson

from hub.errors import AgentError, AlreadyResolved, BadFrame, StorageUnavailable, UnknownInterrupt
from hub.hosting.contract import Reply
from hub.ids import Key, id_of
from hub.limits import Limits, size_text
from hub.messages import Interrupt, InterruptResolved
from hub.sessions.outbox import Outbox, OutboxState, PendingEvent
from hub.storage.log import EventStore, RunStore
from hub.storage.records import ChatRecord


@attrs.define(eq=False, repr=False)
class Question:
    """One open question; *kept* says that the log holds it.

    *taken* is there while an answer is on its way to the log, and set when that is settled.
    """

    interrupt: Interrupt
    reply: asyncio.Future[Reply]
    kept: bool = False
    taken: asyncio.Event | None = None


@attrs.define(eq=False, repr=False, kw_only=True)
class Questions:
    """What one run asks, and nobody has answered yet.

    *between* is called where an event of a question goes between the run's texts, *changed* when a question came into
    the log or was closed. All methods are called in the loop.
    """

    agent: str
    run: str
    outbox: Outbox
    limits: Limits
    between: Callable[[], None]
    changed: Callable[[], None]
    open: dict[str, Question] = attrs.Factory(dict)
    _shut: bool = False
    _then: Callable[[list[PendingEvent]], None] | None = None
    _loop: asyncio.AbstractEventLoop = attrs.Factory(asyncio.get_running_loop)

    @property
    def answerable(self) -> list[str]:
        """Return the ids of the questions that an answer may still be given to."""
        return [] if self._shut else list(self.open)

    @property
    def kept(self) -> list[str]:
        """Return those of them that the log holds: only of these may be told."""
        return [name for name in self.answerable if self.open[name].kept]

    def check(self) -> None:
        """Raise AgentError where nothing may be asked now."""
        if asyncio.get_running_loop() is not self._loop:
            raise AgentError(f"agent {self.agent} may ask in async def functions only", "nobody_to_ask")
        if self._shut:
            raise AgentError("the answer is being stopped: nobody is asked any more", "nobody_to_ask")
        if len(self.open) >= self.limits.open_questions:
            most = self.limits.open_questions
            raise AgentError(f"agent {self.agent} asks more than {most} questions at once", "too_many_questions")

    async def ask(self, interrupt: Interrupt) -> Reply:
        """Log a question and wait for its answer; cancelled, close it, unless the end of the run will."""
        question = self.add(interrupt)
        # For no principal, under the question's id: a late answer finds where it was asked, also after a restart.
        kept = ChatRecord(principal="", clientMsgId=interrupt.id, digest="", messageId=interrupt.id, runId=self.run)
        self.between()
        self.outbox.put(
            PendingEvent(self.agent, self.run, interrupt, chat=kept, on_result=lambda _: self._asked(question))
        )
        try:
            return await question.reply
        except asyncio.CancelledError:
            self._take_back(question)
            raise

    def _asked(self, question: Question) -> None:
        question.kept = True
        self.changed()

    def add(self, interrupt: Interrupt) -> Question:
        """Take up a question that the log holds, or will before anyone can answer it."""
        question = self.open[interrupt.id] = Question(interrupt, self._loop.create_future())
        return question

    async def answer(self, interrupt_id: str, reply: Reply) -> None:
        """Keep an answer in the log, and let the agent go on.

        Who comes second waits for the first one's commit. Raises AlreadyResolved, BadFrame, or StorageUnavailable: then
        the question stays open.
        """
        check_payload(reply.payload, self.limits)
        question = self.open.get(interrupt_id)
        while question is not None and question.taken is not None:
            await question.taken.wait()
        if self._shut or question is None or interrupt_id not in self.open:
            raise too_late(id_of(self.outbox.key), interrupt_id)
        if self.outbox.state is OutboxState.BACKING_OFF:
            raise self.outbox.make_error()
        question.taken = asyncio.Event()
        kept: asyncio.Future[None] = self._loop.create_future()
        body = InterruptResolved(interrupt_id, reply.status, reply.by, reply.payload)
        item = PendingEvent(self.agent, self.run, body, is_refusable=True)
        item.on_result = lambda seq: self._answered(question, reply, kept, seq)
        self.outbox.put(item)
        await kept

    def _answered(
        self, question: Question, reply: Reply, kept: asyncio.Future[None], seq: int | StorageUnavailable
    ) -> None:
        """The answer is in the log, or was refused."""
        assert question.taken is not None
        question.taken.set()
        question.taken = None
        if isinstance(seq, int):
            self.open.pop(question.interrupt.id, None)  # a drain may have left the run meanwhile
            self.between()
            if not question.reply.done():
                question.reply.set_result(reply)
            if not kept.done():
                kept.set_result(None)
            self.changed()
        else:
            if not kept.done():
                kept.set_exception(seq)
            if question.reply.cancelled():
                self._take_back(question)
        self._close()

    async def settled(self) -> None:
        """Wait until no answer is on its way to the log: where it goes between the texts is not known before."""
        while (taken := self._taken()) is not None:
            await taken.wait()

    def _taken(self) -> asyncio.Event | None:
        return next((question.taken for question in self.open.values() if question.taken is not None), None)

    def _take_back(self, question: Question) -> None:
        """Close a question for which nobody waits; one whose answer is on its way is closed by that."""
        if self._shut or question.taken is not None or self.open.pop(question.interrupt.id, None) is None:
            return
        self.between()
        self.outbox.put(self._closing(question))
        self.changed()

    def _closing(self, question: Question) -> PendingEvent:
        return PendingEvent(self.agent, self.run, InterruptResolved(question.interrupt.id, "cancelled"))

    # --- the end of the run -----------------------------------------------------------------------------------------

    def shut(self) -> None:
        """Ask and take no more; what is open is closed with the run's end."""
        self._shut = True

    def close(self, then: Callable[[list[PendingEvent]], None]) -> None:
        """Give *then* what closes the open questions, as soon as no answer is on its way to the log."""
        self.shut()
        self._then = then
        self._close()

    def _close(self) -> None:
        if self._then is None or self._taken() is not None:
            return
        then, self._then = self._then, None
        items = [self._closing(question) for question in self.open.values()]
        self.leave()
        then(items)

    def leave(self) -> None:
        """Forget what is open: the log still has it, and the next start closes it."""
        self.shut()
        for question in self.open.values():
            question.reply.cancel()
        self.open.clear()


def check_payload(payload: Any, limits: Limits) -> None:
    """Raise BadFrame where an answer is too large."""
    if len(orjson.dumps(payload)) > limits.reply_bytes:
        raise BadFrame(f"a payload of more than {size_text(limits.reply_bytes)}: send less")


def too_late(session: str, interrupt_id: str) -> AlreadyResolved:
    text = f"question {interrupt_id} is closed: it was answered, or nobody waits for an answer any more"
    return AlreadyResolved(text, sessionId=session)


async def asked(store: RunStore, key: Key, interrupt_id: str) -> ChatRecord:
    """Return which run asked a question, and at which seq; raises UnknownInterrupt."""
    kept = await store.find_chat(key, "", interrupt_id)
    if kept is None:
        name = id_of(key)
        raise UnknownInterrupt(f"no question {interrupt_id} was asked in session {name}", sessionId=name)
    return kept


async def resolved(store: EventStore, key: Key, question: ChatRecord, head: int) -> InterruptResolved | None:
    """Return how a question was closed, as far as the log still holds it."""
    cursor = question.seq
    while events := await store.read(key, cursor, head):
        cursor = events[-1].seq
        for event in events:
            if isinstance(event.body, InterruptResolved) and event.body.interruptId == question.clientMsgId:
                return event.body
    return None
