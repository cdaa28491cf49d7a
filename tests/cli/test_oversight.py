"""The operator's commands `hubbub usage`, `quota`, `audit` and `erase`, with a running hub and without one."""

import asyncio
import os
import re
import sqlite3
import sys
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from support.process import HubProcess, make_environment, run_hubbub
from support.waiting import PATIENCE, eventually

SECRET = "my_own_secret"


@pytest.fixture
async def process(tmp_path: Path) -> AsyncIterator[HubProcess]:
    """A hub that is not started; killed after the test."""
    running = HubProcess(tmp_path)
    running.agent("nods.py", "def nods(message):\n    yield 'yes'\n")
    running.agent(
        "waits.py", "import asyncio\n\nasync def waits(message):\n    yield 'one'\n    await asyncio.Event().wait()\n"
    )
    yield running
    await running.kill()


async def succeed(folder: Path, *arguments: str) -> str:
    output = await run_hubbub(folder, *arguments)
    assert output.code == 0, output
    return output.out.strip()


def read_cells(table: str, name: str) -> list[str]:
    """Return the cells of the row that has the cell *name*."""
    rows = [re.split(r"\s{2,}", line) for line in table.splitlines()]
    (row,) = [row for row in rows if name in row]
    return row


async def chat(
    process: HubProcess, key: str, session: str, message: str, agent: str = "nods", wait: bool = True
) -> int:
    headers = {"Authorization": f"Bearer {key}"}
    url = f"{process.url}/api/v1/sessions/{session}/chat{'?wait=true' if wait else ''}"
    async with aiohttp.ClientSession(headers=headers) as http:
        async with http.post(url, json={"agentId": agent, "message": message}) as response:
            return response.status


async def wait_for_text(process: HubProcess, key: str, session: str, text: str) -> None:
    """Wait until the log has a chunk with this text."""
    url = f"{process.url}/api/v1/ws?sessionId={session}&afterSeq=0"
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {key}"}) as http, http.ws_connect(url) as ws:
        while (await ws.receive_json(timeout=PATIENCE)).get("content") != text:
            pass


async def test_usage_quota_and_audit_are_shown_and_set(process: HubProcess, tmp_path: Path) -> None:
    """By the running hub, and by the same commands after it has stopped."""
    await process.start(sign_in=True)
    key = await succeed(tmp_path, "key", "create", "ann")
    assert await chat(process, key, "s1", "four") == 200
    row = read_cells(await succeed(tmp_path, "quota", "ann", "--messages", "1", "--runs", "3"), "messages a day")
    assert row == ["messages a day", "1", "1"]
    assert await chat(process, key, "s1", "more") == 429
    tables = []
    for _ in range(2):
        usage = await succeed(tmp_path, "usage", "ann")
        quota = await succeed(tmp_path, "quota", "ann")
        audit = await succeed(tmp_path, "audit", "--principal", "ann")
        assert read_cells(usage, "ann")[2:] == ["nods", "1", "1", "1", "(2)"]
        assert read_cells(quota, "messages a day") == ["messages a day", "1", "1"]
        assert read_cells(quota, "answers at once")[1:] == ["3", "0"] and "none" in quota
        assert read_cells(audit, "quota_exceeded")[1:5] == ["ann", "ask", "s1", "127.0.0.1"]
        tables.append((usage, quota, audit))
        if process.running:
            process.signal(15)
            assert await process.wait_until_ended() == 0
    assert tables[0] == tables[1]
    assert read_cells(await succeed(tmp_path, "quota", "ann", "--messages", "none"), "messages a day")[1] == "none"
    assert read_cells(await succeed(tmp_path, "quota", "default", "--tokens", "9"), "tokens a day")[1:] == ["9", "2"]
    assert (await succeed(tmp_path, "usage", "--until", "2001-01-01")) == "nothing yet"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("quota x --messages many", "a whole number, or none"),
        ("quota x --messages -1", "a whole number, or none"),
        ("quota nobody", "there is no principal nobody"),
        ("usage nobody", "there is no principal nobody"),
        ("audit --principal nobody", "there is no principal nobody"),
        ("usage --since yesterday", "write a day as 2026-11-01"),
        ("usage --until 2026-02-30", "write a day as 2026-11-01"),
        ("erase nobody --yes", "there is no principal nobody"),
    ],
)
async def test_a_mistake_is_explained(tmp_path: Path, arguments: str, words: str) -> None:
    (tmp_path / "data").mkdir()
    output = await run_hubbub(tmp_path, *arguments.split())
    assert output.code in (1, 2) and words in output.err and output.out == ""


async def test_an_erasure_asks_first(process: HubProcess, tmp_path: Path) -> None:
    """Without an answer, nothing happens."""
    await process.start(sign_in=True)
    await succeed(tmp_path, "key", "create", "ann")
    output = await run_hubbub(tmp_path, "erase", "ann")
    assert output.code == 1 and "Erase ann" in output.err
    assert read_cells(await succeed(tmp_path, "principal", "list"), "ann")


def read_messages(database: Path) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as db:
        return db.execute("SELECT session, author, content FROM messages WHERE role = 'user' ORDER BY n").fetchall()


def files_with(folder: Path, text: str) -> list[str]:
    files = [path for path in (folder / "data").rglob("*") if path.is_file()]
    return [path.name for path in files if text.encode() in path.read_bytes()]


async def start_with_messages(process: HubProcess, folder: Path, sessions: int) -> tuple[str, str]:
    """Let Ann write in sessions of Bob and in one of her own. Return the keys of both."""
    await process.start(sign_in=True, limits_new_connections_per_second=10_000)  # each chat opens one
    ann, bob = [await succeed(folder, "key", "create", name) for name in ("ann", "bob")]
    (ann_id,) = [record["id"] for record in await call(folder, "list_principals") if record["name"] == "ann"]
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {bob}"}) as http:
        for number in range(sessions):
            assert await chat(process, bob, f"s{number}", "begin") == 200
            path = f"{process.url}/api/v1/sessions/s{number}/members"
            async with http.patch(path, json={"id": ann_id, "role": "member"}) as response:
                assert response.status == 200
            assert await chat(process, ann, f"s{number}", f"{SECRET} {number}") == 200
    assert await chat(process, ann, "own", SECRET) == 200
    return ann, bob


async def call(folder: Path, command: str, **fields: Any) -> Any:
    """Call a command on the control socket of a running hub."""
    connector = aiohttp.UnixConnector(path=os.path.relpath(folder / "data" / "control.sock"))
    async with aiohttp.ClientSession(connector=connector) as http:
        async with http.post(f"http://hub/commands/{command}", json=fields) as response:
            return (await response.json())["result"]


async def test_an_erasure_lists_the_sessions_whose_answers_stay(process: HubProcess, tmp_path: Path) -> None:
    await start_with_messages(process, tmp_path, 2)
    output = await run_hubbub(tmp_path, "erase", "ann", "--yes")
    assert output.code == 0 and output.out.split() == ["s0", "s1"]
    assert "1 session deleted" in output.err and "answers of agents" in output.err
    contents = [content for _, _, content in read_messages(process.database)]
    assert contents == ["begin", "[erased]", "begin", "[erased]"]
    assert "ann" not in await succeed(tmp_path, "principal", "list")


HELD_COUNT = 3  # of erased messages
# After the erasure of so many messages, that of the next one counts rows, for longer than any test.
HOLD_ERASURE = f"""
    CREATE TRIGGER hold BEFORE UPDATE ON messages
    WHEN (SELECT count(*) FROM messages WHERE content = '[erased]') >= {HELD_COUNT}
    BEGIN
        SELECT count(*) FROM messages, {", ".join(f"messages m{number}" for number in range(15))};
    END"""


def change_schema(database: Path, statement: str) -> None:
    with closing(sqlite3.connect(database, timeout=PATIENCE, isolation_level=None)) as db:
        db.execute(statement)


@pytest.mark.parametrize("is_running", [True, False])
async def test_an_erasure_that_is_killed_can_be_repeated(process: HubProcess, tmp_path: Path, is_running: bool) -> None:
    """kill -9 in the middle, in the running hub or in the command itself. Nothing of the principal is left then."""
    count = 2 * HELD_COUNT
    await start_with_messages(process, tmp_path, count)
    change_schema(process.database, HOLD_ERASURE)

    def erased() -> int:
        return sum(content == "[erased]" for _, _, content in read_messages(process.database))

    if not is_running:
        process.signal(15)
        assert await process.wait_until_ended() == 0
    command = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "hub", "erase", "ann", "--yes"),
        cwd=tmp_path,
        env=make_environment() | {"HUBBUB_SIGN_IN": "true"},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    await eventually(lambda: erased() == HELD_COUNT)
    if is_running:
        await process.kill()
    else:
        command.kill()
    await asyncio.wait_for(command.wait(), PATIENCE)
    change_schema(process.database, "DROP TRIGGER hold")
    assert erased() == HELD_COUNT, "the erasure was not killed in the middle"
    assert read_cells(await succeed(tmp_path, "principal", "list"), "ann")
    output = await run_hubbub(tmp_path, "erase", "ann", "--yes")
    assert output.code == 0 and sorted(output.out.split()) == sorted(f"s{number}" for number in range(count))
    assert erased() == count and files_with(tmp_path, SECRET) == []
    assert "ann" not in await succeed(tmp_path, "principal", "list")
    await process.start(sign_in=True)
    assert "damaged" not in process.log


async def test_an_erasure_without_a_running_hub_ends_the_answers_of_the_principal(
    process: HubProcess, tmp_path: Path
) -> None:
    """Those that a killed hub has left: a running one keeps its text, and a queued one does not start."""
    ann, bob = await start_with_messages(process, tmp_path, 1)
    for message in ("running", "queued"):
        assert await chat(process, ann, "s0", f"{SECRET} {message}", "waits", wait=False) == 202
    await wait_for_text(process, bob, "s0", "one")
    await process.kill()
    assert (await succeed(tmp_path, "erase", "ann", "--yes")) == "s0"
    assert files_with(tmp_path, SECRET) == []
    with closing(sqlite3.connect(process.database)) as db:
        assert db.execute("SELECT count(*) FROM runs").fetchone() == (0,)
    await process.start(sign_in=True)
    headers = {"Authorization": f"Bearer {bob}"}
    async with aiohttp.ClientSession(headers=headers) as http:
        async with http.get(f"{process.url}/api/v1/sessions/s0/messages") as response:
            messages = (await response.json())["data"]
        async with http.get(f"{process.url}/api/v1/sessions/s0") as response:
            assert (await response.json())["state"] == "idle"
    texts = [(message["content"], message.get("stopReason")) for message in messages]
    assert texts[:2] == [("begin", None), ("yes", None)] and texts[2:4] == [("[erased]", None), ("yes", None)]
    assert sorted(map(str, texts[4:])) == sorted(map(str, [("[erased]", None), ("[erased]", None), ("one", "aborted")]))
