"""A client of the event envelope."""

from typing import Any

import aiohttp
from support.hub import Client, Hub


async def connect_envelope(hub: Hub, path: str, *protocols: str) -> Client:
    http = aiohttp.ClientSession()
    try:
        client = Client(http, await http.ws_connect(f"{hub.url}/api/v1/{path}", protocols=protocols))
    except aiohttp.WSServerHandshakeError:
        await http.close()
        raise
    hub.clients.append(client)
    return client


def text(frames: list[dict[str, Any]]) -> str:
    return "".join(frame["payload"]["content"] for frame in frames if frame["type"] == "text")
