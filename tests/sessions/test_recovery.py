"""The start of a hub continues or ends the runs of an earlier process, also if the log of a session is damaged."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, MutableMapping, Sequence
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
    """Change the log file of a stopped hub."""
    with closing(sqlite3.connect(hub.folder / "data" / "hub.db")) as db, db:
        assert db.execute(statement, values).rowcount


def recovered_counts(lines: Sequence[MutableMapping[str, Any]]) -> list[tuple[int, int]]:
    """Return the numbers of recovered sessions and runs in the last line of each recovery."""
    return [(line["sessions"], line["runs"]) for line in lines if line["event"] == "the recovery of runs has ended"]


async def unfinished_sessions(hub: Hub) -> set[str]:
    return {record.key for record in await hub.node.log.runs.list_unfinished_runs()}


@pytest.fixture
async def stopped_hub(tmp_path: Path) -> AsyncIterator[Hub]:
    """A stopped hub with a restartable run in each of the sessions s0 to s39."""
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


async def test_the_runs_of_a_session_with_a_damaged_strip_are_aborted(stopped_hub: Hub) -> None:
    """One warning names the session. It accepts chats, and the other sessions go on."""
    change(stopped_hub, DAMAGE, "s1")
    with capture_logs() as lines:
        await stopped_hub.start()
    warnings = [line for line in lines if line["log_level"] == "warning"]
    assert [(line["session"], line["outcome"]) for line in warnings] == [("s1", "aborted")]
    assert recovered_counts(lines) == [(39, 39)]
    assert "malformed" in warnings[0]["reason"] and len(warnings[0]["runs"]) == 1
    session = stopped_hub.node.sessions.get(Key("s1"))
    await eventually(lambda: session is None or session.is_idle)
    assert await unfinished_sessions(stopped_hub) == {f"s{number}" for number in range(40)} - {"s1"}
    head = await stopped_hub.node.log.sessions.find(Key("s1"))
    assert head is not None
    (end,) = await stopped_hub.node.log.events.read(Key("s1"), head.seq - 1, head.seq)
    assert (end.body.type, getattr(end.body, "stopReason"), end.runId) == (
        *("run_finished", "aborted"),
        warnings[0]["runs"][0],
    )
    client = await stopped_hub.connect(extended=True)
    await client.send(type="chat", agentId="echo", sessionId="s1", message="hello")
    assert (await client.until_done())["stopReason"] == "end_turn"
    messages = await stopped_hub.node.log.sessions.read_last_messages(Key("s1"), 9, MiB)
    assert [message.content for message in messages] == ["go", "", "hello", "hello "]


async def test_a_run_waits_for_the_next_start_if_the_head_of_its_session_is_unknown(stopped_hub: Hub) -> None:
    """A damaged row of the latest events hides the head. A subscriber gets an error, and other sessions go on.

    The first start after a repair continues the run.
    """
    change(stopped_hub, LOOSE_DAMAGE, "s2")
    with capture_logs() as lines:
        await stopped_hub.start()
    warnings = [(line["session"], line["outcome"]) for line in lines if "outcome" in line]
    assert warnings == [("s2", "left to the next start")] and recovered_counts(lines) == [(39, 39)]
    assert (
        await unfinished_sessions(stopped_hub) >= {"s1", "s2"}
        and "s2" not in stopped_hub.node.sessions
        and "s1" in stopped_hub.node.sessions
    )
    client = await stopped_hub.connect(extended=True)
    await client.send(type="subscribe", sessionId="s2", ref=1)
    refusal = await client.until_type("error")
    assert (refusal["code"], refusal["ref"]) == ("storage_unavailable", 1) and "delete it" in refusal["message"]
    await stopped_hub.stop()
    change(stopped_hub, "DELETE FROM damaged")
    with capture_logs() as lines:
        await stopped_hub.start()
    assert not [line for line in lines if "outcome" in line] and recovered_counts(lines) == [(40, 40)]
    assert "s2" in stopped_hub.node.sessions


async def test_sixteen_sessions_are_recovered_at_a_time(stopped_hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """40 sessions need three rounds. More at a time would delay other work of the log."""
    read, running, maximum, is_full = SqliteEvents.read, 0, 0, asyncio.Event()

    async def count_and_read(log: SqliteEvents, *arguments: Any) -> Sequence[Event]:
        nonlocal running, maximum
        running += 1
        maximum = max(maximum, running)
        if running == 16:
            is_full.set()
        await is_full.wait()
        try:
            return await read(log, *arguments)
        finally:
            running -= 1

    monkeypatch.setattr(SqliteEvents, "read", count_and_read)
    async with asyncio.timeout(PATIENCE):
        await stopped_hub.start()
    assert maximum == 16


@pytest.mark.parametrize("record", ["'{}'", "'{\"x'", "CAST(x'22FF22' AS TEXT)"])
async def test_a_damaged_run_record_does_not_stop_the_start(stopped_hub: Hub, record: str) -> None:
    """One log line names its session, and the other runs go on."""
    change(stopped_hub, f"UPDATE runs SET record = {record} WHERE session = 's3'")
    with capture_logs() as lines:
        await stopped_hub.start()
    assert [line["session"] for line in lines if line["event"] == "log_run_damaged"] == ["s3"]
    assert await unfinished_sessions(stopped_hub) == {f"s{number}" for number in range(40)} - {"s3"}


async def test_a_subscriber_of_a_damaged_session_gets_an_error(stopped_hub: Hub) -> None:
    """In its protocol, before its socket is closed. A subscriber with a cursor after the damage gets all events."""
    change(stopped_hub, DAMAGE, "s1")
    await stopped_hub.start()
    await eventually(lambda: (session := stopped_hub.node.sessions.get(Key("s1"))) is None or session.is_idle)
    for extended in (False, True):
        client = await stopped_hub.connect(extended=extended)
        await client.send(type="subscribe", sessionId="s1", afterSeq=0)
        error = await client.until_type("error")
        assert (error["code"], error["sessionId"], error["retryAfterMs"]) == ("storage_unavailable", "s1", 1000)
        assert "malformed" in error["message"]
        await client.wait_closed()
    client = await stopped_hub.connect("?sessionId=s1", extended=True)
    await client.send(type="chat", agentId="echo", sessionId="s1", message="hello")
    assert (await client.until_done())["stopReason"] == "end_turn"


async def test_a_session_whose_latest_events_are_damaged_can_be_deleted(stopped_hub: Hub) -> None:
    """A later chat creates a new session with the same id."""
    change(stopped_hub, LOOSE_DAMAGE, "s2")
    await stopped_hub.start()
    async with aiohttp.ClientSession(f"{stopped_hub.url}/api/v1/") as http:
        async with http.delete("sessions/s2") as answer:
            assert answer.status == 204
    assert "s2" not in await unfinished_sessions(stopped_hub)
    client = await stopped_hub.connect(extended=True)
    await client.send(type="chat", agentId="again", sessionId="s2", message="new")
    assert (await client.until_type("accepted"))["seq"] == 1
