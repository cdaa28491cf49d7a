"""The Hub: one object that starts, drains and closes a process of the hub."""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

import attrs

from hub.access.permissions import find_session_role, may
from hub.access.principal import Principal
from hub.access.probes import Probes
from hub.access.tickets import Tickets
from hub.commands.audit import Audit
from hub.commands.directory import Directory
from hub.commands.housekeeping import Housekeeping
from hub.commands.open_clients import OpenClients
from hub.commands.quotas import Quotas
from hub.delivery.channel import Channel
from hub.delivery.connection import Connection
from hub.errors import BadId, Draining, HubError, TooManyConnections
from hub.ids import Key, describe_bad_id, is_id, session_key
from hub.limits import Limits
from hub.node import draining
from hub.node.log_probe import LogProbe
from hub.node.node import Node
from hub.node.upkeep import Upkeep
from hub.observe.counters import Counters
from hub.seams import Seams
from hub.settings import Settings

if TYPE_CHECKING:
    from hub.commands.client import ClientHandle


@attrs.define(eq=False, repr=False, kw_only=True)
class Hub:
    """One process of the hub, the first argument of each use case. Callers of use cases use only its methods.

    *first_settings* are those that open_hub() got; use_settings() changes *settings*.
    Call start(), drain(), finish() and close() in this order. drain() and finish() are optional. close_socket()
    closes the WebSocket of a client for an error; it returns False for a client without a WebSocket. *erased_ids* are
    the principals that were erased in this process.
    """

    settings: Settings
    first_settings: Settings
    node: Node
    upkeep: Upkeep
    log_probe: LogProbe
    directory: Directory
    tickets: Tickets
    probes: Probes
    clients: OpenClients
    quotas: Quotas
    audit: Audit
    housekeeping: Housekeeping
    close_socket: "Callable[[ClientHandle, HubError], bool]" = lambda client, error: False
    base_url: str = ""
    erased_ids: set[str] = attrs.Factory(set)
    erasure_lock: asyncio.Lock = attrs.Factory(asyncio.Lock)
    is_started: bool = False
    is_delivery_over: bool = False

    @property
    def limits(self) -> Limits:
        return self.settings.limits

    @property
    def is_sign_in_on(self) -> bool:
        return self.settings.is_sign_in_on

    @property
    def is_team(self) -> bool:
        """True if each member of a tenant is a member of each of its sessions."""
        return self.settings.session_access == "team"

    @property
    def counters(self) -> Counters:
        """The counters for the metrics."""
        return self.node.counters

    @property
    def is_draining(self) -> bool:
        """True if the hub is going down."""
        return self.node.is_draining

    @property
    def has_running_code(self) -> bool:
        """True if the code of an agent runs. Code that ignores its cancellation runs on after the end of its run."""
        return any(agent.running_answers for agent in self.node.agents.all())

    def use_settings(self, settings: Settings) -> None:
        """Use other settings from now on. They differ only in those that hub.commands.reloading can change."""
        self.settings = settings
        self.directory.new_user_role = settings.new_user_role
        self.node.use_settings(settings)

    async def start(self) -> None:
        """Open the log and the agents, and recover the runs of the previous process.

        Raises LogUnusable and OSError, each with one line for the operator. After an error nothing is open.
        """
        await self.node.start()
        self.is_started = True
        self.upkeep.start()
        if self.is_sign_in_on:
            self.housekeeping.start()

    async def start_log(self) -> None:
        """Open the log alone, instead of start(), for commands of the operator where no hub runs.

        No agent is loaded, and no run is recovered. Raises LogUnusable and OSError.
        """
        await self.node.start_log()

    def drain(self) -> None:
        """Refuse chats from now on, and notify every client."""
        self.node.drain()

    async def finish(self, hurry: asyncio.Event) -> None:
        """Wait for runs to end, until *hurry* or the drain deadline. Then stop the other runs, and flush all events."""
        limits = self.limits
        wait = limits.drain_seconds - limits.grace_seconds - 2 * limits.close_seconds
        await draining.finish_runs(self.node, wait, hurry)
        await draining.flush_all(self.node, limits.grace_seconds + limits.close_seconds, hurry)

    def stop_delivery(self) -> None:
        """Deliver nothing to any client from now on, and refuse new connections."""
        self.is_delivery_over = True
        for connection in self.node.registry.connections:
            connection.stop_delivery()

    async def close(self) -> None:
        """Close the log and the agents. Close the clients first."""
        await self.upkeep.stop()
        await self.quotas.wait_for_saves()
        await self.housekeeping.stop()
        await self.audit.save()
        await self.node.close()

    async def check_ready(self) -> None:
        """Raise Draining or StorageUnavailable, with a line for the operator, if chats are refused now."""
        if not self.node.is_ready:
            raise Draining("the hub is starting or going down")
        await self.log_probe.check()

    def can_hear(self, connection: Connection, channel: Channel) -> bool:
        """Return whether a client may read a session in memory as its grants are now."""
        client, session = self.clients.by_connection.get(connection), self.node.sessions.get(channel.key)
        if client is None or session is None:
            return False
        role = find_session_role(client.principal, channel.key, session.grants, is_team=self.is_team)
        return role is not None and may(client.principal, "read", role)

    def check_connection_count(self, principal: Principal, is_counted: bool = False) -> None:
        """Raise TooManyConnections if a principal cannot open another connection, or Draining if nobody can.

        The operator has no limit. Those who have not signed in have none together: one of them could use it up.
        *is_counted* is True if the new connection is already in *clients*.
        """
        if self.is_delivery_over:
            raise Draining("the hub is going down: reconnect in a moment")
        limit = self.limits.principal_connections
        is_limited = principal.is_signed_in and not principal.is_operator
        if is_limited and self.clients.count_of(principal.id) >= limit + is_counted:
            text = f"{principal.name} has the maximum of {limit} connections: close one of them first"
            raise TooManyConnections(text, retryAfterMs=1000)

    def make_key(self, principal: Principal, session_id: str) -> Key:
        """Return the key of a session: its id with the principal's tenant. Raises BadId."""
        if not is_id(session_id):  # an id with a slash could name a session of another tenant
            raise BadId(describe_bad_id("sessionId"))
        return session_key(principal.tenant, session_id)

    def make_link(self, token: str) -> str:
        """Return the address of the page that uses the token of a link. The part after # reaches no log."""
        return f"{self.base_url}/sign-in#{token}"

    def make_group_key(self, principal: Principal, agent_id: str) -> str:
        """Return the key of an agent's group: the agent's id with the principal's tenant."""
        return session_key(principal.tenant, agent_id)


def open_hub(settings: Settings, seams: Seams = Seams()) -> Hub:
    """Return a hub that is not started. Raises LogUnusable if no driver supports the log's URL."""
    # Absolute, because an agent may change the current folder.
    agents, data, cache = (folder.absolute() for folder in (settings.agents, settings.data, settings.cache_folder))
    first_settings, settings = settings, attrs.evolve(settings, agents=agents, data=data, cache=cache)
    node = Node(settings=settings, seams=seams)
    directory = Directory(store=node.log.access, seams=seams, new_user_role=settings.new_user_role)
    tickets, clients = Tickets(now=seams.now, new_secret=seams.new_secret), OpenClients()
    audit = Audit(store=node.log.access, seams=seams, max_entries=settings.limits.audit_entries)
    hub = Hub(
        settings=settings,
        first_settings=first_settings,
        node=node,
        upkeep=Upkeep(node),
        log_probe=LogProbe(node.log),
        directory=directory,
        tickets=tickets,
        probes=Probes(now=seams.now, new_secret=seams.new_secret),
        clients=clients,
        quotas=Quotas(store=node.log.access, seams=seams),
        audit=audit,
        housekeeping=Housekeeping(directory=directory, tickets=tickets, clients=clients, audit=audit),
    )
    if settings.is_sign_in_on:
        node.registry.can_hear = hub.can_hear
        node.quotas = hub.quotas
    return hub
