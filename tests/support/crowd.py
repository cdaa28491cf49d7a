"""Several listeners of one session; one of them is a raw socket."""

import asyncio
import socket

from support.hub import Hub
from support.sockets import open_websocket

from hub.delivery.channel import Channel
from hub.delivery.connection import Connection
from hub.ids import Key
from hub.messages import Chunk, Event


async def start_three_listeners(hub: Hub) -> tuple[socket.socket, Connection, Channel]:
    """Start a hub with three listeners of one session; return the raw socket, its connection and the channel."""
    await hub.start()
    sock = await asyncio.to_thread(open_websocket, hub.port, "/api/v1/ws?sessionId=s1")
    await hub.wait_until_live("s1", 1)
    (connection,) = hub.node.registry.connections
    for _ in range(2):
        await hub.connect("?sessionId=s1")
    await hub.wait_until_live("s1", 3)
    return sock, connection, hub.node.sessions[Key("s1")].channel


def say(hub: Hub, channel: Channel, text: str) -> None:
    """Deliver one chunk to all listeners of the channel."""
    event = Event("main", "r", Chunk("m", text, 0), "s1", channel.epoch or "", channel.head + 1)
    hub.node.fanout.deliver(channel, [event])
