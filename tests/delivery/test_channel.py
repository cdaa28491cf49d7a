"""The indexes of a channel stay consistent, and a probe decides whether direct writes are safe."""

import asyncio
import random
import socket
from typing import Any

import pytest
from support.hub import Client, Hub
from support.waiting import eventually

from hub.delivery.write_probe import CallbackRecorder, are_direct_writes_safe
from hub.ids import Key


def check(hub: Hub) -> None:
    """Assert that the indexes of all channels are consistent."""
    for session in hub.node.sessions.values():
        session.channel.check()


ACTIONS: tuple[dict[str, Any], ...] = (
    {"type": "subscribe", "sessionId": "s1"},
    {"type": "subscribe", "sessionId": "s1", "afterSeq": 0},
    {"type": "subscribe", "agentId": "echo"},
    {"type": "unsubscribe", "sessionId": "s1"},
    {"type": "unsubscribe", "agentId": "echo"},
    {"type": "chat", "agentId": "echo", "sessionId": "s1", "message": "a b c d"},
    {"type": "chat", "agentId": "echo", "sessionId": "s1", "message": "a b c d", "stream": False},
    {"type": "hello"},
    {"type": "cancel", "sessionId": "s1"},
)


@pytest.mark.parametrize("seed", range(8))
async def test_the_indexes_are_consistent_after_each_step_of_the_loop(hub: Hub, seed: int) -> None:
    """Clients of all protocols subscribe, unsubscribe, chat and disconnect at random during answers."""
    chance = random.Random(seed)
    hub.options = {"frames_per_second": 0}
    await hub.start(first_page_rows=2, page_rows=3)
    loop, checks, failures = asyncio.get_running_loop(), [0], list[BaseException]()

    def between() -> None:
        try:
            check(hub)
        except AssertionError as error:
            failures.append(error)
        checks[0] += 1
        if checks[0] > 0:
            loop.call_soon(between)

    loop.call_soon(between)
    queries = ("", "?sessionId=s1", "?sessionId=s1&stream=false", "?sessionId=s1&afterSeq=0")
    clients: list[Client] = []
    for _ in range(60):
        if len(clients) < 4 or chance.random() < 0.2:
            protocols = chance.choice(((), ("hubbub.v1",), ("hubbub.events",)))
            clients.append(await hub.connect(chance.choice(queries), protocols=protocols))
        client = chance.choice(clients)
        if chance.random() < 0.15:
            clients.remove(client)
            await client.close()
        else:
            await client.send(**chance.choice(ACTIONS))
    await eventually(
        lambda: not any(session.active_runs or session.queued_runs for session in hub.node.sessions.values())
    )
    check_count, checks[0] = checks[0], -(10**9)
    assert not failures and check_count > 60


async def test_check_finds_a_broken_index(hub: Hub) -> None:
    """Each fault is one that a missing line of code would cause."""
    await hub.start()
    await hub.connect("?sessionId=s1", extended=True)
    await hub.wait_until_live("s1", 1)
    channel = hub.node.sessions[Key("s1")].channel
    (sub,) = channel.subscriptions
    channel.paged_subscriptions.add(sub)
    with pytest.raises(AssertionError, match="must have one state"):
        channel.check()
    channel.paged_subscriptions.clear()
    (descriptors,) = channel.live_descriptors.values()
    descriptors[sub] = -7
    with pytest.raises(AssertionError):
        channel.check()
    channel.update_descriptor(sub)
    channel.check()
    channel.subscriptions.clear()
    with pytest.raises(AssertionError, match="still in an index"):
        channel.check()
    channel.subscriptions.add(sub)


async def test_direct_writes_are_safe_with_this_event_loop() -> None:
    """The transports of asyncio and of uvloop call pause_writing() in time."""
    assert await are_direct_writes_safe()


async def test_without_pause_writing_the_hub_uses_no_direct_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The probe at the start detects such an event loop within a short time."""
    monkeypatch.setattr(CallbackRecorder, "pause_writing", lambda self: None)
    monkeypatch.setattr("hub.delivery.write_probe.PROBE_SECONDS", 0.05)
    assert not await are_direct_writes_safe()
    near, far = socket.socketpair()  # the probe forgot its descriptors: these sockets can get the same numbers
    near.close()
    far.close()


async def test_with_direct_writes_off_all_frames_go_through_the_transports(hub: Hub) -> None:
    """The setting direct_writes turns them off. The answers are the same."""
    hub.options = {"direct_writes": False}
    await hub.start()
    client = await hub.connect("?sessionId=s1")
    await client.send(type="chat", agentId="echo", sessionId="s1", message="hello there")
    await client.until_done()
    (connection,) = hub.node.registry.connections
    assert (
        client.text() == "hello there "
        and connection.transport.write_descriptor == connection.transport.socket_descriptor == -1
    )
    assert connection.transport.written_bytes > 100
