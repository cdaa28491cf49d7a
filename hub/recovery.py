"""What a run said before its process was gone, from the log."""

from hub.logs import Log, RunRecord
from hub.messages import Chunk, MessageRemoved, WholeMessage


async def said(log: Log, record: RunRecord, head: int) -> dict[str, WholeMessage]:
    """Return what a run has said so far and not taken back, by message, in order."""
    found: dict[str, WholeMessage] = {}
    cursor = record.after
    while events := await log.read(record.sessionId, cursor, head):
        cursor = events[-1].seq
        for event in events:
            body = event.body
            if event.runId != record.runId:
                continue
            if isinstance(body, MessageRemoved):
                for message_id in body.messageIds:
                    found.pop(message_id, None)
            elif isinstance(body, WholeMessage):
                found[body.messageId] = body
            elif isinstance(body, Chunk):
                before = found[body.messageId].content if body.messageId in found else ""
                found[body.messageId] = WholeMessage(body.messageId, before + body.content)
    return found
