"""A client that is connected, as the use cases know it: who it is, and what is delivered to it."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from math import inf
from types import MappingProxyType

import attrs

from hub.access.principal import Principal
from hub.commands.hub import Hub
from hub.delivery.catchup import CatchUp
from hub.delivery.connection import Connection
from hub.delivery.transport import Transport, install_flow_control
from hub.ids import Key
from hub.messages import Command, Notice
from hub.protocols import WireProtocol


@attrs.define(eq=False, repr=False, kw_only=True)
class ClientHandle:
    """A handle on one connection; made by attach(), and closed once, by whoever attached it.

    *agent* and *session* are the defaults of a chat. Without a *session*, each agent gets one in *own_sessions*, made
    on first use. *joining* has the sessions that a command under way will let it hear: see joining.room_for().
    """

    hub: Hub
    principal: Principal
    connection: Connection
    agent: str
    session: str | None
    own_sessions: Mapping[str, str] = MappingProxyType({})
    joining: frozenset[Key] = frozenset()

    @property
    def id(self) -> str:
        return self.connection.id

    @property
    def protocol(self) -> str:
        """The name of the protocol that it speaks now."""
        return self.connection.protocol.name

    @property
    def is_closed(self) -> bool:
        """Whether nothing is delivered to it any more."""
        return self.connection.is_closed

    def read(self, data: bytes) -> Command:
        """Return the command of a frame; raises BadFrame or a kind of it."""
        return self.connection.protocol.command(data, self.hub.limits)

    def note_sign(self) -> None:
        """Note that the peer sent something: it is not silent."""
        self.connection.receive_time, self.connection.ping_time = asyncio.get_running_loop().time(), None

    def note_deafness(self) -> None:
        """Note that nothing is read of the peer until note_sign(): it is not silent."""
        self.connection.receive_time, self.connection.ping_time = inf, None

    def answer(self, notice: Notice) -> None:
        """Write the answer to a command of this client; never waits."""
        self.connection.answer(notice)

    def write(self, data: bytes) -> None:
        """Write bytes as they are; never waits."""
        self.connection.write(data)

    async def opened(self) -> "ClientHandle":
        """Return the client itself: an Opener for one that is open already."""
        return self

    async def readable(self) -> None:
        """Wait until the peer has read enough to be listened to again, or has gone."""
        await self.connection.wait_until_drained()

    async def finished(self, run_id: str) -> None:
        """Wait until a run of a session that it hears has ended, or the hub leaves the run to its next start."""
        for sub in tuple(self.connection.subscriptions.values()):
            session = self.hub.node.sessions.get(sub.channel.key)
            if session is not None and session.channel is sub.channel:
                await session.schedule.wait_for_end_or_drain(run_id)

    async def silenced(self) -> None:
        """Wait until it has gone, or hears no session any more."""
        await self.connection.wait_until_unsubscribed()

    async def caught_up(self) -> None:
        """Wait until all that it hears is written, or it is closed."""
        await self.connection.catchup.wait_until_finished()

    def is_open(self, interrupt_id: str) -> bool:
        """Return whether a question of a session that it hears waits for an answer."""
        sessions = (self.hub.node.sessions.get(key) for key in self.connection.subscriptions)
        return any(session is not None and session.find_questions(interrupt_id) is not None for session in sessions)

    def leave(self) -> None:
        """Deliver nothing from now on; the socket stays open for a farewell."""
        self.connection.stop_delivery()

    def abort(self) -> None:
        """Free the socket at once."""
        self.connection.transport.abort()

    async def close(self, farewell: Callable[[], Awaitable[None]]) -> None:
        """Forget the client; *farewell* is bounded.

        First out of the registry, so that nothing new reaches it; then the socket; then what takes time.
        """
        self.hub.node.registry.remove(self.connection)
        await farewell()
        # A peer that does not read would hold a closing transport for ever: it has this long to take the rest.
        asyncio.get_running_loop().call_later(self.hub.limits.close_seconds, self.connection.transport.abort)
        await self.connection.catchup.stop()
        self.connection.break_references()


# Called by a use case to open the client that hears its answer, for a response over HTTP begins only when there is one.
Opener = Callable[[], Awaitable[ClientHandle]]
# The same for the answer of one run: with its id, and whether the client hears it from its beginning.
RunOpener = Callable[[str, bool], Awaitable[ClientHandle]]


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
    """Register a client of *protocol*, whose bytes go to *transport*, or past it, from now on.

    *ping* sends a ping frame without waiting; *whole* asks for whole messages instead of pieces. Raises
    ConnectionResetError where the transport is gone.
    """
    if transport is None:
        raise ConnectionResetError("the client has gone")
    node = hub.node
    wire = Transport(asyncio_transport=transport, ping=ping, high_water=hub.limits.high_water_bytes)
    catchup = CatchUp(
        store=node.log.events,
        pages=node.pages,
        limits=hub.limits,
        activate=node.registry.activate,
        load_reset_messages=node.read_reset_messages,
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
    install_flow_control(wire, direct_writes=node.direct_writes)
    node.registry.connections.add(connection)
    return ClientHandle(hub=hub, principal=principal, connection=connection, agent=agent, session=session)
