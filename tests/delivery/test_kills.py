"""Clients resume after their sockets are killed at random: the short version of tests/torture."""

import asyncio
from pathlib import Path

from support.kills import kills_lose_nothing
from support.proxy import Fate, Proxy
from support.waiting import PATIENCE


async def test_clients_with_killed_sockets_get_the_exact_text_of_the_agent(tmp_path: Path) -> None:
    """30 kills, 15 clients, plain and extended, early and late: each text equals the agent's, and each seq rises."""
    await kills_lose_nothing(tmp_path, sessions=5, clients=3, chunks=200, seconds=3.0, each=2)


async def test_the_proxy_forwards_all_data_after_a_half_close() -> None:
    """After the half-close of the client, the server still sends, and the client gets all of its bytes."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"123456")
        await reader.read()
        writer.write(b"789")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    target = server.sockets[0].getsockname()
    fate = Fate("half_close", at_byte=3, seconds=PATIENCE, to_hub=True, half_closed=PATIENCE)
    proxy = await Proxy(lambda: target, [fate]).start()
    try:
        async with asyncio.timeout(PATIENCE):
            reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
            assert await reader.read() == b"123456789"
            writer.close()
    finally:
        await proxy.stop()
        server.close()
