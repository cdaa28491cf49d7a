"""Questions to people: the log holds a question before anyone receives it, and its answer before the agent goes on."""

import asyncio
from collections.abc import Callable
from typing import Any

import attrs
import orjson

from hub.errors import AgentError, AlreadyResolved, BadFrame, StorageUnavailable, UnknownInterrupt
from hub.hosting.contract import Reply
from hub.ids import Key, id_of
from hub.limits import Limits, format_size
from hub.messages import Interrupt, InterruptResolved, OpenQuestion, make_open_question
from hub.sessions.outbox import Outbox, OutboxState
from hub.sessions.pending import PendingEvent
from hub.storage.log import EventStore, RunStore
from hub.storage.records import ChatRecord


@attrs.define(eq=False, repr=False)
class Question:
    """One open question.

    *pending_commit* is None unless an answer waits for its commit. The event is set when that commit succeeds or fails.
    """

    interrupt: Interrupt
    reply: asyncio.Future[Reply]
    is_logged: bool = False
    pending_commit: asyncio.Event | None = None


@attrs.define(eq=False, repr=False, kw_only=True)
class Questions:
    """The open questions of one run, by id.

    *end_stream* ends the run's streamed message at each event of a question. *on_change* is called after a question was
    logged, answered or withdrawn. All methods but check_can_ask() must be called in the event loop.
    """

    agent: str
    run: str
    outbox: Outbox
    limits: Limits
    end_stream: Callable[[], None]
    on_change: Callable[[], None]
    open_by_id: dict[str, Question] = attrs.Factory(dict)
    _is_accepting: bool = True
    _on_close: Callable[[list[PendingEvent]], None] | None = None
    _loop: asyncio.AbstractEventLoop = attrs.Factory(asyncio.get_running_loop)

    @property
    def answerable_ids(self) -> list[str]:
        """The ids of the questions that can still be answered."""
        return list(self.open_by_id) if self._is_accepting else []

    def list_visible(self) -> list[OpenQuestion]:
        """Return the answerable questions that the log holds: clients may see only these."""
        questions = [self.open_by_id[id] for id in self.answerable_ids]
        return [make_open_question(self.run, question.interrupt) for question in questions if question.is_logged]

    def check_can_ask(self) -> None:
        """Raise AgentError if the run cannot ask a question now."""
        if asyncio.get_running_loop() is not self._loop:
            raise AgentError(f"agent {self.agent} can ask only from an `async def` function", "nobody_to_ask")
        if not self._is_accepting:
            raise AgentError("the run is being stopped: its agent can ask no more questions", "nobody_to_ask")
        if len(self.open_by_id) >= self.limits.open_questions:
            limit = self.limits.open_questions
            raise AgentError(f"agent {self.agent} asks more than {limit} questions at once", "too_many_questions")

    async def ask(self, interrupt: Interrupt) -> Reply:
        """Log a question and wait for its answer. If the wait is cancelled, close the question, unless the run ends."""
        question = self.add(interrupt)
        # The record has the question's id and no principal. By this record a late answer finds the run, even after a
        # restart of the hub.
        record = ChatRecord(principal="", clientMsgId=interrupt.id, digest="", messageId=interrupt.id, runId=self.run)
        self.end_stream()
        self.outbox.put(
            PendingEvent(self.agent, self.run, interrupt, chat=record, on_result=lambda _: self._on_logged(question))
        )
        try:
            return await question.reply
        except asyncio.CancelledError:
            self._withdraw(question)
            raise

    def _on_logged(self, question: Question) -> None:
        question.is_logged = True
        self.on_change()

    def add(self, interrupt: Interrupt) -> Question:
        """Add a question that the log holds, or will hold before anyone can answer it."""
        question = self.open_by_id[interrupt.id] = Question(interrupt, self._loop.create_future())
        return question

    async def answer(self, interrupt_id: str, reply: Reply) -> None:
        """Log an answer and give it to the agent.

        A second answer waits for the commit of the first one. Raises AlreadyResolved, BadFrame, or StorageUnavailable;
        after StorageUnavailable the question is still open, unless its agent no longer waits.
        """
        check_payload(reply.payload, self.limits)
        question = self.open_by_id.get(interrupt_id)
        while question is not None and question.pending_commit is not None:
            await question.pending_commit.wait()
        if not self._is_accepting or question is None or interrupt_id not in self.open_by_id:
            raise make_closed_error(id_of(self.outbox.key), interrupt_id)
        if self.outbox.state is OutboxState.BACKING_OFF:
            raise self.outbox.make_error()
        question.pending_commit = asyncio.Event()
        commit: asyncio.Future[None] = self._loop.create_future()
        body = InterruptResolved(interrupt_id, reply.status, reply.by, reply.payload)
        event = PendingEvent(self.agent, self.run, body, is_refusable=True)
        event.on_result = lambda result: self._handle_answer(question, reply, commit, result)
        self.outbox.put(event)
        await commit

    def _handle_answer(
        self, question: Question, reply: Reply, commit: asyncio.Future[None], result: int | StorageUnavailable
    ) -> None:
        """Give a logged answer to the agent. If *result* is the error of the log, raise it in answer() instead."""
        assert question.pending_commit is not None
        question.pending_commit.set()
        question.pending_commit = None
        if isinstance(result, int):
            self.open_by_id.pop(question.interrupt.id, None)  # a drain may have discarded the questions meanwhile
            self.end_stream()
            if not question.reply.done():
                question.reply.set_result(reply)
            if not commit.done():
                commit.set_result(None)
            self.on_change()
        else:
            if not commit.done():
                commit.set_exception(result)
            if question.reply.cancelled():
                self._withdraw(question)
        self._finish_close()

    async def wait_for_answers(self) -> None:
        """Wait until no answer waits for its commit.

        Until the commit, the position of the answer among the texts of the run is unknown.
        """
        while (pending := self._find_pending_commit()) is not None:
            await pending.wait()

    def _find_pending_commit(self) -> asyncio.Event | None:
        commits = (question.pending_commit for question in self.open_by_id.values())
        return next((commit for commit in commits if commit is not None), None)

    def _withdraw(self, question: Question) -> None:
        """Close a question whose agent no longer waits.

        Do nothing while an answer to the question waits for its commit, or if the run is ending.
        """
        if not self._is_accepting or question.pending_commit is not None:
            return
        if self.open_by_id.pop(question.interrupt.id, None) is None:
            return
        self.end_stream()
        self.outbox.put(self._make_closing_event(question))
        self.on_change()

    def _make_closing_event(self, question: Question) -> PendingEvent:
        return PendingEvent(self.agent, self.run, InterruptResolved(question.interrupt.id, "cancelled"))

    # --- end of the run ---------------------------------------------------------------------------------------------

    def stop_accepting(self) -> None:
        """Refuse new questions and new answers. The open questions stay open until close() or discard()."""
        self._is_accepting = False

    def close(self, on_close: Callable[[list[PendingEvent]], None]) -> None:
        """Call *on_close* with the events that close the open questions, once no answer waits for its commit."""
        self.stop_accepting()
        self._on_close = on_close
        self._finish_close()

    def _finish_close(self) -> None:
        if self._on_close is None or self._find_pending_commit() is not None:
            return
        on_close, self._on_close = self._on_close, None
        events = [self._make_closing_event(question) for question in self.open_by_id.values()]
        self.discard()
        on_close(events)

    def discard(self) -> None:
        """Drop the open questions, and log nothing.

        Unless the caller logs the events that close them, the next start of the hub closes them.
        """
        self.stop_accepting()
        for question in self.open_by_id.values():
            question.reply.cancel()
        self.open_by_id.clear()


def check_payload(payload: Any, limits: Limits) -> None:
    """Raise BadFrame if an answer is too large."""
    if len(orjson.dumps(payload)) > limits.reply_bytes:
        raise BadFrame(f"the payload has more than {format_size(limits.reply_bytes)}: send less")


def make_closed_error(session: str, interrupt_id: str) -> AlreadyResolved:
    """Return the error for an answer to a question that is closed."""
    text = f"question {interrupt_id} is closed: it was answered, or the agent no longer waits for an answer"
    return AlreadyResolved(text, sessionId=session)


async def find_question_record(store: RunStore, key: Key, interrupt_id: str) -> ChatRecord:
    """Return the record of a question, with the run and the seq of the question. Raises UnknownInterrupt."""
    record = await store.find_chat(key, "", interrupt_id)
    if record is None:
        name = id_of(key)
        raise UnknownInterrupt(f"session {name} has no question {interrupt_id}", sessionId=name)
    return record


async def find_resolution(store: EventStore, key: Key, record: ChatRecord, head: int) -> InterruptResolved | None:
    """Return the event that closed a question, or None if the question is open or the event has expired."""
    cursor = record.seq
    while events := await store.read(key, cursor, head):
        cursor = events[-1].seq
        for event in events:
            if isinstance(event.body, InterruptResolved) and event.body.interruptId == record.clientMsgId:
                return event.body
    return None
