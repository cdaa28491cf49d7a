"""The answer to a chat."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import attrs

from hub.client.failures import Failure, RunFailed
from hub.client.frames import is_end
from hub.client.reader import Reader
from hub.messages import (
    FINISH_REASONS,
    Accepted,
    Body,
    Chunk,
    Event,
    MessageRemoved,
    RunError,
    RunFinished,
    WholeMessage,
)


@attrs.define(eq=False, kw_only=True)
class Answer:
    """One answer: its events while it runs (`async for`), or its complete text (`await answer.text()`).

    An answer survives lost connections, even if it ends while there is no connection. Iteration ends with
    `run_finished`, for every stop reason. Iteration raises Refusal if the hub refuses the chat, the subscription or a
    read of the log. It raises Forgotten if the log no longer has the answer, and Closed. *accepted* is None until the
    hub confirms that the message is on disk.
    """

    frame: dict[str, Any]
    reader: Reader
    _cancel: Callable[[str, str], Awaitable[tuple[str, ...]]]
    accepted: Accepted | None = None
    is_ready: bool = True  # False while files of the message are being uploaded
    upload: asyncio.Task[None] | None = None
    _decision: asyncio.Event = attrs.Factory(asyncio.Event)  # set when the chat was accepted, or has failed

    @property
    def session_id(self) -> str:
        return self.reader.feed.id

    @property
    def has_failed(self) -> bool:
        return self.reader.inbox.failure is not None

    def accept(self, accepted: Accepted) -> None:
        self.accepted = accepted
        self.reader.follow(accepted.runId, accepted.seq - 1)
        self._decision.set()

    def fail(self, failure: Exception) -> None:
        """End the iteration with an error: a Failure, or an error of the program's own function."""
        self.reader.fail(failure)
        self._decision.set()

    def abandon(self, failure: Failure) -> None:
        """Fail the answer, stop the upload of its files, and take no further events."""
        self.fail(failure)
        if self.upload is not None:
            self.upload.cancel()
        self.reader.feed.readers.discard(self.reader)

    def __aiter__(self) -> "Answer":
        return self

    async def __anext__(self) -> Event:
        event = await anext(self.reader)
        assert isinstance(event, Event)  # a reader of one run gets no reset
        if is_end(event):
            self.reader.end()
        return event

    async def text(self) -> str:
        """Return the complete text. Raises RunFailed if the answer failed or was stopped, for example by a shutdown.

        Raises the errors of iteration, too.
        """
        return await self.read_text(lambda event: None)

    async def read_text(self, on_event: Callable[[Body], None]) -> str:
        """Do what text() does, and call *on_event* with each event."""
        texts: dict[str, list[str]] = {}
        error: RunError | None = None
        reason = "end_turn"
        async for event in self:
            body = event.body
            on_event(body)
            if isinstance(body, (Chunk, WholeMessage)):
                texts.setdefault(body.messageId, []).append(body.content)
            elif isinstance(body, MessageRemoved):
                for message_id in body.messageIds:
                    texts.pop(message_id, None)
            elif isinstance(body, RunError):
                error = body
            elif isinstance(body, RunFinished):
                reason = body.stopReason
        text = "".join(piece for pieces in texts.values() for piece in pieces)
        if reason not in FINISH_REASONS:
            raise _run_failure(error, reason, text)
        return text

    async def cancel(self) -> tuple[str, ...]:
        """Stop this answer only. Return the id of its run in a tuple.

        The tuple is empty if the run has ended, or if the chat has failed. Raises the errors of Session.cancel().
        """
        await self._decision.wait()
        if self.accepted is None:
            return ()
        return await self._cancel(self.accepted.sessionId, self.accepted.runId)


def _run_failure(error: RunError | None, reason: str, text: str) -> RunFailed:
    if error is None:
        failure = RunFailed(reason, f"the answer ended early ({reason})", retryable=reason == "aborted")
    else:
        failure = RunFailed(error.code, error.message, retryable=error.retryable, retry_after_ms=error.retryAfterMs)
    failure.text, failure.stop_reason = text, reason
    return failure
