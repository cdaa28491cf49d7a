"""The handle on a connected client, for use cases and for the web layer."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from math import inf
from types import MappingProxyType
from typing import cast

import attrs

from hub.access.principal import NOBODY, Principal
from hub.commands.hub import Hub
from hub.delivery.catchup import CatchUp
from hub.delivery.connection import Connection
from hub.delivery.linger import Linger
from hub.delivery.transport import FlowControlProtocol, Transport, install_flow_control
from hub.errors import CredentialRevoked, HubError
from hub.ids import Key
from hub.messages import Command, Error, Event, Notice
from hub.node.history import read_reset_messages
from hub.protocols import WireProtocol


@attrs.define(eq=False, repr=False, kw_only=True)
class ClientHandle:
    """A handle on one connection. attach() creates it, and its caller closes it once.

    *agent* and *session* are the default ids for a chat. If *session* is None, the client has its own session for each
    agent. *own_sessions* maps agent ids to the ids of these sessions, which are made on first use.
    *reserved_keys* are the sessions to which commands in progress will subscribe the client: see
    joining.reserve_subscription(). *has_ended* is True after end(), or after the hub has sent a close frame.
    *linger* then limits what the peer may still send. *close_code* is the code of the first close frame of the two
    sides, or 0.
    """

    hub: Hub
    principal: Principal
    connection: Connection
    agent: str
    session: str | None
    own_sessions: Mapping[str, str] = MappingProxyType({})
    reserved_keys: frozenset[Key] = frozenset()
    has_ended: bool = False
    close_code: int = 0
    linger: Linger | None = None

    @property
    def id(self) -> str:
        return self.connection.id

    @property
    def protocol(self) -> str:
        """The name of the current protocol."""
        return self.connection.protocol.name

    @property
    def written_bytes(self) -> int:
        """The bytes of frames that were sent to this client. With direct writes, the number is too small."""
        return self.connection.transport.written_bytes

    @property
    def is_closed(self) -> bool:
        """True if delivery to this client has stopped."""
        return self.connection.is_closed

    def parse(self, data: bytes) -> Command:
        """Return the command in a frame. Raises BadFrame."""
        return self.connection.protocol.command(data, self.hub.limits)

    def sign_in(self, principal: Principal) -> None:
        """Act for *principal* from now on."""
        principal = attrs.evolve(principal, address=self.principal.address)
        self.hub.clients.remove(self)
        self.principal, self.connection.principal = principal, principal.author
        self.hub.clients.add(self)

    def check_principal(self) -> None:
        """Raise CredentialRevoked if the principal has changed since the request came, before attach()."""
        if not self.hub.directory.is_current(self.principal):
            raise CredentialRevoked()

    def end(self, error: HubError) -> None:
        """Deliver nothing and run no command from now on, and close the socket for *error*. Do not wait for that."""
        if self.is_closed:
            return
        self.hub.counters.door.refusals[error.code] += 1
        self.sign_in(NOBODY)
        if not self.hub.close_socket(self, error):
            self.has_ended = True
            self.connection.close_after(Error(code=error.code, message=error.message), self.hub.limits.close_seconds)

    def record_activity(self) -> None:
        """Record that the peer sent data: the heartbeat timeout starts again."""
        self.connection.receive_time, self.connection.ping_time = asyncio.get_running_loop().time(), None

    def suspend_heartbeat(self) -> None:
        """Suspend the heartbeat timeout until record_activity(), because no data is read from the peer now."""
        self.connection.receive_time, self.connection.ping_time = inf, None

    def answer(self, notice: Notice) -> None:
        """Write the answer to a command without waiting."""
        if type(notice) is Error:
            self.hub.counters.door.refusals[notice.code] += 1
        self.connection.answer(notice)

    def note_close(self, code: int) -> None:
        """A close frame with *code* is sent or received. Only the first call has an effect."""
        self.close_code = self.close_code or code

    def start_linger(self, code: int) -> None:
        """Drop what the peer still sends. The hub has sent a close frame with *code*."""
        wire = self.connection.transport.asyncio_transport
        protocol = cast(FlowControlProtocol, wire.get_protocol())
        self.linger = Linger(protocol=protocol, transport=wire, code=code, limits=self.hub.limits)
        self.linger.start()

    def write(self, data: bytes) -> None:
        """Write encoded frames without waiting."""
        self.connection.write(data)

    async def get_open_client(self) -> "ClientHandle":
        """Return this client. This method is the ClientOpener of a client that is already open."""
        return self

    async def wait_until_drained(self) -> None:
        """Wait until the peer has read enough (backpressure), or has disconnected."""
        await self.connection.wait_until_drained()

    async def wait_for_run(self, run_id: str) -> None:
        """Wait until a run of a subscribed session has ended.

        When the hub goes down, do not wait for a queued run: the run stays queued until the next start.
        """
        for sub in tuple(self.connection.subscriptions.values()):
            session = self.hub.node.sessions.get(sub.channel.key)
            if session is not None and session.channel is sub.channel:
                await session.schedule.wait_for_end_or_drain(run_id)

    async def wait_until_unsubscribed(self) -> None:
        """Wait until the client has disconnected, or has no subscription."""
        await self.connection.wait_until_unsubscribed()

    async def wait_until_caught_up(self) -> None:
        """Wait until none of the client's subscriptions lags, or the client is closed."""
        await self.connection.catchup.wait_until_finished()

    def has_open_question(self, interrupt_id: str) -> bool:
        """Return True if a subscribed session can still accept an answer to this question."""
        sessions = (self.hub.node.sessions.get(key) for key in self.connection.subscriptions)
        return any(session is not None and session.find_questions(interrupt_id) is not None for session in sessions)

    def stop_delivery(self) -> None:
        """Stop delivery to this client. The socket stays open for a close frame."""
        self.connection.stop_delivery()

    def abort(self) -> None:
        """Abort the socket."""
        self.connection.transport.abort()

    async def close(self, farewell: Callable[[], Awaitable[None]]) -> None:
        """Close the client. *farewell* writes the last bytes, and must have a timeout.

        The order is:

        1. remove the connection from the registry, so that no further event reaches the client;
        2. call *farewell*;
        3. start the timer that aborts the socket after `close_seconds`;
        4. stop the catch-up task, and break the connection's reference cycles.
        """
        self.hub.node.registry.remove(self.connection)
        self.hub.clients.remove(self)
        await farewell()
        # Without this timer a peer that does not read would keep a closing transport open for ever.
        asyncio.get_running_loop().call_later(self.hub.limits.close_seconds, self.connection.transport.abort)
        await self.connection.catchup.stop()
        self.connection.break_references()


# Opens the client for the events of a use case. From then on, the HTTP response can no longer be an error.
ClientOpener = Callable[[], Awaitable[ClientHandle]]
# The same for the events of one run. The arguments are the run's id, and the last event that the client has received:
# None if the events begin at the start.
RunOpener = Callable[[str, Event | None], Awaitable[ClientHandle]]


def attach(
    hub: Hub,
    principal: Principal,
    protocol: WireProtocol,
    transport: asyncio.Transport | None,
    ping: Callable[[], Awaitable[None]],
    *,
    agent: str = "main",
    session: str | None = None,
    whole_messages: bool = False,
) -> ClientHandle:
    """Register a client that speaks *protocol*, and return its handle. Frames are written to *transport* or its socket.

    *ping* sends a ping frame without waiting. With *whole_messages*, the client gets whole messages and no
    chunks. If no use case follows, call check_principal() in the same step. Raises ConnectionResetError if *transport*
    is None: the client has disconnected.
    """
    if transport is None:
        raise ConnectionResetError("the client has closed the connection")
    node = hub.node
    wire = Transport(asyncio_transport=transport, ping=ping, high_water=hub.limits.high_water_bytes)
    catchup = CatchUp(
        store=node.log.events,
        pages=node.pages,
        limits=hub.limits,
        activate=node.registry.activate,
        load_reset_messages=partial(read_reset_messages, node),
    )
    connection = Connection(
        id=node.seams.new_secret(8),
        principal=principal.author,
        protocol=protocol,
        transport=wire,
        catchup=catchup,
        whole_messages=whole_messages,
        receive_time=asyncio.get_running_loop().time(),
    )
    # Direct writes are not counted for each client, and the access log has the bytes of each.
    install_flow_control(wire, direct_writes=node.direct_writes and not hub.settings.access_log)
    node.registry.connections.add(connection)
    client = ClientHandle(hub=hub, principal=principal, connection=connection, agent=agent, session=session)
    hub.clients.add(client)
    return client
