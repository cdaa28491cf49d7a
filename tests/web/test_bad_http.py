"""Bytes that are no correct HTTP, and slow sockets: the hub answers them, repeats nothing, and serves others meanwhile.

tests/torture/test_bad_http.py sends more of them.
"""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import pytest
from support.bad_http import BAD_REQUESTS, attack, check_survival, read_answer
from support.process import HubProcess
from support.sockets import HttpConnection
from support.waiting import PATIENCE

SLOW_SOCKETS = 500
HALF = b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: "
SLOW_STARTS = (b"", b"GET", HALF, HALF + b"a\r\n", b"\r\n")


@pytest.fixture
async def process(tmp_path: Path) -> AsyncIterator[HubProcess]:
    running = HubProcess(tmp_path)
    try:
        yield running
    finally:
        await running.kill()


async def test_bad_http_gets_a_status_and_nothing_is_repeated(process: HubProcess) -> None:
    """Of each kind some. The process is the same afterwards, and its log has one line about them."""
    await process.start()
    pid = process.pid
    for name in BAD_REQUESTS:
        await attack(process, name, 3)
    await check_survival(process, pid)


async def drip(connection: HttpConnection, start: bytes) -> bytes:
    """Send a start, then single bytes without an end, until the hub closes the connection; return its bytes."""
    connection.writer.write(start)
    reading = asyncio.create_task(connection.read_to_end())
    while not reading.done():
        with suppress(ConnectionError):
            connection.writer.write(b"a" if start.startswith(b"GET /") else b"")
        await asyncio.wait([reading], timeout=0.1)
    try:
        return reading.result()
    except ConnectionError:  # it was reset, because a byte came after its close
        return b""


async def test_slow_sockets_are_closed_and_others_are_served_meanwhile(process: HubProcess) -> None:
    """They send nothing, a part of a request, or one byte after the other; a good client gets all its answers."""
    await process.start(limits_header_seconds=1.5)
    async with AsyncExitStack() as stack:
        sockets = [await HttpConnection.open(process.port, stack) for _ in range(SLOW_SOCKETS)]
        slow = asyncio.gather(
            *(drip(one, SLOW_STARTS[number % len(SLOW_STARTS)]) for number, one in enumerate(sockets))
        )
        statuses = []
        while not slow.done():
            async with AsyncExitStack() as good:
                statuses.append(await (await HttpConnection.open(process.port, good)).get_health())
            await asyncio.wait([slow], timeout=0.1)
        assert set(await slow) == {b""}
    assert set(statuses) == {200}


async def test_a_body_that_does_not_come_is_given_up(process: HubProcess) -> None:
    """Slow bodies hold no connection either, and get a status."""
    await process.start(limits_body_seconds=0.5)
    head = b"POST /api/v1/sessions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\n{"
    responses = await asyncio.gather(*(read_answer(process.port, head) for _ in range(100)))
    assert {response.split()[1] for response in responses} == {b"408"}


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have one loopback address: run it on Linux")
async def test_slow_sockets_of_one_address_do_not_keep_out_another(process: HubProcess) -> None:
    """With sign-in, the hub holds a limited number of them, and answers the others at once."""
    await process.start(sign_in=True, limits_header_seconds=PATIENCE, limits_new_connections_per_second=10_000)
    async with AsyncExitStack() as stack:
        sockets = [await HttpConnection.open(process.port, stack) for _ in range(SLOW_SOCKETS)]
        refused = await asyncio.gather(*(one.read_to_end() for one in sockets[64:]))
        assert {response.split()[1] for response in refused} == {b"429"}
        assert await sockets[0].get_health() == 200
        reader, writer = await asyncio.open_connection("127.0.0.1", process.port, local_addr=("127.0.0.2", 0))
        stack.callback(writer.transport.abort)
        assert await HttpConnection(reader, writer).get_health() == 200
