"""The default protocol sends `stream`, `message`, `error`, `pong`, and the answers to the client's own commands."""

from collections.abc import Callable
from typing import Any

import orjson

from hub.limits import Limits
from hub.messages import (
    Accepted,
    Body,
    Chunk,
    Command,
    Error,
    Event,
    MessageRemoved,
    Notice,
    Reset,
    RunError,
    RunFinished,
    WholeMessage,
)
from hub.protocols import WireProtocol, text_frame
from hub.protocols.extended import notice_fields
from hub.protocols.reading import read_command
from hub.protocols.splitting import split_body, split_fields

MAX_LISTED_IDS = 10  # the most ids in the text of a message_removed error


class PlainProtocol(WireProtocol):
    name = "plain"
    notices = False

    def command(self, data: bytes, limits: Limits) -> Command:
        return read_command(data, limits)

    def event(self, event: Event) -> bytes:
        build = FRAME_BUILDERS.get(type(event.body))
        if build is None:
            return b""
        data = orjson.dumps(build(event, event.body))
        return text_frame(data) if len(data) <= self.out_frame_bytes else self._split(event, event.body)

    def whole(self, event: Event, message_id: str, content: str) -> bytes:
        end, body = self.event(event), WholeMessage(message_id, content)
        frame = _message(event, body)
        if end:
            del frame["seq"]  # only *end* has the seq: if it is lost, both are sent again
        data = orjson.dumps(frame)
        return (text_frame(data) if len(data) <= self.out_frame_bytes else self._split(event, body, not end)) + end

    def _split(self, event: Event, body: Body, is_last: bool = True) -> bytes:
        """Split an event into several frames. If *is_last*, the last frame has the seq; otherwise no frame has it."""
        pieces = split_body(body, self.out_frame_bytes // 2)
        frames = [_without_none(FRAME_BUILDERS[type(piece)](event, piece)) for piece in pieces]
        for frame in frames[:-1] if is_last else frames:
            del frame["seq"]
        return b"".join([text_frame(orjson.dumps(frame)) for frame in frames])

    def answer(self, notice: Notice) -> bytes:
        if isinstance(notice, Accepted) and notice.clientMsgId is None:
            return b""
        if isinstance(notice, Reset):
            notice = Error(
                code="reset",
                sessionId=notice.sessionId,
                message=f"the cursor is no longer valid in this session ({notice.reason}): discard its messages; "
                "the events that follow are new, and afterSeq=0 returns all stored events",
            )
        frames = split_fields(notice_fields(notice), self.out_frame_bytes)
        return b"".join([text_frame(orjson.dumps(frame)) for frame in frames])

    def notice(self, notice: Notice) -> bytes:
        return b""


def _chunk(event: Event, body: Chunk | WholeMessage) -> dict[str, Any]:
    return {
        "type": "stream",
        "agentId": event.agentId,
        "content": body.content,
        "done": False,
        "sessionId": event.sessionId,
        "runId": event.runId,
        "messageId": body.messageId,
        "epoch": event.epoch,
        "seq": event.seq,
    }


def _message(event: Event, body: WholeMessage) -> dict[str, Any]:
    return _without_none(_chunk(event, body) | {"type": "message"})


def _end(event: Event, body: RunFinished) -> dict[str, Any]:
    frame = _chunk(event, WholeMessage(body.messageId, ""))
    return frame | {"done": True, "stopReason": body.stopReason}


def _error(event: Event, code: str, message: str) -> dict[str, Any]:
    return {
        "type": "error",
        "code": code,
        "message": message,
        "agentId": event.agentId,
        "sessionId": event.sessionId,
        "runId": event.runId,
        "epoch": event.epoch,
        "seq": event.seq,
    }


def _run_error(event: Event, body: RunError) -> dict[str, Any]:
    frame = _error(event, body.code, body.message)
    return frame if body.retryAfterMs is None else frame | {"retryAfterMs": body.retryAfterMs}


def _removal(event: Event, body: MessageRemoved) -> dict[str, Any]:
    ids, more = body.messageIds[:MAX_LISTED_IDS], len(body.messageIds) - MAX_LISTED_IDS
    text = f"discard these messages ({body.reason}): {', '.join(ids)}" + (f" and {more} more" if more > 0 else "")
    return _without_none(_error(event, "message_removed", text)) | {"messageIds": body.messageIds}


def _without_none(frame: dict[str, Any]) -> dict[str, Any]:
    """Remove fields that are None: a message in a fork has no run, and a removal by a user has no run and no agent."""
    return {name: value for name, value in frame.items() if value is not None}


FRAME_BUILDERS: dict[type, Callable[[Event, Any], dict[str, Any]]] = {
    Chunk: _chunk,
    WholeMessage: _message,
    RunError: _run_error,
    RunFinished: _end,
    MessageRemoved: _removal,
}
