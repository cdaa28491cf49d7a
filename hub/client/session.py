"""The objects that a program works with: a session, and an answer in it."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import attrs

from hub.client.failures import Failure, Refusal, RunFailed
from hub.client.frames import is_end
from hub.client.reader import Reader
from hub.messages import (
    FINISH_REASONS,
    Accepted,
    Cancelling,
    Chunk,
    Event,
    IfBusy,
    MessageRemoved,
    RunError,
    RunFinished,
    WholeMessage,
)

if TYPE_CHECKING:
    from hub.client.client import Client


@attrs.define(eq=False, kw_only=True)
class Answer:
    """One answer: its events while it runs (`async for`), or its complete text (`await answer.text()`).

    An answer survives lost connections, even if it ends while there is no connection. Iteration ends with
    `run_finished`, for every stop reason. Iteration raises Refusal if the hub refuses the chat, the subscription or a
    read of the log. It raises Forgotten if the log no longer has the answer, and Closed. *accepted* is None until the
    hub confirms that the message is on disk.
    """

    frame: dict[str, Any]
    _reader: Reader
    _cancel: Callable[[str, str], Awaitable[tuple[str, ...]]]
    accepted: Accepted | None = None
    _decision: asyncio.Event = attrs.Factory(asyncio.Event)  # set when the chat was accepted, or has failed

    def accept(self, accepted: Accepted) -> None:
        self.accepted = accepted
        self._reader.follow(accepted.runId, accepted.seq - 1)
        self._decision.set()

    def fail(self, failure: Failure) -> None:
        self._reader.fail(failure)
        self._decision.set()

    def __aiter__(self) -> "Answer":
        return self

    async def __anext__(self) -> Event:
        event = await anext(self._reader)
        assert isinstance(event, Event)  # a reader of one run gets no reset
        if is_end(event):
            self._reader.end()
        return event

    async def text(self) -> str:
        """Return the complete text. Raises RunFailed if the answer failed or was stopped, for example by a shutdown.

        Raises the errors of iteration, too.
        """
        texts: dict[str, list[str]] = {}
        error: RunError | None = None
        reason = "end_turn"
        async for event in self:
            body = event.body
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


@attrs.define(eq=False)
class Session:
    """A session to which the client stays subscribed, over every reconnect, until leave()."""

    id: str
    agent: str
    _client: "Client"

    def chat(
        self,
        message: str,
        *,
        agent: str | None = None,
        if_busy: IfBusy | None = None,
        client_msg_id: str | None = None,
    ) -> Answer:
        """Send a message, now or at the next connection, and return its answer.

        *client_msg_id* is the idempotency key: the hub answers repeated messages with the same key once. By default the
        key is random. The message is sent even if the answer is never awaited. Raises Closed.
        """
        fields = {"clientMsgId": client_msg_id, "ifBusy": if_busy}
        options = {name: value for name, value in fields.items() if value is not None}
        return self._client.send_chat(self.id, message=message, agentId=agent or self.agent, **options)

    async def ask(self, message: str, **options: Any) -> str:
        """Return the complete answer to *message*: see Answer.text. The options are those of `chat`."""
        return await self.chat(message, **options).text()

    async def cancel(self) -> tuple[str, ...]:
        """Stop all running and queued answers of the session. Return the ids of their runs.

        Raises the errors of Client.command().
        """
        return await request_cancel(self._client, self.id, None)

    async def history(self, last: int = 100) -> tuple[dict[str, Any], ...]:
        """Return the last *last* finished messages, oldest first, within the hub's limits (by default 100 and 1 MiB).

        Raises the errors of Client.command().
        """
        return await self._client.history(self.id, last)

    def events(self) -> Reader:
        """Return a reader of all further events of the session: see Client.subscribe."""
        return self._client.subscribe(session=self.id)

    def typing(self) -> None:
        """Tell the session's other clients that someone is writing."""
        self._client.link.send(type="typing", sessionId=self.id)

    def leave(self) -> None:
        """Unsubscribe from the session. By default, a connection may have 128 subscriptions."""
        self._client.leave(self.id)


async def request_cancel(client: "Client", session_id: str, run_id: str | None) -> tuple[str, ...]:
    """Stop the run *run_id*. If it is None, stop all runs of the session. Return the ids of the stopped runs."""
    fields = {"sessionId": session_id} | ({"runId": run_id} if run_id is not None else {})
    try:
        answer = await client.command(type="cancel", **fields)
    except Refusal as error:
        if error.code == "not_running":
            return ()
        raise
    return answer.runIds if isinstance(answer, Cancelling) else ()
