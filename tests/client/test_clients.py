"""Both client libraries under the same faults, each in a driver program, with a proxy in front of a real hub."""

import asyncio
import random
import shutil
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import attrs
import pytest
from support import babble
from support.drivers import Driver
from support.hub import Hub
from support.kills import seed
from support.process import HubProcess
from support.proxy import Fate, Proxy
from support.scripted import Peer, Script, scripted
from support.waiting import PATIENCE

from hub.access.principal import OPERATOR
from hub.commands import table as commands
from hub.days import DAY_MS
from hub.messages.codes import CLOSE_TEXTS
from hub.seams import Seams

LONG = 3 * PATIENCE  # for a whole answer through many reconnects


def complete_texts(driver: Driver, session: str = "s1") -> dict[str, str]:
    """Return the text of each message. Fails if an event is duplicate, out of order, or missing."""
    texts: dict[str, str] = {}
    seq, epoch = 0, None
    for event in driver.events(session):
        assert epoch in (None, event["epoch"]), (epoch, event)
        assert event["seq"] == seq + 1 or (event["type"] == "stream" and event["seq"] > seq), (seq, event)
        seq, epoch = event["seq"], event["epoch"]
        if event["type"] == "stream":
            assert event["offset"] == len(texts.get(event["messageId"], "")), event
            texts[event["messageId"]] = texts.get(event["messageId"], "") + event["content"]
        elif event["type"] == "message_removed":
            for message in event["messageIds"]:
                texts.pop(message, None)
    return texts


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[HubProcess]:
    """A hub in its own process, with the agents of the tests."""
    hub = HubProcess(tmp_path)
    hub.agent("echo.py", "async def echo(message: str):\n    for word in message.split():\n        yield word + ' '\n")
    hub.agent("babble.py", Path(babble.__file__).read_text(encoding="utf-8"))
    hub.agent(
        "gated.py",
        """
        import asyncio, pathlib

        async def gated(message: str):
            yield "one "
            while not pathlib.Path(message).exists():
                await asyncio.sleep(0.01)
            yield "two"
        """,
    )
    try:
        yield await hub.start()
    finally:
        await hub.kill()


@asynccontextmanager
async def proxied(port: Callable[[], int], *fates: Fate) -> AsyncIterator[Proxy]:
    proxy = await Proxy(lambda: ("127.0.0.1", port()), fates).start()
    try:
        yield proxy
    finally:
        await proxy.stop()


async def test_chat_and_ask_get_answers(driver: Driver, server: HubProcess) -> None:
    """A chat gets the events of its run, up to the end. `ask` returns the complete text."""
    await driver.join(server.port, "echo")
    await driver.do("chat", id=1, sessionId="s1", message="hello there")
    assert (await driver.until("chat-end", id=1))["text"] == "hello there "
    chat_events = [line["event"] for line in driver.lines if line["kind"] == "chat-event"]
    assert chat_events[0]["type"] == "run_started" and chat_events[-1]["type"] == "run_finished"
    assert len({event["runId"] for event in chat_events}) == 1
    await driver.do("ask", id="q", sessionId="s1", message="how are you")
    assert (await driver.until("answer", id="q"))["text"] == "how are you "
    while [event["type"] for event in driver.events()].count("run_finished") < 2:
        await driver.until("event")
    assert list(complete_texts(driver).values()) == ["hello there ", "how are you "]
    await driver.close()


async def test_an_event_in_several_frames_is_one_event_for_the_user(driver: Driver, hub: Hub) -> None:
    """A long user message, and a long answer that the agent returned in one piece."""
    hub.agent("repeat.py", "def repeat(message: str):\n    return message")
    await hub.start(out_frame_bytes=4096)
    text = "".join(f"{n}\N{GRINNING FACE}" for n in range(2000))
    await driver.join(hub.port, "repeat")
    await driver.do("chat", id=1, sessionId="s1", message=text)
    assert (await driver.until("chat-end", id=1))["text"] == text
    await driver.until_event("run_finished")
    events = {event["type"]: event for event in driver.events()}
    assert events["user_message"]["content"] == text and "more" not in events["user_message"]
    assert list(complete_texts(driver).values()) == [text]
    await driver.close()


async def test_a_client_with_killed_sockets_gets_the_exact_text_of_the_agent(
    driver: Driver, server: HubProcess
) -> None:
    """8 kills of its sockets during answers, of each kind: no event is duplicate or missing."""
    chance = random.Random(seed())
    fates = [Fate.draw(chance, most_bytes=8_000) for _ in range(8)]
    wanted = "".join(babble.chunks("7", 400))
    async with proxied(lambda: server.port, *fates) as proxy:
        await driver.do("connect", url=f"ws://127.0.0.1:{proxy.port}/api/v1/ws")
        await driver.do("session", sessionId="s1", agent="babble", afterSeq=0)
        for number in range(10):
            await driver.do("chat", id=number, sessionId="s1", message="7 400 2")
            assert (await driver.until("chat-end", id=number))["text"] == wanted
            if not proxy.remaining_fates:
                break
        assert proxy.strikes == 8
        ends = driver.count("chat-end")
        while sum(event["type"] == "run_finished" for event in driver.events()) < ends:
            await driver.until("event")
        assert list(complete_texts(driver).values()) == [wanted] * ends
        assert not driver.count("error") and not driver.count("reset")
        await driver.close()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["kill -9", "SIGTERM"])
async def test_the_client_survives_a_restart_of_the_hub(driver: Driver, server: HubProcess, number: int) -> None:
    """An answer that the restart interrupts has one end. The restarted hub answers the queued chats."""
    async with proxied(lambda: server.port) as proxy:
        await driver.join(proxy.port, "gated")
        never = server.folder / "never"
        await driver.do("chat", id="cut", sessionId="s1", message=str(never))
        await driver.until_event("stream")
        go = server.folder / "go"
        go.touch()
        await driver.do("chat", id="next", sessionId="s1", message=str(go))
        while (await driver.until_event("user_message"))["content"] != str(go):
            pass
        server.signal(number)
        if number == signal.SIGTERM:
            server.signal(number)  # after the second signal the hub does not wait for the answer
        await server.wait_until_ended()
        await driver.do("chat", id="meanwhile", sessionId="s1", message=str(go))
        await server.start()
        assert (await driver.until("chat-end", id="cut"))["text"] == "one "
        assert (await driver.until("chat-end", id="next"))["text"] == "one two"
        assert (await driver.until("chat-end", id="meanwhile"))["text"] == "one two"
        while sum(event["type"] == "run_finished" for event in driver.events()) < 3:
            await driver.until("event")
        assert list(complete_texts(driver).values()) == ["one ", "one two", "one two"]
        ends = [event["stopReason"] for event in driver.events() if event["type"] == "run_finished"]
        assert ends == ["aborted", "end_turn", "end_turn"]
        await driver.close()


async def test_a_chat_gets_an_end_that_came_while_it_was_disconnected(driver: Driver, server: HubProcess) -> None:
    """The answer ends before the client reconnects. The iteration continues where it was."""
    gate = server.folder / "gate"
    async with proxied(lambda: server.port) as proxy:
        await driver.join(proxy.port, "gated")
        await driver.do("chat", id=1, sessionId="s1", message=str(gate))
        await driver.until_event("stream")
        target, proxy.target = proxy.target, lambda: ("127.0.0.1", 1)  # nothing listens there
        for link in proxy.links:
            link.reset()
        await driver.until("state", state="waiting")
        gate.touch()
        await wait_until_idle(server, "s1")
        proxy.target = target
        assert (await driver.until("chat-end", id=1))["text"] == "one two"
        await driver.close()


async def wait_until_idle(server: HubProcess, session: str) -> None:
    """Wait until no run is active in the session."""
    async with asyncio.timeout(PATIENCE), aiohttp.ClientSession() as http:
        while True:
            async with http.get(f"{server.url}/api/v1/sessions/{session}") as response:
                if (await response.json())["state"] == "idle":
                    return


async def test_two_chats_with_the_same_id_are_answered_once(driver: Driver, server: HubProcess) -> None:
    """Both chats get the same answer, and the session has one user message."""
    await driver.join(server.port, "echo")
    await driver.do("chat", id=1, sessionId="s1", message="hello there", clientMsgId="c1")
    assert (await driver.until("chat-end", id=1))["text"] == "hello there "
    await driver.do("chat", id=2, sessionId="s1", message="hello there", clientMsgId="c1")
    assert (await driver.until("chat-end", id=2))["text"] == "hello there "
    await driver.do("ask", id=3, sessionId="s1", message="last")
    await driver.until("answer", id=3)
    while sum(event["type"] == "run_finished" for event in driver.events()) < 2:
        await driver.until("event")
    contents = [event["content"] for event in driver.events() if event["type"] == "user_message"]
    assert contents == ["hello there", "last"]
    await driver.close()


async def test_the_same_id_with_another_message_is_refused(driver: Driver, server: HubProcess) -> None:
    """The error belongs to the second chat, and no run starts."""
    await driver.join(server.port, "echo")
    await driver.do("chat", id=1, sessionId="s1", message="hello", clientMsgId="c1")
    await driver.until("chat-end", id=1)
    await driver.do("chat", id=2, sessionId="s1", message="goodbye", clientMsgId="c1")
    assert (await driver.until("error", id=2))["code"] == "id_reused"
    await driver.close()


async def test_a_chat_that_is_cancelled_at_once_has_one_end(driver: Driver, server: HubProcess) -> None:
    """A cancel directly after the chat ends the run with `cancelled`, whatever its progress is."""
    await driver.join(server.port, "gated")
    for number in range(5):
        await driver.do("chat", id=number, sessionId="s1", message=str(server.folder / "never"))
        await driver.do("cancel", sessionId="s1")
        assert (await driver.until("chat-end", id=number))["text"] in ("", "one ")
        assert (await driver.until_event("run_finished"))["stopReason"] == "cancelled"
    await driver.do(
        "ask", id="after", sessionId="s1", message=str(server.folder)
    )  # this path exists, so the agent does not wait
    assert (await driver.until("answer", id="after"))["text"] == "one two"
    assert driver.count("chat-end") == 5 and not driver.count("error")
    await driver.close()


async def test_a_half_open_connection_is_replaced(driver: Driver, hub: Hub) -> None:
    """The client detects it by its own pings, connects again, and gets the missed events."""
    await hub.start(ping_seconds=0.5)
    gate = hub.folder / "gate"
    async with proxied(lambda: hub.port) as proxy:
        await driver.join(proxy.port, "gated")
        await driver.do("chat", id=1, sessionId="s1", message=str(gate))
        await driver.until_event("stream")
        for link in list(proxy.links):
            link.freeze()
        gate.touch()
        await driver.until("state", state="waiting")
        assert (await driver.until("chat-end", id=1))["text"] == "one two"
        assert [event["seq"] for event in driver.events()] == sorted({event["seq"] for event in driver.events()})
        await driver.close()


def closing(code: int, connections: list[int]) -> Script:
    """Answer a subscribe, and close with *code*. Each connection adds an item to *connections*."""

    async def script(peer: Peer) -> None:
        connections.append(code)
        await peer.accept_subscribe()
        await peer.ws.close(code=code)

    return script


@pytest.mark.parametrize("code", [1000, 1002, 1003, 1007, 1009, 4500, 4503, 4999])
async def test_the_client_does_not_reconnect_after_a_final_close_code(driver: Driver, code: int) -> None:
    """The client is closed, and has the code."""
    connections: list[int] = []
    async with scripted(closing(code, connections)) as url:
        await driver.do("connect", url=url)
        await driver.do("session", sessionId="s1", agent="echo")
        assert (await driver.until("state", state="closed"))["code"] == code
        await driver.close()
        assert connections == [code]


@pytest.mark.parametrize("code", [1001, 1011, 1012, 1013, 4000, 4001, 4499])
async def test_the_client_reconnects_after_another_close_code(driver: Driver, code: int) -> None:
    """The client waits for a short time, and connects again."""
    connections: list[int] = []
    async with scripted(closing(code, connections)) as url:
        await driver.do("connect", url=url)
        await driver.do("session", sessionId="s1", agent="echo")
        await driver.until("state", state="live")
        assert (await driver.until("state", state="waiting"))["code"] == code
        await driver.until("state", state="live")
        assert len(connections) > 1
        await driver.close()


async def test_a_session_is_reset_if_the_hub_lost_its_log(driver: Driver, server: HubProcess) -> None:
    """The log was deleted while the client was disconnected. The client gets `reset`, then events of the new log."""
    async with proxied(lambda: server.port) as proxy:
        await driver.join(proxy.port, "echo")
        await driver.do("ask", id=1, sessionId="s1", message="before")
        await driver.until("answer", id=1)
        await server.kill()
        shutil.rmtree(server.folder / "data")
        await server.start()
        assert (await driver.until("reset"))["reason"] == "epoch_changed"
        await driver.do("ask", id=2, sessionId="s1", message="after")
        assert (await driver.until("answer", id=2))["text"] == "after "
        assert [(await driver.until_event("user_message"))["seq"] for _ in range(2)] == [1, 1]
        await driver.close()


# --- sign-in ----------------------------------------------------------------------------------------------------------


@attrs.define
class Clock:
    """The wall time of a hub, in ms; a test moves it."""

    ms: int = 1_796_000_000_000


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def signed(tmp_path: Path, clock: Clock) -> AsyncIterator[Hub]:
    """A hub with sign-in, which does not end the wait for a token before the test."""
    hub = Hub(tmp_path, options={"sign_in": True}, seams=Seams(now=lambda: clock.ms))
    try:
        yield await hub.start(auth_seconds=LONG)
    finally:
        await hub.stop()


def url_of(hub: Hub) -> str:
    return f"ws://127.0.0.1:{hub.port}/api/v1/ws"


async def ask_for_author(driver: Driver, message: str = "hello") -> str:
    """Chat in the session s1, and return the name of the message's author."""
    if not driver.events():
        await driver.do("session", sessionId="s1", agent="echo")
    await driver.do("ask", id=message, sessionId="s1", message=message)
    assert (await driver.until("answer", id=message))["text"] == f"{message} "
    return str((await driver.until_event("user_message"))["author"]["name"])


async def test_a_client_signs_in_with_a_key(driver: Driver, signed: Hub) -> None:
    """Its messages have the principal of the key as their author."""
    await driver.do("connect", url=url_of(signed), token=await signed.key("ann"))
    assert await ask_for_author(driver) == "ann"
    await driver.close()


async def test_a_client_with_a_token_also_works_with_a_hub_without_sign_in(driver: Driver, hub: Hub) -> None:
    """The hub ignores the token."""
    await hub.start()
    await driver.do("connect", url=url_of(hub), token="hk_any")
    assert await ask_for_author(driver) == "local"
    await driver.close()


async def test_a_client_with_a_wrong_token_is_closed(driver: Driver, signed: Hub) -> None:
    """The Python client sends it with the handshake, whose status is 401. A browser cannot do that."""
    await driver.do("connect", url=url_of(signed), token="hk_wrong")
    assert (await driver.until("state", state="closed"))["code"] in (401, 4500)
    assert "does not accept the token of this client" in (await driver.until("error", code="closed"))["message"]
    assert not driver.count("state", state="waiting")
    await driver.close()


async def test_a_client_without_a_token_is_told_so_at_once(driver: Driver, signed: Hub) -> None:
    """It does not wait until the hub closes its connection."""
    await driver.do("connect", url=url_of(signed))
    assert (await driver.until("state", state="closed"))["code"] == 4502
    assert "the hub needs a token" in (await driver.until("error", code="closed"))["message"]
    await driver.close()


async def test_a_token_that_has_expired_is_replaced(driver: Driver, signed: Hub, clock: Clock) -> None:
    """The hub closes with 4001, the client asks its function again, and the session goes on without a gap.

    A function that fails is asked again after the backoff.
    """
    short, long = await signed.key("ann", days=1), await signed.key("ann")
    await driver.do("connect", url=url_of(signed), tokens=[None, short, None, long])
    assert await ask_for_author(driver) == "ann"
    clock.ms += DAY_MS
    await driver.until("state", state="waiting", code=4001)
    assert await ask_for_author(driver, "again") == "ann"
    assert list(complete_texts(driver).values()) == ["hello ", "again "]
    await driver.close()


async def test_a_revoked_key_closes_the_client(driver: Driver, signed: Hub, tmp_path: Path) -> None:
    """An open answer fails with the reason, and the client does not connect again."""
    key = await signed.key("ann")
    await driver.do("connect", url=url_of(signed), token=key)
    await driver.do("session", sessionId="s1", agent="gated")
    await driver.do("ask", id=1, sessionId="s1", message=str(tmp_path / "never"))
    await driver.until_event("stream")
    await commands.revoke_credential(signed.door, OPERATOR, key.split("_")[1])
    assert "was revoked" in (await driver.until("error", id=1))["message"]
    assert (await driver.until("state", state="closed"))["code"] == 4503
    await driver.close()


@pytest.mark.parametrize("code", [4504, 4507])
async def test_the_error_of_a_closed_client_says_what_to_do(driver: Driver, code: int) -> None:
    async with scripted(closing(code, [])) as url:
        await driver.do("connect", url=url)
        await driver.do("session", sessionId="s1", agent="echo")
        await driver.do("ask", id=1, sessionId="s1", message="hello")
        assert CLOSE_TEXTS[code] in (await driver.until("error", id=1))["message"]
        await driver.close()
