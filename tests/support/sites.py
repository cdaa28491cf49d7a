"""A hub behind a proxy, as its users reach it: https://hub.example.com."""

import re
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import attrs
from aiohttp.abc import AbstractResolver, ResolveResult
from support.certificates import make_certificate
from support.hub import AGENTS, Client
from support.process import HubProcess
from support.proxy_servers import HOST, Place, ProxyKind, ProxyServer, find_free_ports
from support.waiting import PATIENCE

from hub.access.secrets import TOKEN_PATTERN

# Yields a piece when the file of its number exists in the folder that the message names.
STEPS_AGENT = """
import asyncio, pathlib

async def steps(message: str):
    for number in range(4):
        while not pathlib.Path(message, str(number)).exists():
            await asyncio.sleep(0.01)
        yield f"piece {number}."
"""


class LoopbackResolver(AbstractResolver):
    """Finds every host on this machine."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = ResolveResult(hostname=host, host="127.0.0.1", port=port, family=socket.AF_INET, proto=0, flags=0)
        return [found]

    async def close(self) -> None:
        pass


@attrs.define(eq=False, kw_only=True)
class Site:
    """A hub with sign-in behind a proxy. *origin* is the public address, *key* the key of a program."""

    hub: HubProcess
    settings: dict[str, Any]
    place: Place
    origin: str
    key: str

    @property
    def url(self) -> str:
        return self.origin + str(self.settings.get("base_path", ""))

    @property
    def api(self) -> str:
        return f"{self.url}/api/v1"

    def open_http(self, address: str = "127.0.0.1", **options: Any) -> aiohttp.ClientSession:
        """Return a client with this address, which trusts the certificate of the proxy, and has no key."""
        trusted = self.place.certificate.trust()
        connector = aiohttp.TCPConnector(ssl=trusted, resolver=LoopbackResolver(), local_addr=(address, 0))
        return aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(3 * PATIENCE), **options)

    def open_program(self, address: str = "127.0.0.1") -> aiohttp.ClientSession:
        """Return a client with the key."""
        return self.open_http(address, headers={"Authorization": f"Bearer {self.key}"})

    async def connect(
        self, http: aiohttp.ClientSession, query: str = "", extended: bool = False, **options: Any
    ) -> Client:
        """Open a WebSocket through the proxy."""
        protocols: tuple[str, ...] = ("hubbub.v1",) if extended else ()
        ws = await http.ws_connect(f"{self.api}/ws{query}", protocols=protocols, max_msg_size=0, **options)
        assert ws.protocol == (protocols[0] if extended else None)
        client = Client(http, ws)
        if extended:
            assert (await client.next())["type"] == "welcome"
        return client

    async def invite(self, name: str) -> str:
        """Return a link that signs a person in."""
        link = re.search(rf"{self.url}/\S+?#\w+", await call_operator(self.hub, "invite_person", name=name))
        assert link is not None
        return link[0]

    async def start_hub(self) -> None:
        """Start the hub again, after its end."""
        await self.hub.start(port=self.place.hub_port, **self.settings)


async def call_operator(hub: HubProcess, command: str, **arguments: Any) -> str:
    """Send a command of the operator to a hub, and return its answer as text."""
    connector = aiohttp.UnixConnector(str(hub.folder / "data" / "control.sock"))
    async with aiohttp.ClientSession(connector=connector) as http:
        async with http.post(f"http://hub/commands/{command}", json=arguments) as response:
            text = await response.text()
            assert response.status == 200, text
            return text


async def create_key(hub: HubProcess, name: str) -> str:
    """Return a new key of a program."""
    match = TOKEN_PATTERN.search(await call_operator(hub, "create_key", name=name))
    assert match is not None
    return match[0]


async def sign_in(
    site: Site, http: aiohttp.ClientSession, origin: str, more_headers: Mapping[str, str] | None = None
) -> tuple[int, str]:
    """Sign in with a new link, as a page of *origin*; return the status, and the cookie with its attributes."""
    token = (await site.invite("Ann")).partition("#")[2]
    headers = {"Origin": origin, **(more_headers or {})}
    async with http.post(f"{site.api}/sign-in", json={"token": token}, headers=headers) as response:
        return response.status, response.headers.get("Set-Cookie", "")


async def check_chats(site: Site) -> None:
    """Chat by a request, and read the answer on a WebSocket."""
    async with site.open_program() as http:
        chat = {"agentId": "echo", "message": "one two"}
        async with http.post(f"{site.api}/sessions/chats/chat?wait=true", json=chat) as response:
            assert (response.status, (await response.json())["content"]) == (200, "one two ")
        client = await site.connect(http, "?sessionId=chats&afterSeq=0")
        await client.until_done()
        assert client.text() == "one two "
        await client.ws.close()


@asynccontextmanager
async def open_site(
    folder: Path, kind: ProxyKind, edits: Mapping[str, str] | None = None, host: str = HOST, **settings: Any
) -> AsyncIterator[Site]:
    """Run a hub behind a proxy. *edits* change the file of the proxy, *settings* those of the hub."""
    folder = folder / kind.name
    (folder / "hub").mkdir(parents=True)
    hub = HubProcess(folder / "hub")
    for name, code in {**AGENTS, "steps": STEPS_AGENT}.items():
        hub.agent(f"{name}.py", code)
    http_port, port = find_free_ports(2)
    url = f"https://{host}:{port}"
    settings = {"sign_in": True, "public_url": url, "trusted_proxies": "127.0.0.1", "access_log": True, **settings}
    async with AsyncExitStack() as stack:
        stack.push_async_callback(hub.kill)
        await hub.start(**settings)
        files = make_certificate(folder, "proxy", host=host)
        place = Place(folder=folder, hub_port=hub.port, http_port=http_port, port=port, certificate=files, host=host)
        server = await ProxyServer.start(kind, place, edits or {})
        stack.push_async_callback(server.stop)
        yield Site(hub=hub, settings=settings, place=place, origin=url, key=await create_key(hub, "ci"))
