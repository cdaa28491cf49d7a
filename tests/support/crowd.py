"""Several listeners of one session, of whom one is a bare socket."""

import asyncio
import socket

from support.hub import Hub
from support.sockets import opened

from hub.delivery.channel import Channel
from hub.delivery.connection import Connection
from hub.ids import Key
from hub.messages import Chunk, Event


async def crowd(hub: Hub) -> tuple[socket.socket, Connection, Channel]:
    """Start a hub with three listeners of a session; return the bare one."""
    await hub.start()
    sock = await asyncio.to_thread(opened, hub.port, "/api/v1/ws?sessionId=s1")
    await hub.wait_until_live("s1", 1)
    (connection,) = hub.node.registry.connections
    for _ in range(2):
        await hub.connect("?sessionId=s1")
    await hub.wait_until_live("s1", 3)
    return sock, connection, hub.node.sessions[Key("s1")].channel


def say(hub: Hub, channel: Channel, text: str) -> None:
    said = Event("main", "r", Chunk("m", text, 0), "s1", channel.epoch or "", channel.head + 1)
    hub.node.fanout.deliver(channel, [said])
