"""The intake of one socket: parse frames, and run each command at once or in its session's queue."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from math import ceil
from typing import Any, Protocol

import attrs
import structlog
from msgspec.structs import replace

from hub.commands import table as commands
from hub.commands.client import ClientHandle
from hub.commands.control import cancel_now
from hub.commands.listen import end_subscription
from hub.commands.queues import Queues
from hub.commands.rate import Rate
from hub.errors import BadFrame, HubError, NotRunning, RateLimited
from hub.limits import Limits
from hub.messages import (
    Accepted,
    Cancel,
    Chat,
    ChatWithRequest,
    Command,
    Edit,
    Error,
    Fork,
    Hello,
    Regenerate,
    Resume,
    Subscribe,
    Unsubscribe,
)

log = structlog.get_logger()

SECONDS_PER_MINUTE = 60.0
QueueKeys = tuple[str, ...]
ERROR_FIELD_NAMES = {field.name for field in attrs.fields(Error)}


def build_error(refusal: HubError, ref: str | int | None = None) -> Error:
    """Return the error notice for a HubError. The error's own `ref` replaces *ref*."""
    fields = {name: value for name, value in refusal.fields.items() if name in ERROR_FIELD_NAMES}
    return Error(**({"ref": ref} | fields), code=refusal.code, message=refusal.message)


def _chat_keys(client: ClientHandle, chat: Chat) -> QueueKeys:
    session_id = chat.sessionId or client.session
    return (queue_key(client, session_id) if session_id is not None else _own_key(chat.agentId or client.agent),)


def _fork_keys(client: ClientHandle, fork: Fork) -> QueueKeys:
    """Return the keys of both sessions: a fork reads one, and writes the other."""
    ids = (fork.sessionId, fork.newSessionId or fork.sessionId)
    return tuple(dict.fromkeys(queue_key(client, session_id) for session_id in ids))


def _subscribe_keys(client: ClientHandle, subscribe: Subscribe) -> QueueKeys:
    """Return the session's key, or no key for an agent's group: the client joins a group at once."""
    session_id = subscribe.sessionId if subscribe.agentId is None else None
    return (queue_key(client, session_id),) if session_id is not None else ()


def _session_keys(client: ClientHandle, command: Edit | Regenerate | Resume) -> QueueKeys:
    return (queue_key(client, command.sessionId),)


# The commands that go through queues, with a function that returns the keys of their queues.
QUEUE_KEYS: dict[type[Command], Callable[[ClientHandle, Any], QueueKeys]] = {
    Chat: _chat_keys,
    ChatWithRequest: _chat_keys,
    Subscribe: _subscribe_keys,
    Fork: _fork_keys,
    Edit: _session_keys,
    Regenerate: _session_keys,
    Resume: _session_keys,
}


def _own_key(agent_id: str) -> str:
    """Return the queue key of the client's own session for an agent: the session may have no id yet.

    The key equals no session id, because no id contains `/`.
    """
    return f"/{agent_id}"


def queue_key(client: ClientHandle, session_id: str) -> str:
    """Return the key of a session's queue: its id, or _own_key() for one of the client's own sessions."""
    return next((_own_key(agent) for agent, own_id in client.own_sessions.items() if own_id == session_id), session_id)


class FrameSource(Protocol):
    """The methods of a socket's reader that the intake calls."""

    def read_ahead(self) -> None:
        """Read control frames, and buffer data frames, until the intake takes the next frame."""


@attrs.define(eq=False, repr=False, kw_only=True)
class Intake:
    """Receives the frames of one socket. Each command is answered exactly once, but `typing` only if it fails.

    `chat`, `subscribe`, `edit`, `regenerate`, `fork` and `resume` go through the queue of their session. All others run
    at once, and can overtake queued commands. A `cancel` or `unsubscribe` also applies to the commands that it
    overtook: it runs again, without an answer, after each of them.

    While receive() waits for capacity in the queues, *source* reads ahead.
    """

    client: ClientHandle
    source: FrameSource
    _frame_count: int = 0
    # Created on first use: a connection that only listens stays small.
    _queues: Queues | None = None
    _command_rate: Rate | None = None
    _bad_frame_rate: Rate | None = None

    @property
    def _limits(self) -> Limits:
        return self.client.hub.limits

    async def wait_until_finished(self) -> None:
        """Wait until no command is queued or running. If the wait is cancelled, cancel all commands."""
        if self._queues is not None:
            await self._queues.wait_until_finished()

    def cancel(self) -> None:
        """Cancel the running commands, and drop the queued ones."""
        if self._queues is not None:
            self._queues.cancel()

    async def receive(self, data: bytes) -> None:
        """Handle a frame. When receive() returns, the frame's command has run, or is in a queue.

        Raises BadFrame after too many bad frames, and RateLimited far above the rate limit. After either error the
        caller must close the socket with the error's close code.
        """
        self._frame_count += 1
        now = asyncio.get_running_loop().time()
        if self._command_rate is None:
            self._command_rate = Rate(self._limits.commands_per_second, self._limits.command_burst)
        excess = self._command_rate.add(now)
        try:
            command = self.client.parse(data)
        except BadFrame as refusal:
            if self._bad_frame_rate is None:
                per_minute = self._limits.bad_frames_per_minute
                self._bad_frame_rate = Rate(per_minute / SECONDS_PER_MINUTE, per_minute)
            if self._bad_frame_rate.add(now):
                raise
            self.client.answer(build_error(refusal))
        except Exception:  # a bug in a protocol of another package
            self._answer_failure(None)
        else:
            if excess:
                self._refuse_excess(command, excess)
            else:
                await self._dispatch(command, len(data))

    def _refuse_excess(self, command: Command, excess: float) -> None:
        limits = self._limits
        refusal = RateLimited(
            f"more than {limits.commands_per_second} commands per second: wait, then send the command again",
            retryAfterMs=ceil(excess / limits.commands_per_second * 1000),
            ref=command.ref,
        )
        if excess > limits.command_burst:
            raise refusal
        self.client.answer(build_error(refusal))

    async def _dispatch(self, command: Command, size: int) -> None:
        kind = type(command)
        keys = QUEUE_KEYS[kind](self.client, command) if kind in QUEUE_KEYS else ()
        if isinstance(command, (Cancel, Unsubscribe)):
            keys = await self._overtake(command)
        elif kind is Hello and self.client.protocol == "plain" and self._frame_count > 1:
            text = "hello must be the first frame: reconnect to use the extended protocol"
            self.client.answer(build_error(BadFrame(text), command.ref))
        elif not keys:
            await self._run(command)
        if keys:
            if self._queues is None:
                self._queues = Queues(limits=self._limits, follow_up=self._follow_up)
            while not self._queues.has_capacity(keys):
                self.source.read_ahead()
                await self._queues.wait_for_change()
            self._queues.put(keys, size, partial(self._run, command))

    async def _overtake(self, command: Cancel | Unsubscribe) -> QueueKeys:
        """Run a command before the queued ones of its session. Mark it to run again after each of them.

        A `cancel` that finds nothing running must be queued instead, because a queued command may start the run to
        stop. Then return the key of that queue, else no key.
        """
        is_for_session = (command.agentId if isinstance(command, Unsubscribe) else command.runId) is None
        key = queue_key(self.client, command.sessionId or "")
        queues = self._queues
        if not is_for_session or queues is None or not queues.is_busy(key):
            await self._run(command)
            return ()
        try:
            await self._run(command, passed_errors=(NotRunning,))
        except NotRunning:
            return (key,)
        queues.mark(key, replace(command, ref=None))
        return ()

    async def _run(self, command: Command, passed_errors: tuple[type[HubError], ...] = ()) -> object:
        """Run a command and return the result of its use case. Errors are answered, except *passed_errors*."""
        try:
            return await commands.receive(self.client, command)
        except passed_errors:
            raise
        except HubError as refusal:
            self.client.answer(build_error(refusal, command.ref))
        except Exception:
            self._answer_failure(command.ref)
        return None

    def _answer_failure(self, ref: str | int | None) -> None:
        log.exception("a command failed", connection=self.client.id)
        self.client.answer(Error(code="internal", message="the hub failed: the reason is in its output", ref=ref))

    def _follow_up(self, command: Command, result: object) -> None:
        """Apply a `cancel` or an `unsubscribe` to the *result* of a command that it overtook and that has ended now."""
        client = self.client
        if isinstance(command, Unsubscribe) and command.sessionId is not None:
            end_subscription(client.hub, client.principal, command.sessionId, client)
        elif isinstance(command, Cancel) and isinstance(result, Accepted):
            if command.queued or result.status == "started":
                with suppress(HubError):  # the run has ended, or the client may no longer stop it
                    cancel_now(client.hub, client.principal, replace(command, runId=result.runId))
