"""What an earlier process left is taken up at the start, also where the log of one session is damaged."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from structlog.testing import capture_logs
from support.hub import Hub
from support.waiting import PATIENCE, eventually

from hub.ids import Key
from hub.limits import MiB
from hub.messages import Event
from hub.storage.sqlite.events import SqliteEvents

DAMAGE = "UPDATE strips SET events = 'x' || events WHERE session = (SELECT n FROM sessions WHERE id = ?)"
LOOSE_DAMAGE = """INSERT INTO loose (size, events) VALUES (20, '[["' || ? || '",99,0,[[broken')"""


def change(hub: Hub, statement: str, *values: Any) -> None:
    """Change the file of a hub that is stopped."""
    with closing(sqlite3.connect(hub.folder / "data" / "hub.db")) as db, db:
        assert db.execute(statement, values).rowcount


async def unfinished(hub: Hub) -> set[str]:
    return {record.key for record in await hub.node.log.runs.list_unfinished_runs()}


@pytest.fixture
async def left(tmp_path: Path) -> AsyncIterator[Hub]:
    """A hub that is stopped, and left a run in each of the sessions s0 to s39: they start again, or end."""
    hub = Hub(tmp_path)
    (tmp_path / "agents").mkdir()
    hub.agent(
        "again.py",
        """
        import asyncio
        from hub import agent

        @agent(restartable=True)
        async def again(message: str):
            yield "try "
            await asyncio.Event().wait()
        """,
    )
    await hub.start()
    client = await hub.connect(extended=True)
    for number in range(40):
        await client.send(type="chat", agentId="again", sessionId=f"s{number}", message="go")
        await client.until_type("stream")
    await hub.stop()
    yield hub
    await hub.stop()


async def test_the_runs_of_a_session_with_a_damaged_strip_are_aborted(left: Hub) -> None:
    """Its run ends `aborted`, one line names it, the other sessions go on, and it takes chats."""
    change(left, DAMAGE, "s1")
    with capture_logs() as lines:
        await left.start()
    warnings = [line for line in lines if line["log_level"] == "warning"]
    assert [(line["session"], line["outcome"]) for line in warnings] == [("s1", "aborted")]
    assert "malformed" in warnings[0]["reason"] and len(warnings[0]["runs"]) == 1
    session = left.node.sessions.get(Key("s1"))
    await eventually(lambda: session is None or session.is_idle)
    assert await unfinished(left) == {f"s{number}" for number in range(40)} - {"s1"}
    head = await left.node.log.sessions.find(Key("s1"))
    assert head is not None
    (end,) = await left.node.log.events.read(Key("s1"), head.seq - 1, head.seq)
    assert (end.body.type, getattr(end.body, "stopReason"), end.runId) == (
        *("run_finished", "aborted"),
        warnings[0]["runs"][0],
    )
    client = await left.connect(extended=True)
    await client.send(type="chat", agentId="echo", sessionId="s1", message="hello")
    assert (await client.until_done())["stopReason"] == "end_turn"
    said = await left.node.log.sessions.read_last_messages(Key("s1"), 9, MiB)
    assert [message.content for message in said] == ["go", "", "hello", "hello "]


async def test_a_run_is_left_to_the_next_start_if_its_session_cannot_be_written(left: Hub) -> None:
    """A damaged row of the latest events hides where the session stands: a subscriber is told so, others go on.

    Once it is mended the run is taken up.
    """
    change(left, LOOSE_DAMAGE, "s2")
    with capture_logs() as lines:
        await left.start()
    warned = [(line["session"], line["outcome"]) for line in lines if "outcome" in line]
    assert warned == [("s2", "left to the next start")]
    assert await unfinished(left) >= {"s1", "s2"} and "s2" not in left.node.sessions and "s1" in left.node.sessions
    client = await left.connect(extended=True)
    await client.send(type="subscribe", sessionId="s2", ref=1)
    refusal = await client.until_type("error")
    assert (refusal["code"], refusal["ref"]) == ("storage_unavailable", 1) and "delete it" in refusal["message"]
    await left.stop()
    change(left, "DELETE FROM damaged")
    with capture_logs() as lines:
        await left.start()
    assert not [line for line in lines if "outcome" in line]
    assert "s2" in left.node.sessions


async def test_sixteen_sessions_are_recovered_at_a_time(left: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forty take as long as three after another; more at once would crowd the log."""
    read, going, most, crowd = SqliteEvents.read, 0, 0, asyncio.Event()

    async def crowded(log: SqliteEvents, *asked: Any) -> Sequence[Event]:
        nonlocal going, most
        going += 1
        most = max(most, going)
        if going == 16:
            crowd.set()
        await crowd.wait()
        try:
            return await read(log, *asked)
        finally:
            going -= 1

    monkeypatch.setattr(SqliteEvents, "read", crowded)
    async with asyncio.timeout(PATIENCE):
        await left.start()
    assert most == 16


@pytest.mark.parametrize("record", ["'{}'", "'{\"x'", "CAST(x'22FF22' AS TEXT)"])
async def test_a_damaged_run_record_does_not_stop_the_start(left: Hub, record: str) -> None:
    """One line names it, and the other runs go on."""
    change(left, f"UPDATE runs SET record = {record} WHERE session = 's3'")
    with capture_logs() as lines:
        await left.start()
    assert [line["session"] for line in lines if line["event"] == "log_run_damaged"] == ["s3"]
    assert await unfinished(left) == {f"s{number}" for number in range(40)} - {"s3"}


async def test_a_subscriber_of_a_damaged_session_is_told_why(left: Hub) -> None:
    """In its own protocol, before its socket is closed; where it resumes after the damage it hears all."""
    change(left, DAMAGE, "s1")
    await left.start()
    await eventually(lambda: (session := left.node.sessions.get(Key("s1"))) is None or session.is_idle)
    for extended in (False, True):
        client = await left.connect(extended=extended)
        await client.send(type="subscribe", sessionId="s1", afterSeq=0)
        error = await client.until_type("error")
        assert (error["code"], error["sessionId"], error["retryAfterMs"]) == ("storage_unavailable", "s1", 1000)
        assert "malformed" in error["message"]
        await client.wait_closed()
    client = await left.connect("?sessionId=s1", extended=True)
    await client.send(type="chat", agentId="echo", sessionId="s1", message="hello")
    assert (await client.until_done())["stopReason"] == "end_turn"


async def test_a_session_whose_latest_events_are_damaged_can_be_deleted(left: Hub) -> None:
    """And begins anew under its id."""
    change(left, LOOSE_DAMAGE, "s2")
    await left.start()
    async with aiohttp.ClientSession(f"{left.url}/api/v1/") as http:
        async with http.delete("sessions/s2") as answer:
            assert answer.status == 204
    assert "s2" not in await unfinished(left)
    client = await left.connect(extended=True)
    await client.send(type="chat", agentId="again", sessionId="s2", message="new")
    assert (await client.until_type("accepted"))["seq"] == 1
