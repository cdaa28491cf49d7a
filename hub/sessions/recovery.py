"""Recover the runs of an earlier process: queue the queued runs again; end the started runs, or restart them once."""

from collections.abc import Sequence

import attrs
from msgspec.structs import replace

from hub.hosting.call_recorder import TOOL_EVENTS, CallRecorder
from hub.hosting.hosted import Agent
from hub.ids import tenant_of
from hub.limits import Limits
from hub.messages import (
    Body,
    Chunk,
    Event,
    Interrupt,
    InterruptResolved,
    MessageRemoved,
    RunStarted,
    ToolCallStart,
    WholeMessage,
)
from hub.sessions.hosts import RunPlace
from hub.sessions.pending import PendingEvent
from hub.sessions.run import ActiveRun, make_recorder
from hub.sessions.session import LiveSession
from hub.storage.log import EventStore
from hub.storage.records import RunRecord


@attrs.define
class LoggedOutput:
    """The messages of a run that were not removed, and its open questions, both by id and in order; its tool calls.

    *first_id* is the id of the first message in the latest attempt.
    """

    calls: CallRecorder
    first_id: str = ""
    messages: dict[str, WholeMessage] = attrs.Factory(dict)
    questions: dict[str, Interrupt] = attrs.Factory(dict)

    def apply(self, event: Event) -> None:
        """Apply the next event of the run."""
        body = event.body
        if isinstance(body, MessageRemoved):
            for message_id in body.messageIds:
                self.messages.pop(message_id, None)
            self.calls.remove_messages(body.messageIds)
        elif isinstance(body, RunStarted):
            self.first_id = body.messageId
        elif isinstance(body, TOOL_EVENTS):
            self._apply_call(body)
        elif isinstance(body, WholeMessage):
            self.messages[body.messageId] = body
        elif isinstance(body, Chunk):
            text = self.messages[body.messageId].content if body.messageId in self.messages else ""
            self.messages[body.messageId] = WholeMessage(body.messageId, text + body.content)
        elif isinstance(body, Interrupt):
            self.questions[body.id] = body
        elif isinstance(body, InterruptResolved):
            self.questions.pop(body.interruptId, None)

    def _apply_call(self, body: Body) -> None:
        """Record an event of a tool call, as AnswerWriter does."""
        if isinstance(body, ToolCallStart) and not self.messages:
            self.messages[self.first_id] = WholeMessage(self.first_id, "")
        if self.messages:
            self.calls.add(body, next(reversed(self.messages)))


async def recover_session(session: LiveSession, records: Sequence[RunRecord]) -> None:
    """Recover the runs of a session that have not ended, in order.

    Raises StorageUnavailable, or its subclass LogDamaged, if the output of a started run cannot be read. Then no run is
    recovered.
    """
    store, head = session.host.log.events, session.channel.head
    started_records = [record for record in records if record.state == "started"]
    limits = session.host.limits
    outputs = {record.runId: await _read_output(store, record, head, limits) for record in started_records}
    places = await _occupy_places(session, records)
    for record, place in zip(records, places, strict=True):
        if record.state == "queued":
            session.queued_runs.append(_make_run(session, record, None, place))
        else:
            _recover_started_run(session, record, outputs[record.runId], place)
    session.schedule.wake()


async def abort_session(session: LiveSession, records: Sequence[RunRecord]) -> None:
    """End the started runs of a session as `aborted`, without their messages, because their output cannot be read.

    Queue the queued runs again: they have no output. Raises StorageUnavailable.
    """
    places = await _occupy_places(session, records)
    runs = [_make_run(session, record, None, place) for record, place in zip(records, places, strict=True)]
    started_runs = [run for run in runs if run.record.state == "started"]
    session.active_runs.update({run.id: run for run in started_runs})
    session.queued_runs.extend(run for run in runs if run.record.state == "queued")
    for run in started_runs:
        run.stop("aborted")
    session.schedule.wake()


def _recover_started_run(session: LiveSession, record: RunRecord, output: LoggedOutput, place: RunPlace | None) -> None:
    """Remove the output of a restartable run and start the run again, but only once. End any other run as `aborted`."""
    agent = next((agent for agent in session.host.agents.all() if agent.id == record.agentId and not agent.error), None)
    if agent is None or not agent.marks.restartable or record.attempt > 1:
        run = _make_run(session, record, None, place)
        run.writer.restore(output.messages.values(), output.calls)
        for question in output.questions.values():
            run.questions.add(question)
        session.active_runs[run.id] = run
        run.stop("aborted")
        return
    removal = MessageRemoved(tuple(dict.fromkeys([record.messageId, *output.messages])), "restarted")
    bodies = [*(InterruptResolved(id, "cancelled") for id in output.questions), removal]
    session.outbox.put(*(PendingEvent(record.agentId, record.runId, body) for body in bodies))
    record = replace(record, messageId=session.host.seams.new_id("m"), attempt=record.attempt + 1)
    run = _make_run(session, record, agent, place)
    session.queued_runs.append(run)
    session.schedule.start(run)


async def _occupy_places(session: LiveSession, records: Sequence[RunRecord]) -> list[RunPlace | None]:
    """Return the places of runs in the quotas of their authors; None while sign-in is off."""
    quotas, tenant = session.host.quotas, tenant_of(session.key)
    return [await quotas.occupy(tenant, record.author.id) if quotas is not None else None for record in records]


def _make_run(session: LiveSession, record: RunRecord, agent: Agent | None, place: RunPlace | None) -> ActiveRun:
    run = session.schedule.make_run(record, agent)
    run.take_place(place)
    return run


async def _read_output(store: EventStore, record: RunRecord, head: int, limits: Limits) -> LoggedOutput:
    """Return the output of a run, from its events in the log. Raises StorageUnavailable and LogDamaged."""
    output = LoggedOutput(make_recorder(record, limits))
    cursor = record.after
    while events := await store.read(record.key, cursor, head):
        cursor = events[-1].seq
        for event in events:
            if event.runId == record.runId:
                output.apply(event)
    return output
