"""The accept loop: caps on connections before the HTTP server reads from them, and failures of accept()."""

import asyncio
import errno
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
import structlog
from aiohttp import web
from support.process import HubProcess, needs_prlimit
from support.sockets import HttpConnection
from support.waiting import PATIENCE, eventually

from hub.limits import Limits
from hub.observe.counters import DoorCounters
from hub.settings import Settings
from hub.web import connection_handler
from hub.web.accepting import MAX_REFUSED_SOCKETS, Acceptor, make_acceptor
from hub.web.connection_caps import (
    ADDRESS_REFUSAL,
    NODE_REFUSAL,
    RATE_REFUSAL,
    SHARE_REFUSAL,
    ConnectionCaps,
    find_source,
)

MANY = 1_000_000


def caps(trusted_proxies: tuple[str, ...] = (), **limits: int) -> ConnectionCaps:
    """Return caps of which only the given ones apply."""
    defaults = dict.fromkeys(("address_connections", "node_connections", "new_connections_per_second"), MANY)
    return ConnectionCaps(Limits(**(defaults | limits)), trusted_proxies)


@pytest.fixture
async def process(tmp_path: Path) -> AsyncIterator[HubProcess]:
    running = HubProcess(tmp_path)
    try:
        yield running
    finally:
        await running.kill()


# --- counts -----------------------------------------------------------------------------------------------------------


def test_an_address_has_a_limit_of_connections() -> None:
    """Another address has its own, and a closed connection makes place for one."""
    three = caps(address_connections=3)
    assert [three.admit("192.0.2.1", 0.0) for _ in range(4)] == [None, None, None, ADDRESS_REFUSAL]
    assert three.admit("192.0.2.2", 0.0) is None
    three.leave("192.0.2.1")
    assert [three.admit("192.0.2.1", 0.0) for _ in range(2)] == [None, ADDRESS_REFUSAL]


def test_the_limit_of_an_address_does_not_apply_to_a_trusted_proxy() -> None:
    """Its connections belong to many clients; the limit of the hub applies to them."""
    three = caps(("192.0.2.0/24",), address_connections=1, node_connections=3)
    assert [three.admit("192.0.2.1", 0.0) for _ in range(4)] == [None, None, None, NODE_REFUSAL]
    three.leave("192.0.2.1")
    assert [three.admit("198.51.100.1", 0.0) for _ in range(2)] == [None, ADDRESS_REFUSAL]


def test_the_hub_has_a_limit_of_connections() -> None:
    three = caps(node_connections=3)
    assert [three.admit(f"192.0.2.{number}", 0.0) for number in range(4)] == [None, None, None, NODE_REFUSAL]
    three.leave("192.0.2.0")
    assert [three.admit(f"192.0.2.{number}", 0.0) for number in range(2)] == [None, NODE_REFUSAL]


def test_the_limit_of_new_connections_does_not_apply_to_a_trusted_proxy() -> None:
    """A page of the console has dozens of files, and many proxies open a connection for each."""
    one = caps(("192.0.2.0/24",), new_connections_per_second=1)
    assert [one.admit("192.0.2.9", 0.0) for _ in range(3)] == [None, None, None]
    assert [one.admit(f"198.51.100.{number}", 0.0) for number in range(2)] == [None, RATE_REFUSAL]


def test_the_hub_has_a_limit_of_new_connections_per_second() -> None:
    """Closed connections count, refused ones do not: a flood does not lengthen its own punishment."""
    four, addresses = caps(new_connections_per_second=4), [f"192.0.2.{number}" for number in range(100)]
    assert [four.admit(address, 10.0) for address in addresses[:5]] == [None] * 4 + [RATE_REFUSAL]
    four.leave("192.0.2.1")
    assert [four.admit(address, 10.2) for address in addresses] == [RATE_REFUSAL] * 100
    assert [four.admit(address, 10.25) for address in addresses[5:7]] == [None, RATE_REFUSAL]
    assert [four.admit(address, 99.0) for address in addresses[:5]] == [None] * 4 + [RATE_REFUSAL]


@pytest.mark.parametrize(("rate", "share"), [(1, 1), (4, 2), (5, 3), (100, 50)])
def test_an_address_has_half_of_the_new_connections(rate: int, share: int) -> None:
    """So it does not lock others out. Its closed connections count for a second, and its refused ones do not."""
    shared = caps(("203.0.113.1",), new_connections_per_second=rate)
    for start in (10.0, 11.0):
        for _ in range(share):
            assert shared.admit("192.0.2.1", start) is None
            shared.leave("192.0.2.1")
        assert [shared.admit("192.0.2.1", start + 0.9) for _ in range(3)] == [SHARE_REFUSAL] * 3
        assert shared.admit("203.0.113.1", start + 0.9) is None
        if rate > 1:
            assert shared.admit("192.0.2.2", start + 0.9) is None


def test_new_connections_are_forgotten_after_a_second() -> None:
    """The table does not grow with the addresses that were seen."""
    open_caps = caps()
    for number in range(1000):
        assert open_caps.admit(f"10.0.{number // 256}.{number % 256}", float(number)) is None
    assert len(open_caps._window) == len(open_caps._new_by_source) == 1


def test_counts_are_forgotten_with_their_last_connection() -> None:
    """The table does not grow with the addresses that were seen."""
    open_caps = caps()
    for number in range(1000):
        address = f"10.0.{number // 256}.{number % 256}"
        assert open_caps.admit(address, 0.0) is None
        open_caps.leave(address)
    assert not open_caps._sources and open_caps._total == 0


@pytest.mark.parametrize(
    ("address", "source"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("2001:db8:1:2:ffff::1", "2001:db8:1:2::"),
        ("2001:db8:1:3::1", "2001:db8:1:3::"),
        ("fe80::1%eth0", "fe80::"),
        ("::1", "::1"),
        ("", ""),
    ],
)
def test_a_network_of_ipv6_counts_as_one_address(address: str, source: str) -> None:
    """A client can use all addresses of its network."""
    assert find_source(address) == source


def test_without_sign_in_there_are_no_caps() -> None:
    """Then only this machine can connect, and its programs may open thousands."""
    server: Any = None
    assert make_acceptor(Settings(), server, [], DoorCounters()).caps is None
    assert make_acceptor(Settings(sign_in=True), server, [], DoorCounters()).caps is not None


# --- real connections -------------------------------------------------------------------------------------------------


async def open_when_possible(port: int, stack: AsyncExitStack) -> HttpConnection:
    """Connect again and again, until the hub has noticed that the last connection was lost, and has answered a request.

    The hub may also close a connection after header_seconds, before the request comes.
    """
    while True:
        connection = await HttpConnection.open(port, stack)
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            if await connection.get_health() == 200:
                return connection


async def test_a_closed_connection_makes_place_for_another(process: HubProcess) -> None:
    """Whether the client closes it, resets it, or the hub closes it; also a WebSocket."""
    await process.start(sign_in=True, limits_address_connections=1, limits_header_seconds=0.2)
    for round in range(8):
        async with AsyncExitStack() as stack:
            connection = await open_when_possible(process.port, stack)
            if round % 4 == 0:
                connection.writer.close()
            elif round % 4 == 1:
                sock = connection.writer.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # close with a reset
                connection.writer.transport.abort()
            elif round % 4 == 2:
                assert await connection.read_to_end() == b""  # the hub closes it after header_seconds
            else:
                connection.writer.write(b"rubbish\r\n\r\n")
                assert (await connection.read_to_end()).startswith(b"HTTP/1.0 400")


async def test_without_sign_in_connections_are_not_limited(process: HubProcess) -> None:
    limits = dict.fromkeys(
        ("limits_address_connections", "limits_node_connections", "limits_new_connections_per_second"), 1
    )
    await process.start(**limits)
    async with AsyncExitStack() as stack:
        connections = [await HttpConnection.open(process.port, stack) for _ in range(20)]
        assert [await connection.get_health() for connection in connections] == [200] * 20


async def test_refused_sockets_are_few_and_do_not_stay(process: HubProcess) -> None:
    """A flood of connections that are refused costs a bounded number of descriptors, and a client is served."""
    await process.start(sign_in=True, limits_address_connections=1)
    descriptors = Path(f"/proc/{process.pid}/fd")
    async with AsyncExitStack() as stack:
        first = await HttpConnection.open(process.port, stack)
        assert await first.get_health() == 200
        count = len(list(descriptors.iterdir())) if descriptors.exists() else 0
        refused = [await HttpConnection.open(process.port, stack) for _ in range(5 * MAX_REFUSED_SOCKETS)]
        for connection in refused[:-MAX_REFUSED_SOCKETS]:
            assert (await connection.read_to_end()).startswith(b"HTTP/1.1 429 ")
        if descriptors.exists():
            assert len(list(descriptors.iterdir())) <= count + MAX_REFUSED_SOCKETS + 2
        assert await first.get_health() == 200
        if descriptors.exists():
            await eventually(lambda: len(list(descriptors.iterdir())) <= count)


# --- failures and the stop --------------------------------------------------------------------------------------------


@pytest.fixture
async def runner() -> AsyncIterator[web.ServerRunner]:
    """A server that answers each request with OK."""

    async def answer(request: web.BaseRequest) -> web.Response:
        return web.Response(text="OK")

    running = web.ServerRunner(web.Server(answer), shutdown_timeout=PATIENCE)
    await running.setup()
    yield running
    await running.cleanup()


class FullSocket(socket.socket):
    """A listening socket whose accept() fails while *is_full*, as if the process had no free descriptor."""

    is_full = True
    calls = 0

    def accept(self) -> tuple[socket.socket, Any]:
        self.calls += 1
        if self.is_full:
            raise OSError(errno.EMFILE, "Too many open files")
        return super().accept()


async def test_a_failed_accept_is_tried_again_after_a_pause(runner: web.ServerRunner) -> None:
    """It neither ends the loop nor fills the log nor takes the event loop's time."""
    with FullSocket() as sock, structlog.testing.capture_logs() as lines:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        assert runner.server is not None
        acceptor = Acceptor(server=runner.server, sockets=[sock], caps=None, header_seconds=PATIENCE)
        acceptor.start()
        async with AsyncExitStack() as stack:
            connection = await HttpConnection.open(sock.getsockname()[1], stack)
            await eventually(lambda: sock.calls)
            for _ in range(100):
                await asyncio.sleep(0)
            assert sock.calls == 1
            sock.is_full = False
            assert await connection.get_health() == 200
        await acceptor.stop()
    assert [(line["event"], line["reason"]) for line in lines] == [("no connection accepted", "Too many open files")]


async def begin_stop(acceptor: Acceptor, runner: web.ServerRunner) -> "asyncio.Task[None]":
    """Stop accepting connections, and begin to close those that are open."""
    await acceptor.stop()
    closing = asyncio.create_task(runner.cleanup())
    for _ in range(20):
        await asyncio.sleep(0)
    return closing


@pytest.mark.parametrize("seconds", [0.0, PATIENCE])
async def test_a_connection_of_the_last_moment_gets_its_response(
    runner: web.ServerRunner, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    """The hub accepts it, and goes down before it reads the request. The time for the request is limited."""
    monkeypatch.setattr(connection_handler, "FIRST_REQUEST_SECONDS", seconds)
    assert runner.server is not None
    sock = socket.create_server(("127.0.0.1", 0))
    acceptor = Acceptor(server=runner.server, sockets=[sock], caps=None, header_seconds=PATIENCE)
    acceptor.start()
    async with AsyncExitStack() as stack:
        connection = await HttpConnection.open(sock.getsockname()[1], stack)
        await eventually(lambda: runner.server is not None and runner.server.connections)
        closing = await begin_stop(acceptor, runner)
        if seconds:
            assert not closing.done() and await connection.get_health() == 200
        assert await connection.read_to_end() == b""
        await asyncio.wait_for(closing, PATIENCE)


@needs_prlimit
async def test_a_hub_without_free_descriptors_serves_its_clients_and_recovers(process: HubProcess) -> None:
    """Connections wait in the queue until a descriptor is free. The log has one line."""
    from resource import RLIMIT_NOFILE, prlimit

    await process.start()
    async with AsyncExitStack() as stack:
        first = await HttpConnection.open(process.port, stack)
        assert await first.get_health() == 200
        numbers = [int(path.name) for path in Path(f"/proc/{process.pid}/fd").iterdir()]
        _, hard = prlimit(process.pid, RLIMIT_NOFILE)
        prlimit(process.pid, RLIMIT_NOFILE, (max(numbers) + 6, hard))
        free = max(numbers) + 6 - len(numbers)
        many = [await HttpConnection.open(process.port, stack) for _ in range(free + 3)]
        await eventually(lambda: "no connection accepted" in process.log)
        assert await first.get_health() == 200
        for connection in many[:-1]:
            connection.writer.transport.abort()
        assert await many[-1].get_health() == 200
    assert process.log.count("no connection accepted") == 1


async def test_a_stopping_hub_accepts_no_connection(process: HubProcess) -> None:
    """Its listening sockets are closed at once, while a client waits for the end of its answer."""
    process.agent(
        "slow.py",
        """
        import asyncio

        async def slow(message: str):
            yield "begun"
            await asyncio.sleep(60)
        """,
    )
    await process.start()
    async with AsyncExitStack() as stack:
        chat = await HttpConnection.open(process.port, stack)
        body = b'{"agentId":"slow","message":"x"}'
        head = f"Host: localhost\r\nAccept: text/event-stream\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        chat.writer.write(b"POST /api/v1/sessions/s1/chat HTTP/1.1\r\n" + head + body)
        async with asyncio.timeout(PATIENCE):
            await chat.reader.readuntil(b"begun")
        process.signal(signal.SIGTERM)
        async with asyncio.timeout(PATIENCE):  # less than the time of the answer
            with pytest.raises(ConnectionRefusedError):
                while True:
                    await HttpConnection.open(process.port, stack)
        process.signal(signal.SIGTERM)
        assert b"run_finished" in await chat.read_to_end()
    assert await process.wait_until_ended() == 0
