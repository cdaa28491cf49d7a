"""What a program holds: a session, and an answer in it."""

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
    """One answer: its events as they come (`async for`), or all of its text (`await answer.text()`).

    It survives lost connections, also one during which it ended. Iteration ends with its `run_finished`, however the
    answer ended; it raises Refusal where the chat was refused, Forgotten where the session is gone, Closed.
    *accepted* is None until the hub has the message on disk.
    """

    frame: dict[str, Any]
    _reader: Reader
    _cancel: Callable[[str, str], Awaitable[tuple[str, ...]]]
    accepted: Accepted | None = None
    _known: asyncio.Event = attrs.Factory(asyncio.Event)

    def accept(self, accepted: Accepted) -> None:
        self.accepted = accepted
        self._reader.follow(accepted.runId, accepted.seq - 1)
        self._known.set()

    def fail(self, failure: Failure) -> None:
        self._reader.fail(failure)
        self._known.set()

    def __aiter__(self) -> "Answer":
        return self

    async def __anext__(self) -> Event:
        said = await anext(self._reader)
        assert isinstance(said, Event)  # a reader of one run gets no reset
        if is_end(said):
            self._reader.end()
        return said

    async def text(self) -> str:
        """Return the whole text; raises RunFailed where the answer failed, was stopped, or ended with the hub."""
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
            raise _failed(error, reason, text)
        return text

    async def cancel(self) -> tuple[str, ...]:
        """Stop this answer, and no other; returns () where it has ended. Raises what `session.cancel` raises."""
        await self._known.wait()
        if self.accepted is None:
            return ()
        return await self._cancel(self.accepted.sessionId, self.accepted.runId)


def _failed(error: RunError | None, reason: str, text: str) -> RunFailed:
    if error is None:
        failed = RunFailed(reason, f"the answer ended early ({reason})", retryable=reason == "aborted")
    else:
        failed = RunFailed(error.code, error.message, retryable=error.retryable, retry_after_ms=error.retryAfterMs)
    failed.text, failed.stop_reason = text, reason
    return failed


@attrs.define(eq=False)
class Session:
    """A conversation that this client hears, over any number of connections, until it is left."""

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
        """Send a message now, or as soon as there is a connection; it is answered once, however often it is sent.

        *client_msg_id* is random where it is not given. Nothing need be awaited: the message is sent either way.
        """
        fields = {"clientMsgId": client_msg_id, "ifBusy": if_busy}
        given = {name: value for name, value in fields.items() if value is not None}
        return self._client.send_chat(self.id, message=message, agentId=agent or self.agent, **given)

    async def ask(self, message: str, **options: Any) -> str:
        """Return the whole answer to *message*; see Answer.text. Options are those of `chat`."""
        return await self.chat(message, **options).text()

    async def cancel(self) -> tuple[str, ...]:
        """Stop all that is being answered here or waits, and return the ids of the runs; () where there was none.

        Raises ConnectionCut where the connection was lost meanwhile.
        """
        return await cancel(self._client, self.id, None)

    async def history(self, last: int = 100) -> tuple[dict[str, Any], ...]:
        """Return the last finished messages, oldest first, at most 100."""
        return await self._client.history(self.id, last)

    def events(self) -> Reader:
        """Read all that happens here from now on: see Client.subscribe."""
        return self._client.subscribe(session=self.id)

    def typing(self) -> None:
        """Tell the others that someone is writing."""
        self._client.link.send(type="typing", sessionId=self.id)

    def leave(self) -> None:
        """Hear this session no more; a connection may hear 128."""
        self._client.leave(self.id)


async def cancel(client: "Client", session_id: str, run_id: str | None) -> tuple[str, ...]:
    about = {"sessionId": session_id} | ({"runId": run_id} if run_id is not None else {})
    try:
        answer = await client.command(type="cancel", **about)
    except Refusal as refused:
        if refused.code == "not_running":
            return ()
        raise
    return answer.runIds if isinstance(answer, Cancelling) else ()
