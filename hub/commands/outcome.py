"""What a run said, for those who wait for its end."""

from itertools import chain

import attrs

from hub.messages import (
    Accepted,
    Chunk,
    Event,
    Fault,
    MessageRemoved,
    RunError,
    RunFinished,
    RunOutcome,
    StopReason,
    Usage,
    WholeMessage,
)
from hub.sessions.session import LiveSession
from hub.storage.log import EventStore


async def outcome(store: EventStore, session: LiveSession, accepted: Accepted) -> RunOutcome:
    """Return what a run that has ended said, and how it ended, from the log; raises SessionDeleted."""
    channel, reading = session.channel, _Reading()
    cursor = max(accepted.seq, channel.floor)
    while not reading.is_over and (events := await store.read(channel.key, cursor, channel.head)):
        cursor = events[-1].seq
        for event in events:
            if event.runId == accepted.runId and not reading.is_over:
                reading.take(event)
    if not reading.is_over:
        channel.refuse_if_deleted()
    return RunOutcome(
        sessionId=session.id,
        runId=accepted.runId,
        messageId=accepted.messageId,
        content="".join(chain.from_iterable(reading.texts.values())),
        stopReason=reading.reason,
        usage=reading.usage,
        error=reading.fault,
    )


@attrs.define
class _Reading:
    """What the events of a run have told so far; *texts* are the pieces of each message."""

    texts: dict[str, list[str]] = attrs.Factory(dict)
    fault: Fault | None = None
    reason: StopReason | None = None
    usage: Usage | None = None

    @property
    def is_over(self) -> bool:
        return self.reason is not None

    def take(self, event: Event) -> None:
        body = event.body
        if isinstance(body, (Chunk, WholeMessage)):
            self.texts.setdefault(body.messageId, []).append(body.content)
        elif isinstance(body, MessageRemoved):
            for message_id in body.messageIds:  # the run began anew
                self.texts.pop(message_id, None)
        elif isinstance(body, RunError):
            self.fault = Fault(body.code, body.message)
        elif isinstance(body, RunFinished):
            self.reason, self.usage = body.stopReason, body.usage
