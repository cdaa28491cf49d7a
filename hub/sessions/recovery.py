"""What an earlier process left: queued runs wait again, started ones end or, once, start again."""

from collections.abc import Sequence

import attrs
from msgspec.structs import replace

from hub.messages import Chunk, Event, Interrupt, InterruptResolved, MessageRemoved, WholeMessage
from hub.sessions.outbox import PendingEvent
from hub.sessions.session import LiveSession
from hub.storage.log import EventStore
from hub.storage.records import RunRecord


@attrs.define
class Left:
    """What a run said and did not take back, by message, and its open questions by id, in order."""

    texts: dict[str, WholeMessage] = attrs.Factory(dict)
    questions: dict[str, Interrupt] = attrs.Factory(dict)

    def take(self, event: Event) -> None:
        body = event.body
        if isinstance(body, MessageRemoved):
            for message_id in body.messageIds:
                self.texts.pop(message_id, None)
        elif isinstance(body, WholeMessage):
            self.texts[body.messageId] = body
        elif isinstance(body, Chunk):
            before = self.texts[body.messageId].content if body.messageId in self.texts else ""
            self.texts[body.messageId] = WholeMessage(body.messageId, before + body.content)
        elif isinstance(body, Interrupt):
            self.questions[body.id] = body
        elif isinstance(body, InterruptResolved):
            self.questions.pop(body.interruptId, None)


async def recover(session: LiveSession, records: Sequence[RunRecord]) -> None:
    """Take up the runs of a session that have not ended, in order.

    Raises StorageUnavailable if the log cannot say what the started ones said; then none is taken up.
    """
    store, head = session.host.log.events, session.channel.head
    left = {record.runId: await _left(store, record, head) for record in records if record.state == "started"}
    for record in records:
        if record.state == "queued":
            session.queue.append(session.schedule.make_run(record, None))
        else:
            _recover_started(session, record, left[record.runId])
    session.schedule.wake()


def abort(session: LiveSession, records: Sequence[RunRecord]) -> None:
    """End the started runs of a session whose log cannot be read (`aborted`), without what they said and asked.

    Those that wait have said nothing, and wait on.
    """
    runs = [session.schedule.make_run(record, None) for record in records]
    started = [run for run in runs if run.record.state == "started"]
    session.runs.update({run.id: run for run in started})
    session.queue.extend(run for run in runs if run.record.state == "queued")
    for run in started:
        run.stop("aborted")
    session.schedule.wake()


def _recover_started(session: LiveSession, record: RunRecord, found: Left) -> None:
    agent = next((agent for agent in session.host.agents.all() if agent.id == record.agentId and not agent.error), None)
    if agent is None or not agent.marks.restartable or record.attempt > 1:
        run = session.schedule.make_run(record, None)
        run.writer.restore(found.texts.values())
        for question in found.questions.values():
            run.questions.add(question)
        session.runs[run.id] = run
        run.stop("aborted")
        return
    removed = MessageRemoved(tuple(dict.fromkeys([record.messageId, *found.texts])), "restarted")
    bodies = [*(InterruptResolved(name, "cancelled") for name in found.questions), removed]
    session.outbox.put(*(PendingEvent(record.agentId, record.runId, body) for body in bodies))
    run = session.schedule.make_run(
        replace(record, messageId=session.host.seams.new_id("m"), attempt=record.attempt + 1), agent
    )
    session.queue.append(run)
    session.schedule.start(run)


async def _left(store: EventStore, record: RunRecord, head: int) -> Left:
    """Read from the log what a run has said and asked so far."""
    found = Left()
    cursor = record.after
    while events := await store.read(record.key, cursor, head):
        cursor = events[-1].seq
        for event in events:
            if event.runId == record.runId:
                found.take(event)
    return found
