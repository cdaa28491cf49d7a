"""SIGTERM: the hub shuts down in order, and keeps all accepted messages."""

import asyncio
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from support.hub import AGENTS, Client
from support.process import HubProcess
from support.waiting import eventually

OTHERS = {
    "brief": '''
        """Answers within the time that a shutdown waits: "SECONDS"."""
        import asyncio

        async def brief(message: str):
            yield "begun "
            await asyncio.sleep(float(message))
            yield "ended"
        ''',
    "deaf": '''
        """Never ends, and ignores its cancellation."""
        import asyncio

        async def deaf(message: str):
            yield "what?"
            while True:
                try:
                    await asyncio.sleep(3600)
                except asyncio.CancelledError:
                    pass
        ''',
    "flood": """
        import asyncio

        async def flood(message: str):
            while True:
                yield "x" * 10_000
                await asyncio.sleep(0.01)
        """,
}


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[HubProcess]:
    running = HubProcess(tmp_path)
    for name, code in (AGENTS | OTHERS).items():
        running.agent(f"{name}.py", code)
    await running.start()
    try:
        yield running
    finally:
        await running.kill()


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        yield session


async def connect(http: aiohttp.ClientSession, hub: HubProcess, **cursor: Any) -> Client:
    """Connect a client of the extended protocol that subscribes with *cursor*."""
    ws = await http.ws_connect(f"{hub.url}/api/v1/ws", protocols=("hubbub.v1",), max_msg_size=0)
    client = Client(http, ws)
    await client.send(type="subscribe", **cursor)
    await client.until_type("subscribed")
    return client


@pytest.fixture
def unread_sockets() -> Iterator[list[socket.socket]]:
    sockets = [socket.socket() for _ in range(2)]
    yield sockets
    for sock in sockets:
        sock.close()


async def subscribe_unread(sock: socket.socket, hub: HubProcess, session: str) -> None:
    """Subscribe to a session on a socket that nobody reads."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(sock, ("127.0.0.1", hub.port))
    head = f"GET /api/v1/ws?sessionId={session} HTTP/1.1\r\nHost: 127.0.0.1:{hub.port}\r\n"
    head += "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    await loop.sock_sendall(sock, (head + "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n").encode())


def events(client: Client) -> list[tuple[int, str, str]]:
    """Return the events of the log that the client received."""
    return [(f["seq"], f["type"], f.get("content", f.get("stopReason", ""))) for f in client.frames if "ts" in f]


async def test_a_shutdown_keeps_accepted_messages(
    served: HubProcess, http: aiohttp.ClientSession, unread_sockets: list[socket.socket]
) -> None:
    """Active runs end `aborted`, queued runs start after the restart; sockets close with 1012; the exit code is 0."""
    clients = [await connect(http, served, sessionId="s1") for _ in range(3)]
    first = clients[0]
    for sock in unread_sockets:
        await subscribe_unread(sock, served, "s2")
    await first.send(type="chat", agentId="flood", sessionId="s2", message="")
    await first.send(type="chat", agentId="gated", sessionId="s1", message=str(served.folder / "never"))
    await first.until(lambda f: f.get("content") == "one ")
    queued = [
        {"sessionId": "s1", "clientMsgId": f"c{n}", "message": f"queued {n}", "ifBusy": "enqueue"} for n in range(3)
    ]
    for chat in queued:
        await first.send(type="chat", agentId="echo", **chat)
        accepted = await first.until(lambda f: f["type"] == "accepted" and "clientMsgId" in f)
        assert accepted["status"] == "queued"
    served.signal(signal.SIGTERM)
    codes = await asyncio.gather(*(client.wait_closed() for client in clients))
    assert codes == [1012, 1012, 1012]
    assert await served.wait_until_ended() == 0, served.log
    received = events(clients[1])
    for client in clients:
        mine = [f for f in client.frames if f.get("sessionId") == "s1"]
        assert [f["stopReason"] for f in mine if f["type"] == "run_finished"] == ["aborted"]
        assert any(f["type"] == "draining" for f in client.frames)
    await served.start()
    last = [f for f in clients[1].frames if "ts" in f][-1]
    again = await connect(http, served, sessionId="s1", afterSeq=last["seq"], epoch=last["epoch"])
    while sum(f["type"] == "run_finished" for f in again.frames) < 3:
        await again.next()
    assert again.text() == "queued 0 queued 1 queued 2 "
    whole = await connect(http, served, sessionId="s1", afterSeq=0)
    while sum(f["type"] == "run_finished" for f in whole.frames) < 4:
        await whole.next()
    assert clients[1].text() + again.text() == whole.text() == "one queued 0 queued 1 queued 2 "
    assert {event[0] for event in received}.isdisjoint(event[0] for event in events(again))
    for chat in queued:  # an accepted chat is not answered twice
        await again.send(type="chat", agentId="echo", **chat)
        assert (await again.until_type("accepted"))["status"] == "duplicate"


async def test_a_shutdown_waits_for_a_short_answer_and_refuses_new_chats(
    served: HubProcess, http: aiohttp.ClientSession
) -> None:
    """The client receives the complete answer, then 1012; a chat during the shutdown gets `draining`."""
    client, gate = await connect(http, served, sessionId="s1"), served.folder / "gate"
    await client.send(type="chat", agentId="gated", sessionId="s1", message=str(gate))
    await client.until_type("stream")
    served.signal(signal.SIGTERM)
    await client.until_type("draining")
    await client.send(type="chat", agentId="echo", sessionId="s1", message="me too")
    assert (await client.until_type("error"))["code"] == "draining"
    gate.touch()
    assert (await client.until_type("run_finished"))["stopReason"] == "end_turn"
    assert client.text() == "one two"
    assert await client.wait_closed() == 1012
    assert await served.wait_until_ended() == 0


async def test_a_second_signal_ends_the_drain(served: HubProcess, http: aiohttp.ClientSession) -> None:
    """The running answer is aborted."""
    client = await connect(http, served, sessionId="s1")
    await client.send(type="chat", agentId="brief", sessionId="s1", message="4")
    await client.until_type("stream")
    served.signal(signal.SIGTERM)
    await client.until_type("draining")
    served.signal(signal.SIGTERM)
    assert (await client.until_type("run_finished"))["stopReason"] == "aborted"
    assert await client.wait_closed() == 1012
    assert await served.wait_until_ended() == 0


async def test_an_agent_that_ignores_its_cancellation_does_not_block_the_shutdown(
    served: HubProcess, http: aiohttp.ClientSession
) -> None:
    """Its run ends `aborted`, and the exit code is 0."""
    client = await connect(http, served, sessionId="s1")
    await client.send(type="chat", agentId="deaf", sessionId="s1", message="")
    await client.until_type("stream")
    served.signal(signal.SIGTERM)
    await client.until_type("draining")
    served.signal(signal.SIGTERM)
    assert (await client.until_type("run_finished"))["stopReason"] == "aborted"
    assert await client.wait_closed() == 1012
    assert await served.wait_until_ended() == 0


async def test_an_import_that_never_ends_does_not_block_a_shutdown(tmp_path: Path) -> None:
    """The hub obeys the signal while it executes the agent file."""
    hub = HubProcess(tmp_path)
    hub.agent("endless.py", "import pathlib, time\npathlib.Path('begun').touch()\nwhile True:\n    time.sleep(0.01)\n")
    starting = asyncio.create_task(hub.start())
    try:
        await eventually((tmp_path / "begun").exists)
        hub.signal(signal.SIGTERM)
        assert await hub.wait_until_ended() == 0
    finally:
        await hub.kill()
        await asyncio.wait([starting])
    assert isinstance(starting.exception(), AssertionError)  # it never listened


async def test_a_client_that_disconnects_in_its_handshake_is_not_an_error(
    served: HubProcess, http: aiohttp.ClientSession
) -> None:
    """The hub logs no error for 200 clients that reset their connection at once, on a socket, a stream and a chat."""
    head = f"Host: 127.0.0.1:{served.port}\r\n"
    upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    key = "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
    body = '{"agentId":"echo","message":"x"}'
    requests = (
        f"GET /api/v1/ws HTTP/1.1\r\n{head}{upgrade}{key}\r\n",
        f"GET /api/v1/sessions/s1/events HTTP/1.1\r\n{head}Accept: text/event-stream\r\n\r\n",
        f"POST /api/v1/sessions/s1/chat HTTP/1.1\r\n{head}Accept: text/event-stream\r\n"
        f"Content-Length: {len(body)}\r\n\r\n{body}",
        f"POST /api/v1/sessions/s1/chat?wait=true HTTP/1.1\r\n{head}Content-Length: {len(body)}\r\n\r\n{body}",
    )
    for number in range(200):
        with socket.create_connection(("127.0.0.1", served.port)) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # close with a reset
            sock.sendall(requests[number % len(requests)].encode())
    client = await connect(http, served, sessionId="s2")
    await client.send(type="chat", agentId="echo", sessionId="s2", message="x")
    await client.until_type("run_finished")
    served.signal(signal.SIGTERM)
    assert await served.wait_until_ended() == 0
    assert "failed" not in served.log and "Traceback" not in served.log and "error" not in served.log


HOLDERS = {
    "thread": """
        import threading, time

        def sleep() -> None:
            while True:
                time.sleep(1)

        async def thread(message: str):
            threading.Thread(target=sleep).start()
            yield "begun"
        """,
    "pool": """
        import asyncio, time

        async def pool(message: str):
            for _ in range(3):
                asyncio.get_running_loop().run_in_executor(None, time.sleep, 3600)
            yield "begun"
        """,
    "child": """
        import multiprocessing, os, pathlib, time

        def wait() -> None:
            for descriptor in (0, 1, 2):
                os.dup2(os.open(os.devnull, os.O_RDWR), descriptor)
            while not pathlib.Path("gate").exists():
                time.sleep(0.01)

        async def child(message: str):
            multiprocessing.get_context("fork").Process(target=wait).start()
            yield "begun"
        """,
    "plain": """
        import time

        def plain(message: str):
            yield "begun"
            while True:
                time.sleep(1)
        """,
}


@pytest.mark.parametrize("name", HOLDERS)
async def test_threads_and_children_of_agents_do_not_block_the_shutdown(
    tmp_path: Path, http: aiohttp.ClientSession, name: str
) -> None:
    """The exit code is 0 although a thread, a thread of asyncio, a child or a plain function never ends."""
    hub = HubProcess(tmp_path)
    hub.agent(f"{name}.py", HOLDERS[name])
    # The hub waits 0.7 s for the runs, and 0.3 s for the code of the aborted ones; 7 s are left for the rest.
    await hub.start(limits_drain_seconds=8, limits_grace_seconds=0.3, limits_close_seconds=3.5)
    try:
        client = await connect(http, hub, sessionId="s1")
        await client.send(type="chat", agentId=name, sessionId="s1", message="")
        await client.until_type("stream")
        hub.signal(signal.SIGTERM)
        assert await client.wait_closed() == 1012
        assert await hub.wait_until_ended() == 0, hub.log
        assert "Stopped." in hub.log
    finally:
        (tmp_path / "gate").touch()
        await hub.kill()


async def test_a_second_signal_skips_the_grace_period(tmp_path: Path, http: aiohttp.ClientSession) -> None:
    """The hub does not wait for an agent that ignores its cancellation: here the grace period is very long."""
    hub = HubProcess(tmp_path)
    hub.agent("deaf.py", OTHERS["deaf"])
    await hub.start(limits_drain_seconds=1000, limits_grace_seconds=900)
    try:
        client = await connect(http, hub, sessionId="s1")
        await client.send(type="chat", agentId="deaf", sessionId="s1", message="")
        await client.until_type("stream")
        hub.signal(signal.SIGTERM)
        await client.until_type("draining")
        hub.signal(signal.SIGTERM)
        assert (await client.until_type("run_finished"))["stopReason"] == "aborted"
        assert await client.wait_closed() == 1012
        assert await hub.wait_until_ended() == 0
    finally:
        await hub.kill()


BLOCKER = '''
"""Blocks the event loop."""
import time

async def blocker(message: str):
    yield "begun"
    open("begun", "w").close()
    while True:
        time.sleep(0.1)
'''


def interrupt(hub: HubProcess) -> bool:
    """Send SIGINT; return whether the process has ended."""
    if hub.running:
        hub.signal(signal.SIGINT)
    return not hub.running


@pytest.mark.parametrize(
    ("drain", "grace", "numbers"),
    [
        (0.5, 900, [signal.SIGINT]),
        (1000, 0.5, [signal.SIGINT, signal.SIGTERM]),
        (1000, 900, [signal.SIGINT, signal.SIGTERM]),
    ],
)
async def test_an_agent_that_blocks_the_event_loop_does_not_block_the_shutdown(
    tmp_path: Path, drain: float, grace: float, numbers: list[signal.Signals]
) -> None:
    """The first signal ends it after `drain_seconds`, the second after `grace_seconds`, the third at once."""
    hub = HubProcess(tmp_path)
    hub.agent("blocker.py", BLOCKER)
    await hub.start(limits_drain_seconds=drain, limits_grace_seconds=grace)
    try:
        async with aiohttp.ClientSession() as http:
            client = await connect(http, hub, sessionId="s1")
            await client.send(type="chat", agentId="blocker", sessionId="s1", message="")
            await eventually((tmp_path / "begun").exists)
            for number in numbers:
                hub.signal(number)
            if drain == 1000 and grace == 900:  # the system may merge a signal with an equal one that waits
                await eventually(lambda: interrupt(hub))
            assert await hub.wait_until_ended() == 1
            assert "could not end in order" in hub.log
    finally:
        await hub.kill()
