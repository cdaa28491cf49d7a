"""An HTTP reverse proxy that makes the mistakes of real ones. It serves one request on each connection."""

import asyncio
import gzip
from collections.abc import AsyncIterator, Sequence, Set
from contextlib import asynccontextmanager, suppress

import attrs

Header = tuple[str, str]


@attrs.define(eq=False, kw_only=True)
class HttpProxy:
    """A proxy in front of the hub at *hub_port*. Without options it does all that the hub needs.

    *keep_host* and *keep_upgrade* pass these headers on, *name_client* writes the X-Forwarded headers in the place of
    those of the client, *keep_forwarded* passes on what clients send in them and in Forwarded. *lost_headers* are
    removed. *stores_responses* passes a response on when it is complete, *stores_bodies* a request. *max_body* is the
    largest Content-Length. *cuts_sockets* closes a WebSocket after its handshake. *compresses* the text of streams.
    *status* answers every request with this status, and *server* is the name in such an answer.
    """

    hub_port: int
    version: str = "1.1"
    scheme: str = "http"
    keep_host: bool = True
    keep_upgrade: bool = True
    name_client: bool = True
    keep_forwarded: bool = False
    lost_headers: Set[str] = frozenset()
    stores_responses: bool = False
    stores_bodies: bool = False
    cuts_sockets: bool = False
    compresses: bool = False
    status: int | None = None
    server: str = "nginx/1.22.1"
    max_body: int | None = None
    prefix: str = ""
    port: int = 0
    tasks: set["asyncio.Task[None]"] = attrs.Factory(set)

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._answer(reader, writer))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        task.add_done_callback(lambda _: writer.transport.abort())  # also of a task that is cancelled before it starts

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().rstrip().split("\r\n")
            headers: list[Header] = [(line.partition(":")[0], line.partition(":")[2].strip()) for line in lines]
            size = next((int(value) for name, value in headers if name.lower() == "content-length"), 0)
            is_too_large = self.max_body is not None and size > self.max_body
            if status := 413 if is_too_large else self.status:
                head = f"HTTP/1.1 {status} Status\r\nServer: {self.server}\r\nConnection: close\r\n"
                writer.write(f"{head}Content-Length: 0\r\n\r\n".encode())
                await reader.read()  # until the client has closed: a reset could overtake the response
            else:
                body = await reader.readexactly(size) if self.stores_bodies else b""
                await self._pass_on(first, headers, body, reader, writer)
                writer.write_eof()
                await reader.read()

    async def _pass_on(
        self,
        first: str,
        headers: Sequence[Header],
        body: bytes,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        method, path, _ = first.split(" ")
        head = [f"{method} {path.removeprefix(self.prefix)} HTTP/{self.version}"]
        head += [f"{name}: {value}" for name, value in self._change(headers, writer)]
        hub_reader, hub_writer = await asyncio.open_connection("127.0.0.1", self.hub_port)
        hub_writer.write("\r\n".join([*head, "", ""]).encode() + body)
        upload = asyncio.create_task(_copy(reader, hub_writer))
        try:
            await self._return(str(headers), hub_reader, writer)
        finally:
            upload.cancel()
            hub_writer.transport.abort()  # before the await, which may be cancelled
            await asyncio.wait([upload])

    async def _return(self, headers: str, hub_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass the response on. *headers* are those of the request."""
        is_socket = "websocket" in headers
        if self.stores_responses and not is_socket:
            writer.write(await hub_reader.read())
            await writer.drain()
        elif self.cuts_sockets and is_socket:
            writer.write(await hub_reader.readuntil(b"\r\n\r\n"))
            await writer.drain()
        elif self.compresses and "text/event-stream" in headers:
            await _compress(hub_reader, writer)
        else:
            await _copy(hub_reader, writer)

    def _change(self, headers: Sequence[Header], writer: asyncio.StreamWriter) -> list[Header]:
        is_upgrade = self.keep_upgrade and any(name.lower() == "upgrade" for name, _ in headers)
        lost = {"connection", *self.lost_headers}
        if not self.keep_forwarded:
            lost |= {"forwarded", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host"}
        if not self.keep_host:
            lost.add("host")
        if not self.keep_upgrade:
            lost.add("upgrade")
        changed = [(name, value) for name, value in headers if name.lower() not in lost]
        changed.append(("Connection", "upgrade" if is_upgrade else "close"))
        if not self.keep_host:
            changed.append(("Host", f"127.0.0.1:{self.hub_port}"))
        if self.name_client:
            changed += [("X-Forwarded-For", writer.get_extra_info("peername")[0]), ("X-Forwarded-Proto", self.scheme)]
        return changed


async def _compress(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass on the first event of a stream, which comes in a chunk of its own (RFC 9112, section 7.1)."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode().rstrip().split("\r\n")
    head = [line for line in head if not line.lower().startswith("transfer-encoding")]
    writer.write("\r\n".join([*head, "Content-Encoding: gzip", "", ""]).encode())
    size = int(await reader.readline(), 16)
    writer.write(gzip.compress(await reader.readexactly(size)))
    await writer.drain()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()


@asynccontextmanager
async def run_http_proxy(proxy: HttpProxy) -> AsyncIterator[str]:
    """Serve until the end of the context, and yield the address of the proxy."""
    server = await asyncio.start_server(proxy.accept, "127.0.0.1", proxy.port)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield f"http://localhost:{proxy.port}{proxy.prefix}"
    finally:
        server.close()
        for task in proxy.tasks:
            task.cancel()
        await asyncio.gather(*proxy.tasks, return_exceptions=True)
        await asyncio.sleep(0)  # the transports of aborted connections are closed in the next step of the loop
