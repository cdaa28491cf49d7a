"""`/ready` and the errors of refused chats tell why the log cannot be written, and what to do."""

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from support.hub import Hub
from support.process import HubProcess, needs_prlimit
from support.waiting import PATIENCE

from hub.node import log_probe
from hub.storage.sqlite import database, open_file, wal


async def read_ready(url: str) -> tuple[int, str, str]:
    """Return the status of `/ready`, the error code and the text."""
    async with aiohttp.ClientSession() as http, http.get(f"{url}/ready") as answer:
        if answer.content_type != "application/json":
            return answer.status, "", await answer.text()
        failure = await answer.json()
        return answer.status, failure["code"], failure["error"]


async def until_ready(url: str, status: int) -> str:
    """Request `/ready` until the response has *status*; return its text."""
    async with asyncio.timeout(PATIENCE):
        while (answer := await read_ready(url))[0] != status:
            await asyncio.sleep(0.01)
    return answer[2]


async def chat(url: str) -> tuple[int, Any]:
    body = {"agentId": "echo", "message": "x"}
    async with aiohttp.ClientSession() as http, http.post(f"{url}/api/v1/sessions/s1/chat", json=body) as answer:
        return answer.status, await answer.json()


@pytest.fixture
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait only briefly for locks, and do not reuse the result of a probe. A slow commit does not make a probe fail."""
    for module in (wal, database):
        monkeypatch.setattr(module, "BUSY_MS", 20)
    monkeypatch.setattr(log_probe, "VALID_SECONDS", 0.0)
    monkeypatch.setattr(log_probe, "WAIT_SECONDS", PATIENCE)


@pytest.fixture
def foreign_connection(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """Return a connection to the log that does not belong to the hub."""
    with closing(sqlite3.connect(tmp_path / "data" / "hub.db", isolation_level=None, timeout=PATIENCE)) as db:
        yield db


@pytest.fixture
async def served(hub: Hub, short_waits: None) -> Hub:
    return await hub.start()


async def test_the_error_about_a_foreign_lock_does_not_advise_to_free_space(
    served: Hub, foreign_connection: sqlite3.Connection
) -> None:
    """`/ready` and a refused chat have the error; both work again after the lock is released."""
    assert await read_ready(served.url) == (200, "", "OK")
    foreign_connection.execute("BEGIN IMMEDIATE")
    status, code, line = await read_ready(served.url)
    refused, failure = await chat(served.url)
    foreign_connection.execute("ROLLBACK")
    assert (status, code) == (503, "storage_unavailable")
    assert (refused, failure["code"]) == (503, "storage_unavailable")
    for text in (line, failure["error"]):
        assert "another process holds its write lock: end that process" in text and "space" not in text
    assert await read_ready(served.url) == (200, "", "OK")
    assert (await chat(served.url))[0] == 202


@pytest.mark.parametrize("is_replaced", [False, True], ids=["deleted", "replaced"])
async def test_a_removed_log_refuses_chats(served: Hub, monkeypatch: pytest.MonkeyPatch, is_replaced: bool) -> None:
    """SQLite would continue to write to a file that nobody can open. Chats work again when the file is back."""
    monkeypatch.setattr(open_file, "FILE_CHECK_SECONDS", 0.0)
    file, moved = served.folder / "data" / "hub.db", served.folder / "moved"
    file.rename(moved)
    if is_replaced:
        file.write_bytes(moved.read_bytes())
    status, code, line = await read_ready(served.url)
    refused, failure = await chat(served.url)
    moved.replace(file)
    assert (status, code) == (503, "storage_unavailable")
    assert (refused, failure["code"]) == (503, "storage_unavailable")
    for text in (line, failure["error"]):
        assert text.endswith("put the file back that the hub opened, or restart the hub)") and "space" not in text
    assert await read_ready(served.url) == (200, "", "OK")
    assert (await chat(served.url))[0] == 202


async def test_readiness_does_not_wait_for_a_blocked_write(
    served: Hub, foreign_connection: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The response comes while SQLite waits for the lock; a second request starts no second probe."""
    monkeypatch.setattr(log_probe, "WAIT_SECONDS", 0.0)
    threads = served.node.log._threads  # type: ignore[attr-defined]
    threads.writer.db.execute(f"PRAGMA busy_timeout = {PATIENCE * 1000:.0f}")
    foreign_connection.execute("BEGIN IMMEDIATE")
    assert await read_ready(served.url) == (503, "storage_unavailable", log_probe.SLOW_LOG_TEXT)
    probe = served.door.log_probe._task
    assert await read_ready(served.url) == (503, "storage_unavailable", log_probe.SLOW_LOG_TEXT)
    assert served.door.log_probe._task is probe  # both requests used the same probe
    foreign_connection.execute("ROLLBACK")
    monkeypatch.setattr(log_probe, "WAIT_SECONDS", PATIENCE)
    assert await read_ready(served.url) == (200, "", "OK")


async def test_many_requests_for_readiness_cost_one_commit(served: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests during a probe wait for it, and its result is reused for a while."""
    monkeypatch.setattr(log_probe, "VALID_SECONDS", 1e6)
    before = served.node.log.commit_totals.commits
    assert {await read_ready(served.url) for _ in range(5)} == {(200, "", "OK")}
    assert set(await asyncio.gather(*(read_ready(served.url) for _ in range(20)))) == {(200, "", "OK")}
    assert served.node.log.commit_totals.commits == before + 1


async def test_a_draining_hub_is_not_ready_without_a_probe(served: Hub) -> None:
    """The state of the log does not matter."""
    before = served.node.log.commit_totals.commits
    served.door.drain()
    assert (await read_ready(served.url))[:2] == (503, "draining")
    assert served.node.log.commit_totals.commits == before


@needs_prlimit
async def test_an_idle_hub_on_a_full_disk_is_not_ready(tmp_path: Path) -> None:
    """No chat is needed to notice it; after space is freed, the hub is ready again."""
    served = HubProcess(tmp_path)
    await served.start()
    try:
        await until_ready(served.url, 200)
        served.fill_disk()
        line = await until_ready(served.url, 503)
        assert line.startswith("the log cannot be written now") and line.endswith(
            "free space or repair the disk, then try again"
        )
        served.free_disk()
        await until_ready(served.url, 200)
    finally:
        await served.kill()
