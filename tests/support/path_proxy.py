"""A proxy that offers a hub under a path of its own address, as nginx does with `location /hubbub/`."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import attrs
from support.waiting import PATIENCE

REQUEST_LINE = re.compile(rb"([A-Z]+) (\S+) HTTP/1\.1\r\n")


@attrs.define(eq=False)
class PathProxy:
    """Forwards the requests under *path* to the hub. If it *strips* the path, the hub gets the rest of the address.

    Each connection carries one request, or one WebSocket. Requests for other paths get 404, and are in
    *foreign_paths*.
    """

    hub_port: int
    path: str
    strips: bool
    foreign_paths: list[str] = attrs.Factory(list)
    port: int = 0
    _writers: set[asyncio.StreamWriter] = attrs.Factory(set)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}{self.path}"

    @asynccontextmanager
    async def running(self) -> AsyncIterator["PathProxy"]:
        tasks: set[asyncio.Task[None]] = set()

        def accept(client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
            self._writers.add(to_client)
            task = asyncio.create_task(self._serve(client, to_client))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for writer in self._writers:
                writer.transport.abort()
            if tasks:
                await asyncio.wait(tasks, timeout=PATIENCE)

    async def _serve(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        to_hub: asyncio.StreamWriter | None = None
        try:
            head = self._rewrite(await client.readuntil(b"\r\n\r\n"))
            if head is None:
                to_client.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                return
            hub, to_hub = await asyncio.open_connection("127.0.0.1", self.hub_port)
            self._writers.add(to_hub)
            to_hub.write(head)
            await asyncio.gather(_pipe(client, to_hub), _pipe(hub, to_client))
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client or the hub has disconnected
        finally:
            to_client.close()
            if to_hub is not None:
                to_hub.close()

    def _rewrite(self, head: bytes) -> bytes | None:
        """Return the head of a request for the hub, or None if its path is not under that of the proxy."""
        match = REQUEST_LINE.match(head)
        assert match is not None, head
        target = match[2].decode()
        if not re.match(rf"{re.escape(self.path)}(/|\?|\Z)", target):
            self.foreign_paths.append(target)
            return None
        rest = target.removeprefix(self.path) if self.strips else target
        headers = head[match.end() :]
        if not re.search(rb"(?i)\r\nupgrade:", b"\r\n" + headers):
            headers = re.sub(rb"(?im)^connection:.*\r\n", b"", headers)
            headers = b"Connection: close\r\n" + headers
        slash = "" if rest.startswith("/") else "/"
        return b"%s %s HTTP/1.1\r\nX-Forwarded-For: 192.0.2.1\r\n%s" % (match[1], f"{slash}{rest}".encode(), headers)


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy until the end of *reader*, then end *writer*."""
    with suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await asyncio.wait_for(writer.drain(), PATIENCE)
    with suppress(OSError, RuntimeError):
        writer.write_eof()
