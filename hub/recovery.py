"""What a run that an earlier process left has said and asked so far, read from the log."""

import attrs

from hub.logs import Log, RunRecord
from hub.messages import Chunk, Event, Interrupt, InterruptResolved, MessageRemoved, WholeMessage


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


async def left(log: Log, record: RunRecord, head: int) -> Left:
    found = Left()
    cursor = record.after
    while events := await log.read(record.sessionId, cursor, head):
        cursor = events[-1].seq
        for event in events:
            if event.runId == record.runId:
                found.take(event)
    return found
