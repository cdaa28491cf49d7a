"""The commands that were sent over the present connection and have no answer yet."""

import asyncio
import itertools
from collections.abc import Callable
from typing import Any

import attrs

from hub.client.failures import Failure, Refusal, refusal_of
from hub.client.link import Link
from hub.messages import Error, Notice
from hub.messages.numbers import check_finite

ReplyCallback = Callable[[Notice | Failure], None]


@attrs.define(eq=False)
class Commands:
    """Sends commands over *link*, and passes each answer to its callback."""

    link: Link
    _refs: "itertools.count[int]" = attrs.Factory(itertools.count)
    _callbacks: dict[int, ReplyCallback] = attrs.Factory(dict)  # by ref

    def next_ref(self) -> int:
        return next(self._refs)

    def send(self, on_reply: ReplyCallback, **frame: Any) -> None:
        """Send a command if the link is live. *on_reply* gets its answer, or a Failure if the connection is lost.

        Raises Refusal (`too_large`).
        """
        if self.link.state == "live":
            ref = self.next_ref()
            self.link.send(ref=ref, **frame)
            self._callbacks[ref] = on_reply

    async def request(self, **frame: Any) -> Notice:
        """Wait for a connection, send a command, and return its answer.

        Raises Refusal, Closed and ConnectionCut, and ValueError for a number that JSON does not have.
        """
        check_finite(frame)
        await self.link.wait_until_live()
        self.link.refuse_if_full()
        answer: asyncio.Future[Notice] = asyncio.get_running_loop().create_future()
        self.send(lambda reply: _resolve(answer, reply), **frame)
        return await answer

    def receive(self, ref: Any, reply: Notice) -> None:
        """Pass an answer to the callback of its command, if *ref* is of a command."""
        callback = self._callbacks.pop(ref, None)
        if callback is not None:
            callback(refusal_of(reply) if isinstance(reply, Error) else reply)

    def fail(self, error: Failure) -> None:
        """Pass an error to all callbacks: the connection is lost."""
        callbacks, self._callbacks = self._callbacks, {}
        for callback in callbacks.values():
            callback(error)


def _resolve(future: "asyncio.Future[Notice]", reply: Notice | Failure) -> None:
    if future.done():
        return  # the caller was cancelled
    if isinstance(reply, Failure):
        future.set_exception(reply)
    else:
        future.set_result(reply)


async def request_cancel(commands: Commands, session_id: str, run_id: str | None) -> tuple[str, ...]:
    """Stop the run *run_id*. If it is None, stop all runs of the session. Return the ids of the stopped runs."""
    fields = {"sessionId": session_id} | ({"runId": run_id} if run_id is not None else {})
    try:
        answer = await commands.request(type="cancel", **fields)
    except Refusal as error:
        if error.code == "not_running":
            return ()
        raise
    return getattr(answer, "runIds", ())
