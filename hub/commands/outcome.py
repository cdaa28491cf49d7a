"""The outcome of a run, read from its events."""

from itertools import chain

import attrs

from hub.hosting.call_recorder import TOOL_EVENTS, CallRecorder
from hub.messages import (
    Accepted,
    Chunk,
    Event,
    Fault,
    MessageRemoved,
    Reasoning,
    RunError,
    RunFinished,
    RunOutcome,
    StopReason,
    Usage,
    WholeMessage,
)
from hub.sessions.session import LiveSession
from hub.storage.log import EventStore


async def read_outcome(store: EventStore, session: LiveSession, accepted: Accepted) -> RunOutcome:
    """Return the outcome of a run. Call this after the end of the run, after a drain, or while the run asks a question.

    If the log does not have the run's end, the outcome has no stop reason. In this case, raises SessionDeleted if the
    session was deleted. Raises StorageUnavailable.
    """
    channel, reader = session.channel, _OutcomeReader()
    cursor = max(accepted.seq, channel.floor)
    while not reader.has_end and (events := await store.read(channel.key, cursor, channel.head)):
        cursor = events[-1].seq
        for event in events:
            if event.runId == accepted.runId and not reader.has_end:
                reader.add(event)
    if not reader.has_end:
        channel.refuse_if_deleted()
    return RunOutcome(
        sessionId=session.id,
        runId=accepted.runId,
        messageId=accepted.messageId,
        content="".join(chain.from_iterable(reader.texts.values())),
        stopReason=reader.stop_reason,
        usage=reader.usage,
        error=reader.fault,
        toolCalls=reader.calls.list_open_calls() or None,
        reasoning="".join(reader.thoughts) or None,
    )


@attrs.define(kw_only=True)
class _OutcomeReader:
    """Collects the outcome of a run from its events. *texts* has the chunks of each message, by message id."""

    texts: dict[str, list[str]] = attrs.Factory(dict)
    thoughts: list[str] = attrs.Factory(list)
    calls: CallRecorder = attrs.Factory(lambda: CallRecorder(client_tools=frozenset(), max_bytes=0))
    fault: Fault | None = None
    stop_reason: StopReason | None = None
    usage: Usage | None = None

    @property
    def has_end(self) -> bool:
        return self.stop_reason is not None

    def add(self, event: Event) -> None:
        body = event.body
        if isinstance(body, (Chunk, WholeMessage)):
            self.texts.setdefault(body.messageId, []).append(body.content)
        elif isinstance(body, MessageRemoved):
            for message_id in body.messageIds:  # the run was started again, so its earlier messages were removed
                self.texts.pop(message_id, None)
            self.calls.remove_messages(("",))
            self.thoughts.clear()
        elif isinstance(body, Reasoning):
            self.thoughts.append(body.delta)
        elif isinstance(body, TOOL_EVENTS):
            self.calls.add(body, "")
        elif isinstance(body, RunError):
            self.fault = Fault(body.code, body.message)
        elif isinstance(body, RunFinished):
            self.stop_reason, self.usage = body.stopReason, body.usage
