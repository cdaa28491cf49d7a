"""From a client's frames to the answers: which command is done at once, and which waits in a queue."""

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
from hub.commands.control import stop
from hub.commands.listen import leave
from hub.commands.queues import Queues
from hub.commands.rate import Rate
from hub.errors import BadFrame, HubError, NotRunning, RateLimited
from hub.limits import Limits
from hub.messages import (
    Accepted,
    Cancel,
    Chat,
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

MINUTE = 60.0
Keys = tuple[str, ...]
ERROR_FIELDS = {field.name for field in attrs.fields(Error)}


def error_of(refusal: HubError, ref: str | int | None = None) -> Error:
    """Return what a client is told of a refusal."""
    about = {key: value for key, value in refusal.about.items() if key in ERROR_FIELDS}
    return Error(**({"ref": ref} | about), code=refusal.code, message=refusal.message)


def _chat_keys(client: ClientHandle, chat: Chat) -> Keys:
    session_id = chat.sessionId or client.session
    return (queue_key(client, session_id) if session_id is not None else _own_key(chat.agentId or client.agent),)


def _fork_keys(client: ClientHandle, fork: Fork) -> Keys:
    """It reads one session, and writes another."""
    ids = (fork.sessionId, fork.newSessionId or fork.sessionId)
    return tuple(dict.fromkeys(queue_key(client, session_id) for session_id in ids))


def _subscribe_keys(client: ClientHandle, subscribe: Subscribe) -> Keys:
    """An agent's group is joined at once."""
    session_id = subscribe.sessionId if subscribe.agentId is None else None
    return (queue_key(client, session_id),) if session_id is not None else ()


def _keys(client: ClientHandle, command: Edit | Regenerate | Resume) -> Keys:
    return (queue_key(client, command.sessionId),)


# The commands that go through queues, and which: those of the sessions whose order they keep.
QUEUED: dict[type[Command], Callable[[ClientHandle, Any], Keys]] = {
    Chat: _chat_keys,
    Subscribe: _subscribe_keys,
    Fork: _fork_keys,
    Edit: _keys,
    Regenerate: _keys,
    Resume: _keys,
}


def _own_key(agent_id: str) -> str:
    """Return the key of the connection's own session for an agent, also before it has an id; `/` is in no id."""
    return f"/{agent_id}"


def queue_key(client: ClientHandle, session_id: str) -> str:
    """Return the key of a session's queue: its id, but for the connection's own sessions."""
    return next((_own_key(agent) for agent, own in client.own_sessions.items() if own == session_id), session_id)


class FrameSource(Protocol):
    """Where the frames come from."""

    def read_ahead(self) -> None:
        """The next frame is not taken yet: look after control frames until then."""


@attrs.define(eq=False, repr=False, kw_only=True)
class Intake:
    """Takes what one socket sends. Each command is answered once, whatever becomes of it.

    `chat`, `subscribe`, `edit`, `regenerate`, `fork` and `resume` go through the queue of their session. All others are
    done at once. A `cancel` or `unsubscribe` also holds for what was sent before it: it is done again, without an
    answer, after each such command that its session's queue has.

    *source* is told where receive() waits for room: what comes meanwhile is for it to look at.
    """

    client: ClientHandle
    source: FrameSource
    _frames: int = 0
    # Made on first use: a connection that only listens is to be small.
    _queues: Queues | None = None
    _commands: Rate | None = None
    _bad_frames: Rate | None = None

    @property
    def _limits(self) -> Limits:
        return self.client.hub.limits

    async def finished(self) -> None:
        """Wait until no command waits, or is under way; where this is cancelled, they are, too."""
        if self._queues is not None:
            await self._queues.finished()

    def cancel(self) -> None:
        """Cancel the commands that are under way, and drop those that wait."""
        if self._queues is not None:
            self._queues.cancel()

    async def receive(self, data: bytes) -> None:
        """Take a frame; its command is done, or has its place in a queue, when this returns.

        Raises BadFrame and RateLimited where there were too many: the socket is to be closed with their codes.
        """
        self._frames += 1
        now = asyncio.get_running_loop().time()
        if self._commands is None:
            self._commands = Rate(self._limits.commands_per_second, self._limits.command_burst)
        excess = self._commands.excess(now)
        try:
            command = self.client.read(data)
        except BadFrame as refusal:
            if self._bad_frames is None:
                per_minute = self._limits.bad_frames_per_minute
                self._bad_frames = Rate(per_minute / MINUTE, per_minute)
            if self._bad_frames.excess(now):
                raise
            self.client.answer(error_of(refusal))
        except Exception:  # of a protocol from another package
            self._fail(None)
        else:
            if excess:
                self._limit(command, excess)
            else:
                await self._take(command, len(data))

    def _limit(self, command: Command, excess: float) -> None:
        limits = self._limits
        refusal = RateLimited(
            f"more than {limits.commands_per_second} commands a second: wait, and send it again",
            retryAfterMs=ceil(excess / limits.commands_per_second * 1000),
            ref=command.ref,
        )
        if excess > limits.command_burst:
            raise refusal
        self.client.answer(error_of(refusal))

    async def _take(self, command: Command, size: int) -> None:
        kind = type(command)
        keys = QUEUED[kind](self.client, command) if kind in QUEUED else ()
        if isinstance(command, (Cancel, Unsubscribe)):
            keys = await self._overtake(command)
        elif kind is Hello and self.client.protocol == "plain" and self._frames > 1:
            text = "hello must be the first frame; reconnect to speak the extended protocol"
            self.client.answer(error_of(BadFrame(text), command.ref))
        elif not keys:
            await self._carry_out(command)
        if keys:
            if self._queues is None:
                self._queues = Queues(limits=self._limits, follow_up=self._follow_up)
            while not self._queues.has_room(keys):
                self.source.read_ahead()
                await self._queues.changed()
            self._queues.put(keys, size, partial(self._carry_out, command))

    async def _overtake(self, command: Cancel | Unsubscribe) -> Keys:
        """Do a command before those of its session that were sent earlier, and again after each of them.

        A `cancel` waits for them where nothing runs yet, as what they start may be what it is meant to stop: then the
        key of its queue is returned.
        """
        is_of_session = (command.agentId if isinstance(command, Unsubscribe) else command.runId) is None
        key = queue_key(self.client, command.sessionId or "")
        queues = self._queues
        if not is_of_session or queues is None or not queues.is_busy(key):
            await self._carry_out(command)
            return ()
        try:
            await self._carry_out(command, raised=(NotRunning,))
        except NotRunning:
            return (key,)
        queues.mark(key, replace(command, ref=None))
        return ()

    async def _carry_out(self, command: Command, raised: tuple[type[HubError], ...] = ()) -> object:
        """Carry out a command and return what its use case does; one that is refused, or fails, is answered so."""
        try:
            return await commands.receive(self.client, command)
        except raised:
            raise
        except HubError as refusal:
            self.client.answer(error_of(refusal, command.ref))
        except Exception:
            self._fail(command.ref)
        return None

    def _fail(self, ref: str | int | None) -> None:
        log.exception("a command failed", connection=self.client.id)
        self.client.answer(Error(code="internal", message="the hub failed; its output says why", ref=ref))

    def _follow_up(self, command: Command, result: object) -> None:
        """Let a command that was done at once hold for one that was sent before it and is done now."""
        client = self.client
        if isinstance(command, Unsubscribe) and command.sessionId is not None:
            leave(client.hub, client.principal, command.sessionId, client)
        elif isinstance(command, Cancel) and isinstance(result, Accepted):
            if command.queued or result.status == "started":
                with suppress(NotRunning):
                    stop(client.hub, client.principal, replace(command, runId=result.runId))
