"""`hubbub backup` and `hubbub restore`, with hubs in processes of their own."""

import asyncio
import json
import os
import re
import shutil
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator
from contextlib import closing
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from support import babble
from support.kill9 import check_log
from support.process import CommandOutput, HubProcess, make_environment, run_hubbub
from support.waiting import PATIENCE, eventually

SESSIONS = 20
CHUNKS, LONG_CHUNKS = 60, 5000


@pytest.fixture
async def process(tmp_path: Path) -> AsyncIterator[HubProcess]:
    """A hub with an agent that streams, which is not started; killed after the test."""
    running = HubProcess(tmp_path)
    (tmp_path / "agents").mkdir()
    shutil.copy(babble.__file__, tmp_path / "agents")
    yield running
    await running.kill()


def without_progress(err: str) -> str:
    """Return a standard error without its lines about progress: a copy of more than two seconds writes them."""
    return re.sub("^[0-9]+ MiB of [0-9]+ MiB are copied\n", "", err, flags=re.MULTILINE)


async def back_up(folder: Path, *arguments: str) -> dict[str, Any]:
    """Make a backup in the folder `backup`, and return its manifest."""
    output = await run_hubbub(folder, "backup", "backup", *arguments)
    assert (output.code, without_progress(output.err)) == (0, ""), output
    manifest: dict[str, Any] = json.loads((folder / "backup" / "manifest.json").read_text())
    assert output.out.startswith(f"backup has the backup of {manifest['created']} (sessions: ")
    return manifest


async def refuse(folder: Path, *arguments: str, **variables: str) -> str:
    """Run a command that fails with one line, and return the line."""
    output = await run_hubbub(folder, *arguments, **variables)
    line = without_progress(output.err)
    assert (output.code, output.out) == (2, "") and line.count("\n") == 1, output
    assert line.startswith("hubbub: ")
    return line


async def restore(folder: Path, *arguments: str) -> CommandOutput:
    output = await run_hubbub(folder, "restore", "backup", *arguments)
    assert output.code == 0, output
    return output


async def upload(http: aiohttp.ClientSession, process: HubProcess, session: str, data: bytes) -> str:
    """Upload a file to a session, and return its id."""
    url = f"{process.url}/api/v1/files?sessionId={session}&name=a.txt"
    async with http.post(url, data=BytesIO(data), headers={"Content-Type": "text/plain"}) as answer:
        return str((await answer.json())["fileId"])


async def chat(http: aiohttp.ClientSession, process: HubProcess, session: str, message: str) -> dict[str, Any]:
    """Have the agent answer in a session, and return the last event of the answer."""
    async with http.ws_connect(f"{process.url}/api/v1/ws", protocols=("hubbub.v1",), max_msg_size=0) as ws:
        await ws.send_json({"type": "chat", "agentId": "babble", "sessionId": session, "message": message})
        while True:
            frame: dict[str, Any] = await ws.receive_json(timeout=2 * PATIENCE)
            if frame["type"] == "run_finished":
                return frame


def query(path: Path, statement: str, *values: Any) -> list[Any]:
    with closing(sqlite3.connect(path)) as db:
        return db.execute(statement, values).fetchall()


def count_rows(path: Path) -> dict[str, int]:
    """Return the counts of a manifest, read with plain SQL."""
    tables = ("sessions", "messages", "events", "files", "principals", "runs")
    return {table: query(path, f"SELECT count(*) FROM {table}")[0][0] for table in tables}


def find_modes(folder: Path) -> set[tuple[bool, int]]:
    """Return (is a folder, mode) of everything in a folder, and of itself."""
    return {(path.is_dir(), path.stat().st_mode & 0o777) for path in (folder, *folder.rglob("*"))}


# --- a hub that streams -----------------------------------------------------------------------------------------------


async def test_a_backup_of_a_hub_that_streams_is_whole(process: HubProcess, tmp_path: Path) -> None:
    """Twenty sessions stream meanwhile. The restored hub ends the answers that ran, each with the start of its text."""
    await process.start()
    async with aiohttp.ClientSession() as http, asyncio.TaskGroup() as tasks:
        for number in range(SESSIONS):
            await upload(http, process, f"s{number}", f"file {number % 7}".encode())
        answers = [
            tasks.create_task(chat(http, process, f"s{number}", make_message(number))) for number in range(SESSIONS)
        ]
        await asyncio.gather(*answers[1::2])
        manifest = await back_up(tmp_path)
        for answer in answers[::2]:
            assert answer.cancel()  # it ran until after the copy
    await process.kill()
    assert find_modes(tmp_path / "backup") == {(True, 0o700), (False, 0o600)}
    assert manifest["counts"] == count_rows(tmp_path / "backup" / "hub.db")
    assert manifest["counts"]["sessions"] == manifest["counts"]["files"] == SESSIONS and manifest["blobs"] == 7
    assert manifest["counts"]["runs"] == SESSIONS // 2

    await restore(tmp_path, "--data", "other/data")
    assert count_rows(tmp_path / "other" / "data" / "hub.db") == manifest["counts"]
    assert find_modes(tmp_path / "other" / "data") == {(True, 0o700), (False, 0o600)}
    other = HubProcess(tmp_path / "other")
    shutil.copytree(tmp_path / "agents", tmp_path / "other" / "agents")
    try:
        await other.start()
        for folder in ("other/data", "backup"):
            check = await run_hubbub(tmp_path, "check", "--data", folder)
            assert (check.code, check.out) == (0, "nothing is damaged\n"), check
    finally:
        await other.kill()
    for number in range(SESSIONS):
        check_session(other.database, number)
    assert query(other.database, "SELECT * FROM runs") == []


def make_message(number: int) -> str:
    """Return the message of a session: the answer has its text at once, or, for even numbers, not before the end."""
    return f"{number} {CHUNKS} 0.01" if number % 2 else f"{number} {LONG_CHUNKS} 500"


def check_session(path: Path, number: int) -> None:
    """Assert that the session has one answer: the whole text, or the start of it if the answer was aborted."""
    session, text = f"s{number}", "".join(babble.chunks(str(number), CHUNKS if number % 2 else LONG_CHUNKS))
    rows = query(path, "SELECT * FROM events WHERE session = ? ORDER BY seq", session)
    names = ("session", "seq", "ts", "type", "agent", "run", "message", "offset", "content")
    check_log([dict(zip(names, row)) for row in rows])
    statement = "SELECT role, content, stop_reason FROM messages WHERE session = ? ORDER BY seq, n"
    (role, *_), *answers = query(path, statement, session)
    ((_, content, reason),) = answers
    assert role == "user" and (content, reason) == ((text, None) if number % 2 else (text[: len(content)], "aborted"))


async def test_an_old_cursor_gets_a_reset(process: HubProcess, tmp_path: Path) -> None:
    """A client that saw what came after the backup does not resume in the restored session."""
    await process.start()
    async with aiohttp.ClientSession() as http:
        seen = await chat(http, process, "s", "one 5 0.01")
        await back_up(tmp_path)
        later = await chat(http, process, "s", "two 5 0.01")
        await process.kill()
        await restore(tmp_path, "--force")
        await process.start()
        for frame in (seen, later):
            async with http.ws_connect(f"{process.url}/api/v1/ws", protocols=("hubbub.v1",)) as ws:
                cursor = {"afterSeq": frame["seq"], "epoch": frame["epoch"]}
                await ws.send_json({"type": "subscribe", "sessionId": "s"} | cursor)
                while (frame := await ws.receive_json(timeout=PATIENCE))["type"] in ("welcome", "subscribed", "state"):
                    pass
                assert frame["type"] == "reset" and len(frame["messages"]) == 2, frame


# --- what holds a backup up -------------------------------------------------------------------------------------------


async def start_stuck_backup(process: HubProcess, folder: Path) -> tuple[asyncio.subprocess.Process, Path]:
    """Start a backup that waits for the bytes of a blob, a pipe. Return the process and the pipe."""
    async with aiohttp.ClientSession() as http:
        await upload(http, process, "s", b"hello")
    pipe = folder / "data" / "files" / sha256(b"hello").hexdigest()
    pipe.unlink()
    os.mkfifo(pipe)
    backup = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "hub", "backup", "backup"),
        cwd=folder,
        env=make_environment(),
        stderr=asyncio.subprocess.PIPE,
    )
    await eventually(lambda: (folder / "backup" / "files").exists())
    return backup, pipe


async def test_a_killed_backup_cannot_be_restored(process: HubProcess, tmp_path: Path) -> None:
    """It has no manifest. The next backup needs another folder, and is not held up."""
    await process.start()
    backup, pipe = await start_stuck_backup(process, tmp_path)
    backup.kill()
    await backup.wait()
    assert (tmp_path / "backup" / "hub.db").exists()
    assert "not completed" in await refuse(tmp_path, "restore", "backup", "--data", "other")
    assert "backop cannot be restored: it does not exist" in await refuse(tmp_path, "restore", "backop")
    assert not (tmp_path / "other").exists()
    assert "not completed: delete it" in await refuse(tmp_path, "backup", "backup")
    pipe.unlink()
    pipe.write_bytes(b"hello")
    shutil.rmtree(tmp_path / "backup")
    assert (await back_up(tmp_path))["missing_blobs"] == []


async def test_an_interrupted_backup_leaves_nothing(process: HubProcess, tmp_path: Path) -> None:
    """Ctrl-C ends it at the next block."""
    await process.start()
    backup, pipe = await start_stuck_backup(process, tmp_path)
    with await asyncio.to_thread(pipe.open, "wb", 0) as writer:
        backup.send_signal(signal.SIGINT)
        async with asyncio.timeout(PATIENCE):
            with pytest.raises(BrokenPipeError):
                while True:
                    await asyncio.to_thread(writer.write, bytes(1 << 20))
    async with asyncio.timeout(PATIENCE):
        _, err = await backup.communicate()
    assert backup.returncode == 1 and not (tmp_path / "backup").exists() and b"Traceback" not in err


async def test_a_blob_is_not_deleted_before_the_backup_has_it(process: HubProcess, tmp_path: Path) -> None:
    """Its session is deleted while the backup runs. The blob goes when the backup has ended."""
    await process.start()
    async with aiohttp.ClientSession() as http:
        await upload(http, process, "t", b"other")
        blob = tmp_path / "data" / "files" / sha256(b"other").hexdigest()
        backup, pipe = await start_stuck_backup(process, tmp_path)
        async with http.delete(f"{process.url}/api/v1/sessions/t") as answer:
            assert answer.status == 204
        assert blob.exists()
        with await asyncio.to_thread(pipe.open, "wb") as writer:
            writer.write(b"hello")
        async with asyncio.timeout(PATIENCE):
            assert await backup.wait() == 0
        await eventually(lambda: not blob.exists())
    assert (tmp_path / "backup" / "files" / blob.name).read_bytes() == b"other"
    assert json.loads((tmp_path / "backup" / "manifest.json").read_text())["missing_blobs"] == []


@pytest.mark.exact
@pytest.mark.parametrize("blocks", [20, 2000])
async def test_a_full_disk_ends_the_backup(process: HubProcess, tmp_path: Path, blocks: int) -> None:
    """Nothing is left, and the reason is one line. Once the copy of the log does not fit, once a blob."""
    await process.start()
    async with aiohttp.ClientSession() as http:
        await upload(http, process, "s", os.urandom(3_000_000))
    command = f"ulimit -f {blocks}; exec {sys.executable} -m hub backup backup"
    failure = await asyncio.create_subprocess_shell(
        command, cwd=tmp_path, env=make_environment(), stderr=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(PATIENCE):
        _, err = await failure.communicate()
    line = without_progress(err.decode())
    assert failure.returncode == 2 and line.startswith("hubbub: ") and line.count("\n") == 1, line
    assert not (tmp_path / "backup").exists()
    await back_up(tmp_path)


async def test_a_backup_that_cannot_fit_is_not_begun(process: HubProcess, tmp_path: Path) -> None:
    await process.start()
    async with aiohttp.ClientSession() as http:
        await upload(http, process, "s", b"hello")
    await process.kill()
    with closing(sqlite3.connect(process.database)) as db:
        db.execute("UPDATE files SET size = 1 << 60")
        db.commit()
    line = await refuse(tmp_path, "backup", "backup")
    assert "free space" in line and "MiB" in line and not (tmp_path / "backup").exists()


async def test_a_long_copy_reports_its_progress(process: HubProcess, tmp_path: Path) -> None:
    """On standard error, a line every two seconds; here after each block."""
    await process.start()
    async with aiohttp.ClientSession() as http:
        await upload(http, process, "s", bytes(3 << 20))
    script = "import hub.cli.backups as b; from hub.cli.main import cli; b.PROGRESS_SECONDS = 0; cli()"
    backup = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", script, "backup", "backup"),
        cwd=tmp_path,
        env=make_environment(),
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(PATIENCE):
        _, err = await backup.communicate()
    lines = err.decode().splitlines()
    assert backup.returncode == 0 and lines[-3:] == [f"{number} MiB of 3 MiB are copied" for number in (1, 2, 3)]


# --- folders ----------------------------------------------------------------------------------------------------------


async def test_a_backup_needs_a_new_folder(process: HubProcess, tmp_path: Path) -> None:
    """An empty folder is new, and becomes private."""
    assert "there is no log" in await refuse(tmp_path, "backup", "backup")
    await process.start()
    (tmp_path / "backup").mkdir(mode=0o755)
    await back_up(tmp_path)
    assert (tmp_path / "backup").stat().st_mode & 0o777 == 0o700
    assert "already has a backup" in await refuse(tmp_path, "backup", "backup")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "note").touch()
    assert "is not empty" in await refuse(tmp_path, "backup", "notes")
    assert "is a file" in await refuse(tmp_path, "backup", "notes/note")


async def test_data_is_never_overwritten(process: HubProcess, tmp_path: Path) -> None:
    """A running hub keeps its data. Of a stopped one, --force moves the data aside, where SQLite can read it."""
    await process.start()
    async with aiohttp.ClientSession() as http:
        await upload(http, process, "s", b"hello")
        await back_up(tmp_path)
        await upload(http, process, "t", b"later")
        for arguments in ((), ("--force",)):
            assert f"pid {process.pid}" in await refuse(tmp_path, "restore", "backup", *arguments)
        await process.kill()
    assert "--force" in await refuse(tmp_path, "restore", "backup")
    await restore(tmp_path, "--force")
    output = await restore(tmp_path, "--force")
    places = [Path(line.removeprefix("the old data is in ")) for line in without_progress(output.err).splitlines()]
    assert {place.exists() for place in places} == {True} and len(list((tmp_path / "data").iterdir())) > len(places)
    first_log, *_ = sorted((tmp_path / "data").glob("hub.db.before-restore-*"))
    assert query(first_log, "SELECT id FROM sessions ORDER BY id") == [("s",), ("t",)]
    first_blobs, *_ = sorted((tmp_path / "data").glob("files.before-restore-*"))
    assert (first_blobs / sha256(b"later").hexdigest()).read_bytes() == b"later"
    assert query(process.database, "SELECT id FROM sessions") == [("s",)]
    assert not [path for path in (tmp_path / "data").iterdir() if "part" in path.name]
    await process.start()


async def test_a_damaged_backup_is_refused(process: HubProcess, tmp_path: Path) -> None:
    """If the copy of the log has changed, nothing is restored. If a blob has changed, its file is named."""
    await process.start()
    async with aiohttp.ClientSession() as http:
        file_id = await upload(http, process, "s", b"hello")
        await upload(http, process, "s", b"other")
    await back_up(tmp_path)
    (tmp_path / "backup" / "files" / sha256(b"hello").hexdigest()).write_bytes(b"hullo")
    output = await run_hubbub(tmp_path, "restore", "backup", "--data", "other")
    assert output.code == 1 and output.out.count("\n") == 2 and f"file {file_id}: session s: the blob" in output.out
    blobs = [path.name for path in (tmp_path / "other" / "files").iterdir()]
    assert blobs == [sha256(b"other").hexdigest()]
    with (tmp_path / "backup" / "hub.db").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\xff")
    assert "not as it was" in await refuse(tmp_path, "restore", "backup", "--data", "third")
    assert {*os.listdir(tmp_path / "third")} == {"hub.db.lock", "files.lock"}


async def test_damage_in_the_data_folder_does_not_prevent_a_backup(process: HubProcess, tmp_path: Path) -> None:
    """A blob that is missing or has other bytes is named, and the exit code is 1."""
    await process.start()
    async with aiohttp.ClientSession() as http:
        for data in (b"one", b"two", b"three"):
            await upload(http, process, "s", data)
    files = tmp_path / "data" / "files"
    (files / sha256(b"one").hexdigest()).unlink()
    (files / sha256(b"two").hexdigest()).write_bytes(b"too")
    output = await run_hubbub(tmp_path, "backup", "backup")
    assert output.code == 1 and output.out.count("is missing or damaged") == 2
    assert [path.name for path in (tmp_path / "backup" / "files").iterdir()] == [sha256(b"three").hexdigest()]
    assert "not completed" not in (await run_hubbub(tmp_path, "restore", "backup", "--data", "other")).err
