"""Files: they are uploaded once, downloaded complete or in part, and deleted with their session."""

import asyncio
import gc
import gzip
import hashlib
import io
import json
import os
import random
import socket
import sys
import warnings
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import attrs
import pytest
from blockbuster import blockbuster_ctx
from structlog.testing import capture_logs
from support.hub import Hub
from support.process import HubProcess
from support.waiting import PATIENCE, eventually

from hub.errors import BadQuery, BadType, FileTooLarge, QuotaExceeded, StorageUnavailable, UnknownFile, UnknownSession
from hub.ids import Key
from hub.limits import KiB, Limits, MiB
from hub.messages import Author, Event, UserMessage
from hub.seams import Seams
from hub.sessions.file_access import make_file_access
from hub.storage.blobs import Files
from hub.storage.log import Log, LogUnusable
from hub.storage.quota import MIN_COUNTED_BYTES
from hub.storage.records import Append, FileRecord
from hub.storage.sqlite.files import SqliteFiles
from hub.storage.sqlite.log import SqliteLog
from hub.storage.sqlite.threads import LogThreads

TEXT = "text/plain; charset=utf-8"


@pytest.fixture
async def http(hub: Hub) -> AsyncIterator[aiohttp.ClientSession]:
    await hub.start()
    async with client(hub) as http:
        yield http


def client(hub: Hub) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(f"{hub.url}/api/v1/", timeout=aiohttp.ClientTimeout(PATIENCE))


async def post(http: aiohttp.ClientSession, data: Any, query: str = "sessionId=s1", kind: str = TEXT) -> Any:
    """Upload, and return the status and the body of the response."""
    body = io.BytesIO(data) if isinstance(data, bytes) else data
    async with http.post(f"files?{query}", data=body, headers={"Content-Type": kind}) as answer:
        return answer.status, await answer.json()


async def get(http: aiohttp.ClientSession, file_id: str, **headers: str) -> tuple[int, bytes, Any]:
    async with http.get(f"files/{file_id}", headers={k.replace("_", "-"): v for k, v in headers.items()}) as answer:
        return answer.status, await answer.read(), answer.headers


def on_disk(folder: Path) -> list[str]:
    """Return the names in the folder of files: blobs and unfinished uploads."""
    return sorted(path.name for path in (folder / "data" / "files").iterdir() if path.name != "log")


async def settled(folder: Path, files: list[str]) -> None:
    await eventually(lambda: on_disk(folder) == sorted(files))


async def delete_session(files: Files, log: Log, session_id: str) -> None:
    """Delete a session from the log, and then its files, as the hub does."""
    await files.forget_session(Key(session_id), await log.sessions.delete(Key(session_id)))


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


async def pieces(*data: bytes) -> AsyncIterator[bytes]:
    """Send a body without a Content-Length."""
    for piece in data:
        yield piece


# --- upload and download ----------------------------------------------------------------------------------------------


async def test_a_file_comes_back_unchanged(hub: Hub, http: aiohttp.ClientSession) -> None:
    """With its bytes, type and name, also after a restart. The upload creates the session."""
    data = random.Random(1).randbytes(3 * MiB + 7)
    status, said = await post(http, data, "sessionId=s1&name=photo.png", "image/png")
    assert status == 201
    assert said == {"fileId": said["fileId"], "sessionId": "s1", "name": "photo.png", "type": "image/png"} | {
        "size": len(data)
    }
    assert await hub.node.log.sessions.find(Key("s1")) is not None
    assert on_disk(hub.folder) == [digest(data)]
    await hub.stop()
    await hub.start()
    async with client(hub) as again:
        status, heard, headers = await get(again, said["fileId"])
    assert (status, heard) == (200, data) and headers["Content-Type"] == "image/png"
    assert headers["Content-Length"] == str(len(data)) and headers["ETag"] == f'"{digest(data)}"'


async def test_equal_bytes_are_stored_once(hub: Hub, http: aiohttp.ClientSession) -> None:
    """Each upload has an id of its own that cannot be guessed; there is one blob."""
    made = [await post(http, b"hello", f"sessionId=s{n}") for n in range(3)]
    ids = {said["fileId"] for _, said in made}
    assert len(ids) == 3 and all(len(one) == 34 for one in ids)
    assert on_disk(hub.folder) == [digest(b"hello")]


async def test_a_body_without_a_length_is_accepted(http: aiohttp.ClientSession) -> None:
    """Its size is counted while it is received."""
    status, said = await post(http, pieces(b"one ", b"two"))
    assert (status, said["size"]) == (201, 7)
    assert (await get(http, said["fileId"]))[1] == b"one two"


async def test_an_unknown_file_has_an_error_code(hub: Hub, http: aiohttp.ClientSession) -> None:
    """Also if the log has a record and the disk has no blob."""
    status, said, _ = await get(http, "f_nothing")
    assert (status, json.loads(said)["code"]) == (404, "unknown_file")
    _, made = await post(http, b"hello")
    (hub.folder / "data" / "files" / digest(b"hello")).unlink()
    status, said, _ = await get(http, made["fileId"])
    assert (status, json.loads(said)["code"]) == (404, "unknown_file")


@pytest.mark.parametrize(
    "asked, status, heard, where",
    [
        ("bytes=0-3", 206, b"0123", "bytes 0-3/10"),
        ("bytes=4-", 206, b"456789", "bytes 4-9/10"),
        ("bytes=0-", 206, b"0123456789", "bytes 0-9/10"),
        ("bytes=8-99", 206, b"89", "bytes 8-9/10"),
        ("bytes=-3", 206, b"789", "bytes 7-9/10"),
        ("bytes=-99", 206, b"0123456789", "bytes 0-9/10"),
        ("bytes=10-", 416, None, "bytes */10"),
        ("bytes=5-2", 416, None, "bytes */10"),
        ("bytes=-0", 416, None, "bytes */10"),
        ("bytes=0-1,4-5", 200, b"0123456789", None),
        ("lines=1-2", 200, b"0123456789", None),
    ],
)
async def test_a_range_is_answered_with_that_part(
    http: aiohttp.ClientSession, asked: str, status: int, heard: bytes | None, where: str | None
) -> None:
    """Several ranges and other units get the complete file; an empty range gets 416."""
    _, made = await post(http, b"0123456789")
    found, body, headers = await get(http, made["fileId"], Range=asked)
    assert (found, headers.get("Content-Range")) == (status, where)
    assert heard is None and json.loads(body)["code"] == "bad_range" or body == heard


async def test_a_range_of_another_content_gets_the_complete_file(http: aiohttp.ClientSession) -> None:
    """If-Range names the content that the client has."""
    _, made = await post(http, b"0123456789")
    same, other = f'"{digest(b"0123456789")}"', f'"{digest(b"other")}"'
    assert (await get(http, made["fileId"], Range="bytes=5-", If_Range=same))[:2] == (206, b"56789")
    assert (await get(http, made["fileId"], Range="bytes=5-", If_Range=other))[:2] == (200, b"0123456789")


async def test_a_cached_file_is_not_sent_again(http: aiohttp.ClientSession) -> None:
    """If-None-Match with the digest gets 304 and no body."""
    _, made = await post(http, b"0123456789")
    tag = f'"{digest(b"0123456789")}"'
    status, body, headers = await get(http, made["fileId"], If_None_Match=tag)
    assert (status, body, headers["ETag"]) == (304, b"", tag)
    assert (await get(http, made["fileId"], If_None_Match='"other"'))[:2] == (200, b"0123456789")


async def test_head_has_the_headers_of_get(http: aiohttp.ClientSession) -> None:
    """Without the bytes."""
    _, made = await post(http, b"0123456789")
    for headers, status, length in (({}, 200, "10"), ({"Range": "bytes=2-4"}, 206, "3")):
        async with http.head(f"files/{made['fileId']}", headers=headers) as answer:
            assert (answer.status, answer.headers["Content-Length"]) == (status, length)
            assert await answer.read() == b"" and answer.headers["Accept-Ranges"] == "bytes"


@pytest.mark.parametrize("kind", ["image/png", "IMAGE/JPEG", "image/svg+xml", "text/html", "application/pdf"])
async def test_a_file_is_never_a_page(http: aiohttp.ClientSession, kind: str) -> None:
    """Browsers show a few types of images only; they guess no type, and run nothing."""
    name = 'a "б" 100%.html'
    _, made = await post(http, b"<script>alert(1)</script>", f"sessionId=s1&name={quote(name)}", kind)
    assert made["name"] == name
    _, _, headers = await get(http, made["fileId"])
    assert headers["Content-Type"] == kind and headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Content-Security-Policy"] == "sandbox; default-src 'none'"
    shown, plain, encoded = headers["Content-Disposition"].split("; ")
    assert shown == ("inline" if kind in ("image/png", "IMAGE/JPEG") else "attachment")
    assert plain == 'filename="a ___ 100_.html"' and encoded == f"filename*=UTF-8''{quote(name)}"


# --- refused uploads --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "query, kind, data, status, code",
    [
        ("name=x", TEXT, b"x", 400, "bad_query"),
        ("sessionId=a%20b", TEXT, b"x", 400, "bad_id"),
        ("sessionId=s1&name=", TEXT, b"x", 400, "bad_query"),
        ("sessionId=s1&name=a%2Fb", TEXT, b"x", 400, "bad_query"),
        ("sessionId=s1&name=a%5Cb", TEXT, b"x", 400, "bad_query"),
        ("sessionId=s1&name=a%0Ab", TEXT, b"x", 400, "bad_query"),
        ("sessionId=s1&name=a%E2%80%AEb", TEXT, b"x", 400, "bad_query"),
        ("sessionId=s1&name=" + "x" * 201, TEXT, b"x", 400, "bad_query"),
        ("sessionId=s1", "text", b"x", 400, "bad_type"),
        ("sessionId=s1", "*/*", b"x", 400, "bad_type"),
        ("sessionId=s1", "text/plain; charset", b"x", 400, "bad_type"),
        ("sessionId=s1", "text/" + "x" * 300, b"x", 400, "bad_type"),
        ("sessionId=s1", "multipart/form-data; boundary=x", b"x", 400, "bad_frame"),
        ("sessionId=s1", TEXT, b"", 400, "empty_file"),
    ],
)
async def test_a_bad_upload_is_refused(
    hub: Hub, http: aiohttp.ClientSession, query: str, kind: str, data: bytes, status: int, code: str
) -> None:
    """With an error code. It leaves no file and no session."""
    found, said = await post(http, data, query, kind)
    assert (found, said["code"]) == (status, code)
    assert on_disk(hub.folder) == [] and await hub.node.log.sessions.find(Key("s1")) is None


async def test_a_compressed_upload_is_refused(hub: Hub, http: aiohttp.ClientSession) -> None:
    """aiohttp does not notice if such a body is cut off, and the bytes would not be those that were sent."""
    data = gzip.compress(b"hello " * 1000)[:-12]
    headers = {"Content-Type": TEXT, "Content-Encoding": "gzip"}
    async with http.post("files?sessionId=s1&name=x", data=data, headers=headers) as response:
        assert (response.status, (await response.json())["code"]) == (400, "bad_type")
    assert on_disk(hub.folder) == []


@pytest.mark.parametrize("kind", [TEXT, 'a/b+c;d="e f; g" ; h=i', "application/vnd.openxml.sheet"])
@pytest.mark.parametrize("name", ["x" * 200, "мой отчёт (1).pdf", ".."])
async def test_unusual_names_and_types_are_accepted(http: aiohttp.ClientSession, kind: str, name: str) -> None:
    """A name is a text, and never a path; a type may have parameters."""
    status, said = await post(http, b"x", f"sessionId=s1&name={quote(name)}", kind)
    assert (status, said["name"], said["type"]) == (201, name, kind)


@pytest.mark.parametrize("headers", [{}, {"Content-Type": "application/x-www-form-urlencoded"}], ids=["none", "curl"])
@pytest.mark.parametrize("name, kind", [("cat.png", "image/png"), ("cat", "application/octet-stream")])
async def test_a_file_without_a_type_gets_that_of_its_name(
    http: aiohttp.ClientSession, name: str, kind: str, headers: dict[str, str]
) -> None:
    """`curl -T` sends no type, and `curl --data-binary` the type of a form."""
    request = http.post(
        f"files?sessionId=s1&name={name}", data=b"x", headers=headers, skip_auto_headers=["Content-Type"]
    )
    async with request as answer:
        assert (answer.status, (await answer.json())["type"]) == (201, kind)


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("size, status", [(99_999, 201), (100_000, 201), (100_001, 413)])
async def test_a_file_has_a_limit(hub: Hub, told: bool, size: int, status: int) -> None:
    """Whether or not the client declares its size; nothing of a larger file stays."""
    await hub.start(file_bytes=100_000)
    data = b"x" * size
    async with client(hub) as http:
        found, said = await post(http, data if told else pieces(data[:50_000], data[50_000:]))
    assert found == status and said.get("code") == (None if status == 201 else "file_too_large")
    assert on_disk(hub.folder) == ([digest(data)] if status == 201 else [])


async def test_the_files_of_a_session_and_of_the_hub_have_limits(hub: Hub) -> None:
    """One file more is refused. Refused and deleted files take no space, and a restart counts the same."""
    await hub.start(session_files_bytes=10 * MIN_COUNTED_BYTES, files_bytes=15 * MIN_COUNTED_BYTES)
    async with client(hub) as http:
        assert (await post(http, b"a" * 6 * MIN_COUNTED_BYTES))[0] == 201
        status, said = await post(http, b"b" * (4 * MIN_COUNTED_BYTES + 1))
        assert (status, said["code"]) == (413, "quota_exceeded") and "session" in said["error"]
        assert (await post(http, b"c" * 4 * MIN_COUNTED_BYTES))[0] == 201
        assert (await post(http, b"d"))[0] == 413  # a small one takes a block, too
        status, said = await post(http, b"e" * 6 * MIN_COUNTED_BYTES, "sessionId=s2")
        assert (status, said["code"]) == (413, "quota_exceeded") and "hub" in said["error"]
        assert (await post(http, b"f" * 4 * MIN_COUNTED_BYTES, "sessionId=s2"))[0] == 201
    await hub.stop()
    await hub.start()
    async with client(hub) as http:
        assert (await post(http, b"g"))[0] == 413
        assert (await post(http, b"h" * 2 * MIN_COUNTED_BYTES, "sessionId=s2"))[0] == 413
        await delete_session(hub.node.files, hub.node.log, "s1")
        assert (await post(http, b"i" * 6 * MIN_COUNTED_BYTES, "sessionId=s2"))[0] == 201
        assert (await post(http, b"j" * 5 * MIN_COUNTED_BYTES))[0] == 201
    assert len(on_disk(hub.folder)) == 3


async def test_a_slow_upload_is_cut_off(hub: Hub) -> None:
    """At its time limit, and no part of it stays."""
    await hub.start(upload_seconds=0.2)

    async def slow() -> AsyncIterator[bytes]:
        yield b"one "
        await asyncio.sleep(PATIENCE)

    async with client(hub) as http:
        status, said = await post(http, slow())
    assert (status, said["code"]) == (408, "too_slow")
    await settled(hub.folder, [])


async def test_a_declared_size_above_the_limit_is_refused_at_once(hub: Hub) -> None:
    """Before the first byte."""
    await hub.start(file_bytes=999)
    reader, writer = await asyncio.open_connection("127.0.0.1", hub.port)
    writer.write(b"POST /api/v1/files?sessionId=s1 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n")
    assert b" 413 " in await asyncio.wait_for(reader.readline(), PATIENCE)
    writer.close()


async def begun(port: int) -> asyncio.StreamWriter:
    """Begin an upload of 1000 bytes, and send a few of them."""
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"POST /api/v1/files?sessionId=s1 HTTP/1.1\r\nHost: localhost\r\nContent-Type: {TEXT}\r\n"
    writer.write((head + "Content-Length: 1000\r\n\r\nhello").encode())
    await writer.drain()
    return writer


async def arrived(folder: Path) -> None:
    await eventually(lambda: any(name.endswith(".part") for name in on_disk(folder)))


@pytest.mark.parametrize("how", ["close", "abort"])
async def test_a_cut_off_upload_leaves_nothing(hub: Hub, http: aiohttp.ClientSession, how: str) -> None:
    """Neither a file nor a session, and no traceback."""
    with capture_logs() as logs:
        writer = await begun(hub.port)
        await arrived(hub.folder)
        if how == "abort":
            writer.transport.abort()
        writer.close()
        await settled(hub.folder, [])
    assert await hub.node.log.sessions.find(Key("s1")) is None and logs == []
    assert (await post(http, b"hello"))[0] == 201


async def test_an_upload_is_cut_off_when_the_hub_stops(hub: Hub) -> None:
    """It leaves no file."""
    await hub.start()
    writer = await begun(hub.port)
    await arrived(hub.folder)
    await hub.stop()
    assert on_disk(hub.folder) == []
    writer.close()


async def test_a_draining_hub_refuses_uploads(hub: Hub, http: aiohttp.ClientSession) -> None:
    """With `draining`, as it refuses chats."""
    hub.node.drain()
    status, said = await post(http, b"hello")
    assert (status, said["code"]) == (503, "draining")


async def test_the_start_removes_unused_files_of_a_killed_hub(tmp_path: Path) -> None:
    """An unfinished upload, and a blob without a record; blobs with a record stay."""
    hub = HubProcess(tmp_path)
    await hub.start()
    async with aiohttp.ClientSession(f"{hub.url}/api/v1/") as http:
        _, made = await post(http, b"kept")
    writer = await begun(hub.port)
    await arrived(tmp_path)
    await hub.kill()
    writer.close()
    folder = tmp_path / "data" / "files"
    for n in range(600):
        (folder / digest(b"%d" % n)).write_bytes(b"%d" % n)
    (folder / "mine.txt").write_text("not a blob")
    assert len(on_disk(tmp_path)) == 603
    await hub.start()
    assert on_disk(tmp_path) == sorted([digest(b"kept"), "mine.txt"])
    async with aiohttp.ClientSession(f"{hub.url}/api/v1/") as http:
        assert (await get(http, made["fileId"]))[:2] == (200, b"kept")
    await hub.kill()


async def test_another_logs_files_are_left_alone(hub: Hub) -> None:
    """A hub with another log in the same data folder removes no blob."""
    await hub.start()
    async with client(hub) as http:
        _, made = await post(http, b"hello")
    await hub.stop()
    hub.options["log"] = f"sqlite:///{hub.folder}/other.db"
    await hub.start()
    async with client(hub) as http:
        await post(http, b"hello", "sessionId=s2")
    await delete_session(hub.node.files, hub.node.log, "s2")
    await hub.stop()
    del hub.options["log"]
    await hub.start()
    async with client(hub) as http:
        assert (await get(http, made["fileId"]))[:2] == (200, b"hello")


@pytest.mark.parametrize("how", ["otherwise written", "moved"])
async def test_a_files_folder_belongs_to_one_log(hub: Hub, how: str) -> None:
    """Also if the path of the log is written differently, or the data folder is moved with both."""
    await hub.start()
    async with client(hub) as http:
        await post(http, b"hello")
    await hub.stop()
    hub.folder = (
        Path(os.path.relpath(hub.folder)) if how == "otherwise written" else hub.folder.rename(f"{hub.folder}-2")
    )
    await hub.start()
    await delete_session(hub.node.files, hub.node.log, "s1")
    assert on_disk(hub.folder) == []


async def test_two_hubs_cannot_share_a_files_folder(hub: Hub) -> None:
    """One would remove the uploads of the other, also if each has a log of its own."""
    await hub.start()
    other = Hub(hub.folder, options={"log": f"sqlite:///{hub.folder}/other.db"})
    with pytest.raises(LogUnusable, match="another hub"):
        await other.start()


async def test_a_client_that_reads_nothing_is_cut_off(hub: Hub) -> None:
    """After the time limit for stuck clients; others are served meanwhile."""
    await hub.start(stuck_seconds=0.3)
    async with client(hub) as http:
        _, made = await post(http, random.Random(2).randbytes(16 * MiB))
        _, other = await post(http, b"hello")  # sent in one piece: no pause of this process makes its client stuck
        with socket.socket() as stuck:
            stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            stuck.connect(("127.0.0.1", hub.port))
            stuck.sendall(f"GET /api/v1/files/{made['fileId']} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            await eventually(lambda: sending(hub.folder))
            assert (await get(http, other["fileId"]))[1] == b"hello"
            await eventually(lambda: not sending(hub.folder))


def sending(folder: Path) -> int:
    """Return how many descriptors this process has open on blobs."""
    held = [fd for fd in Path("/proc/self/fd").iterdir() if fd.is_symlink()]
    return sum(f"{folder}/data/files/" in str(fd.readlink()) for fd in held if fd.exists())


# --- deletion ---------------------------------------------------------------------------------------------------------


async def test_files_are_removed_with_their_session(hub: Hub, http: aiohttp.ClientSession) -> None:
    """A blob that another session uses stays."""
    _, mine = await post(http, b"mine")
    _, ours = await post(http, b"ours")
    _, theirs = await post(http, b"ours", "sessionId=s2")
    await delete_session(hub.node.files, hub.node.log, "s1")
    assert on_disk(hub.folder) == [digest(b"ours")]
    assert [(await get(http, one["fileId"]))[0] for one in (mine, ours, theirs)] == [404, 404, 200]
    await delete_session(hub.node.files, hub.node.log, "s1")
    await delete_session(hub.node.files, hub.node.log, "s2")
    assert on_disk(hub.folder) == []


async def test_a_file_is_deleted_alone(hub: Hub, http: aiohttp.ClientSession) -> None:
    """Equal bytes of another file stay, and the deleted file does not count any more."""
    files = [(await post(http, data))[1]["fileId"] for data in (b"twice", b"twice", b"once")]
    for file_id in (files[0], files[2]):
        async with http.delete(f"files/{file_id}") as answer:
            assert answer.status == 204
    assert [(await get(http, file_id))[0] for file_id in files] == [404, 200, 404]
    assert on_disk(hub.folder) == [digest(b"twice")] and hub.node.files.quota._total == MIN_COUNTED_BYTES
    async with http.delete(f"files/{files[0]}") as answer:
        assert (answer.status, (await answer.json())["code"]) == (404, "unknown_file")
    assert await hub.node.log.sessions.find(Key("s1")) is not None


async def test_a_download_that_has_begun_outlives_its_file(tmp_path: Path) -> None:
    """Its bytes come to the end; the next download finds no file."""
    async with store(tmp_path) as (files, log, _):
        file = await files.save(Key("a"), "x", TEXT, b"hello")
        async with files.open(file) as read:
            await files.delete(file.fileId)
            assert on_disk(tmp_path) == [] and await read(0, 5) == b"hello"
        with pytest.raises(UnknownFile):
            await files.find(file.fileId)


async def test_a_cancelled_deletion_is_complete(tmp_path: Path) -> None:
    """The blob of a deleted record goes, and does not count any more, although nobody waits for it."""
    async with store(tmp_path) as (files, log, _):
        file = await files.save(Key("a"), "x", TEXT, b"hello")
        deletion = asyncio.create_task(files.delete(file.fileId))
        await asyncio.sleep(0)
        deletion.cancel()
        with pytest.raises(asyncio.CancelledError):
            await deletion
        await settled(tmp_path, [])
        assert await log.files.find(file.fileId) is None and files.quota._total == 0


async def test_the_files_of_a_session_are_listed(hub: Hub, http: aiohttp.ClientSession) -> None:
    """Page by page, with the time of the upload; those of other sessions are not in the list."""
    for name in ("one", "two", "three"):
        await post(http, name.encode(), f"sessionId=s1&name={name}.txt")
    await post(http, b"theirs", "sessionId=s2")
    async with http.get("sessions/s1/files?limit=2") as answer:
        first = await answer.json()
    async with http.get(f"sessions/s1/files?limit=2&after={first['next']}") as answer:
        second = await answer.json()
    files = first["data"] + second["data"]
    assert [file["name"] for file in files] == ["one.txt", "two.txt", "three.txt"] and not second["more"]
    record = await hub.node.files.find(files[0]["fileId"])
    assert files[0] == {"fileId": record.fileId, "sessionId": "s1", "name": "one.txt", "type": TEXT} | {
        "size": 3,
        "ts": record.created,
    }
    async with http.get("sessions/nobody/files") as answer:
        assert (answer.status, (await answer.json())["code"]) == (404, "unknown_session")


class Halting(SqliteFiles):
    """The file records of a log. Some calls wait until the test lets them go on."""

    def __init__(self, threads: LogThreads) -> None:
        super().__init__(threads)
        self.halts: set[str] = set()
        self.has_halted, self.go = asyncio.Event(), asyncio.Event()

    async def _halt(self, where: str) -> None:
        if where in self.halts:
            self.halts.remove(where)
            self.has_halted.set()
            await self.go.wait()

    async def find_used_digests(self, digests: Sequence[str]) -> Sequence[str]:
        found = await super().find_used_digests(digests)
        await self._halt("named")
        return found

    async def add(self, file: FileRecord) -> None:
        await self._halt("keep")
        await super().add(file)


@asynccontextmanager
async def store(folder: Path, **limits: Any) -> AsyncIterator[tuple[Files, SqliteLog, Halting]]:
    log = SqliteLog(f"sqlite:///{folder}/data/hub.db", Limits(), Seams())
    halting = Halting(log._threads)
    await log.start(lambda session, events: None)
    for session in ("a", "b"):
        await log.sessions.make(Key(session))
    files = Files(folder=folder / "data" / "files", store=halting, limits=Limits(**limits), seams=Seams())
    await files.start(log.identify(folder / "data"))
    try:
        yield files, log, halting
    finally:
        await files.close()
        await log.close()


@pytest.mark.parametrize("halted", ["named", "keep"])
async def test_equal_bytes_may_be_uploaded_during_a_deletion(tmp_path: Path, halted: str) -> None:
    """The lock of the digest separates the steps of the upload and the deletion."""
    async with store(tmp_path) as (files, log, halting):
        await files.save(Key("a"), "x", TEXT, b"hello")
        halting.halts.add(halted)
        coming, going = files.save(Key("b"), "x", TEXT, b"hello"), delete_session(files, log, "a")
        first, second = (going, coming) if halted == "named" else (coming, going)
        begun: asyncio.Future[Any] = asyncio.ensure_future(first)
        await asyncio.wait_for(halting.has_halted.wait(), PATIENCE)
        other: asyncio.Future[Any] = asyncio.ensure_future(second)
        await asyncio.wait([other], timeout=0.5)  # it goes on up to the lock
        halting.go.set()
        await asyncio.wait_for(asyncio.gather(begun, other), PATIENCE)
        kept = begun.result() or other.result()
        assert await files.read(kept) == b"hello"
        await delete_session(files, log, "b")
        assert on_disk(tmp_path) == []


async def test_random_uploads_and_deletions_keep_used_blobs(tmp_path: Path) -> None:
    """In any order, each saved file of a living session can be read, and no unused blob is left."""
    async with store(tmp_path) as (files, log, halting):
        chance = random.Random(3)
        sessions = [f"s{n}" for n in range(8)]
        for session in sessions:
            await log.sessions.make(Key(session))

        async def upload_and_delete(session: str) -> None:
            for _ in range(15):
                kept = await files.save(Key(session), "x", TEXT, b"%d" % chance.randrange(2))
                assert len(await files.read(kept)) == 1
                if chance.random() < 0.7:
                    await delete_session(files, log, session)
                    await log.sessions.make(Key(session))

        await asyncio.gather(*map(upload_and_delete, sessions))
        named = await log.files.find_used_digests([digest(b"0"), digest(b"1")])
        assert on_disk(tmp_path) == sorted(named)
        await asyncio.gather(*(delete_session(files, log, session) for session in sessions))
        assert on_disk(tmp_path) == [] and not files.quota._bytes and files.quota._total == 0


async def test_random_copies_and_deletions_keep_used_blobs(tmp_path: Path) -> None:
    """A copy that the log takes during the deletion of its source can be read. The blob goes with the last record."""
    async with store(tmp_path) as (files, log, _):
        chance = random.Random(4)

        async def copy(file: FileRecord, name: str) -> None:
            """Copy a file to a new session, and delete the session."""
            event = Event(None, None, UserMessage(messageId="u", author=Author("a", "A"), content=""))
            stored: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
            await asyncio.sleep(chance.random() / 200)
            log.events.append(Append(Key(name), [event], file_copies={file.fileId: f"f_{name}"}), stored.set_result)
            if await stored == 1:
                assert len(await files.read(await files.find(f"f_{name}"))) == 1
                files.quota.add(Key(name), MIN_COUNTED_BYTES)
                await delete_session(files, log, name)

        async def delete(file: FileRecord) -> None:
            await asyncio.sleep(chance.random() / 200)
            await files.delete(file.fileId)

        for n in range(30):
            file = await files.save(Key("a"), "x", TEXT, b"%d" % (n % 2))
            await asyncio.gather(delete(file), *(copy(file, f"{n}-{m}") for m in range(6)))
            assert on_disk(tmp_path) == []
        assert files.quota._total == 0


async def test_erased_files_leave_their_session(tmp_path: Path) -> None:
    """Their blobs go, unless another file has the same bytes, and they do not count. Uploads to the session go on."""
    async with store(tmp_path) as (files, log, _):
        kept = await files.save(Key("a"), "x", TEXT, b"twice")
        said = [await files.save(Key("a"), "x", TEXT, data) for data in (b"twice", b"once")]
        author = Author("p_ann", "Ann")
        content = " and ".join(file.fileId for file in said)
        event = Event(None, None, UserMessage(messageId="u", author=author, content=content))
        stored: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        log.events.append(Append(Key("a"), [event]), stored.set_result)
        assert await asyncio.wait_for(stored, PATIENCE) == 1
        async with files.upload(Key("a"), "x", TEXT) as upload:
            await files.forget_files(Key("a"), (await log.sessions.erase_messages(Key("a"), "p_ann")).files)
            await upload.write(b"later")
            await upload.finish()
            await upload.save()
        assert on_disk(tmp_path) == sorted([digest(b"twice"), digest(b"later")])
        assert await files.read(kept) == b"twice" and files.quota._total == 2 * MIN_COUNTED_BYTES


async def test_an_upload_to_a_session_that_is_deleted_is_refused(tmp_path: Path) -> None:
    """At any step. It leaves no blob, and its bytes do not count any more."""
    async with store(tmp_path) as (files, log, halting):
        with pytest.raises(UnknownSession):
            async with files.upload(Key("a"), "x", TEXT) as upload:
                await upload.write(b"hello")
                await delete_session(files, log, "a")
                await upload.write(b"hello")
        await log.sessions.make(Key("a"))
        with pytest.raises(UnknownSession):
            async with files.upload(Key("a"), "x", TEXT) as upload:
                await upload.write(b"hello")
                await upload.finish()
                await delete_session(files, log, "a")
                await upload.save()
        await log.sessions.make(Key("a"))
        halting.halts.add("keep")
        late = asyncio.create_task(files.save(Key("a"), "x", TEXT, b"hello"))
        await asyncio.wait_for(halting.has_halted.wait(), PATIENCE)
        await delete_session(files, log, "a")
        halting.go.set()
        with pytest.raises(UnknownSession):
            await late
        await log.sessions.make(Key("a"))
        async with files.upload(Key("a"), "x", TEXT) as upload:
            await upload.write(b"hello")
            await upload.finish()
            await delete_session(files, log, "b")
            await upload.save()
        await delete_session(files, log, "a")
        assert on_disk(tmp_path) == [] and not files.quota._bytes and files.quota._total == 0


async def test_a_cancelled_upload_is_complete_or_absent(tmp_path: Path) -> None:
    """A step that writes to disk and log is finished. An earlier cancel leaves no blob."""
    async with store(tmp_path) as (files, log, halting):
        halting.halts.add("keep")
        kept = asyncio.create_task(files.save(Key("a"), "x", TEXT, b"hello"))
        await asyncio.wait_for(halting.has_halted.wait(), PATIENCE)
        kept.cancel()
        await asyncio.wait([kept], timeout=0.1)
        halting.go.set()
        with pytest.raises(asyncio.CancelledError):
            await kept
        assert await log.files.find_used_digests([digest(b"hello")]) and on_disk(tmp_path) == [digest(b"hello")]
        for turns in range(12):
            task = asyncio.create_task(files.save(Key("b"), "x", TEXT, b"%d" % turns))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
        named = await log.files.find_used_digests([digest(b"%d" % turns) for turns in range(12)])
        assert on_disk(tmp_path) == sorted([digest(b"hello"), *named])


async def test_a_record_that_the_log_refuses_leaves_no_blob(tmp_path: Path) -> None:
    """Unless another file has the same bytes."""
    async with store(tmp_path) as (files, log, halting):
        await files.save(Key("a"), "x", TEXT, b"both")
        for data in (b"both", b"mine"):
            with pytest.raises(StorageUnavailable):
                await files.save(Key("stranger"), "x", TEXT, data)
        assert on_disk(tmp_path) == [digest(b"both")]


async def test_close_waits_for_unfinished_steps(tmp_path: Path) -> None:
    """Also if no caller waits for them any more."""
    async with store(tmp_path) as (files, log, halting):
        halting.halts.add("keep")
        keeping = asyncio.create_task(files.save(Key("a"), "x", TEXT, b"hello"))
        await asyncio.wait_for(halting.has_halted.wait(), PATIENCE)
        keeping.cancel()
        await asyncio.wait([keeping], timeout=0.1)
        closing = asyncio.create_task(files.close())
        await asyncio.wait([closing], timeout=0.1)
        assert not closing.done()
        halting.go.set()
        await asyncio.wait_for(closing, PATIENCE)
        assert await log.files.find_used_digests([digest(b"hello")])


async def test_an_unwritable_store_reports_it(tmp_path: Path) -> None:
    """With the error code of an unwritable log; the counted space is free again."""
    async with store(tmp_path) as (files, log, halting):
        (tmp_path / "data" / "files").rename(tmp_path / "gone")
        with pytest.raises(StorageUnavailable):
            await files.save(Key("a"), "x", TEXT, b"hello")
        (tmp_path / "gone").rename(tmp_path / "data" / "files")
        await log.close()
        with pytest.raises(StorageUnavailable):
            await files.save(Key("a"), "x", TEXT, b"hello")
        assert not files.quota._bytes and files.quota._total == 0
    for closed_files in (files, attrs.evolve(files)):  # after close(), and before start()
        with pytest.raises(StorageUnavailable, match="as the hub starts or goes down: try again in a moment"):
            await closed_files.save(Key("a"), "x", TEXT, b"hello")


# --- agents -----------------------------------------------------------------------------------------------------------


async def ask(hub: Hub, agent: str, message: str, session: str = "s1") -> list[dict[str, Any]]:
    """Chat, and return all frames of the answer in the extended protocol."""
    client = await hub.connect(f"?sessionId={session}", extended=True)
    await client.send(type="chat", agentId=agent, sessionId=session, message=message)
    await client.until_done()
    return client.frames


RESULTS = """
from hub import ToolCallResult

async def results(message: str):
    unit, count = message.split()
    yield "before "
    yield ToolCallResult("c1", unit * int(count), isError=False)
    yield "after"
"""


@pytest.mark.parametrize(
    "unit, count, whole",
    [("x", 32 * KiB, True), ("x", 32 * KiB + 1, False), ("é", 16 * KiB, True), ("€", 20_000, False)],
)
async def test_a_large_tool_result_is_stored_as_a_file(hub: Hub, unit: str, count: int, whole: bool) -> None:
    """Its event has the first characters and the id of the file. The order of the events stays."""
    hub.agent("results.py", RESULTS)
    await hub.start()
    frames = await ask(hub, "results", f"{unit} {count}")
    kinds = [frame["type"] for frame in frames if frame["type"] in ("stream", "tool_call_result", "run_finished")]
    assert kinds == ["stream", "tool_call_result", "stream", "run_finished"]
    (result,) = [frame for frame in frames if frame["type"] == "tool_call_result"]
    data = (unit * count).encode()
    if whole:
        assert result["content"].encode() == data and "fileId" not in result and "size" not in result
        assert on_disk(hub.folder) == []
        return
    assert result["content"] == unit * (KiB // len(unit.encode())) and result["size"] == len(data)
    async with client(hub) as http:
        status, heard, headers = await get(http, result["fileId"])
    assert (status, heard, headers["Content-Type"]) == (200, data, TEXT)
    assert 'filename="tool-result.txt"' in headers["Content-Disposition"]


async def test_a_large_tool_result_has_the_size_limit_of_a_file(hub: Hub) -> None:
    """It may exceed the text limit of a run. One that exceeds the limit of a file ends the run, and is not stored."""
    hub.agent("results.py", RESULTS)
    await hub.start(run_bytes=64 * KiB, file_bytes=MiB)
    frames = await ask(hub, "results", f"x {MiB}")
    assert frames[-1]["stopReason"] == "end_turn" and len(on_disk(hub.folder)) == 1
    for unit in "xé":
        frames = await ask(hub, "results", f"{unit} {MiB + (unit == 'x')}", "s2")
        assert [frame["code"] for frame in frames if frame["type"] == "run_error"] == ["answer_too_long"]
    assert len(on_disk(hub.folder)) == 1


async def test_a_large_tool_result_with_a_lone_surrogate_ends_only_its_run(hub: Hub) -> None:
    """As in any text."""
    hub.agent(
        "bad.py", "from hub import *\n\nasync def bad(message: str):\n    yield ToolCallResult('c', '\\ud800' * 40_000)"
    )
    await hub.start()
    frames = await ask(hub, "bad", "x")
    assert [frame["code"] for frame in frames if frame["type"] == "run_error"] == ["agent_bad_output"]
    assert on_disk(hub.folder) == []


async def test_the_file_of_a_tool_result_is_stored_before_its_event(hub: Hub) -> None:
    """A client that receives the event can fetch the file at once."""
    hub.agent("results.py", RESULTS)
    await hub.start()
    listener = await hub.connect("?sessionId=s1", extended=True)
    async with client(hub) as http:
        for n in range(5):
            await listener.send(type="chat", agentId="results", sessionId="s1", message=f"{n} 40000")
            result = await listener.until_type("tool_call_result")
            assert (await get(http, result["fileId"]))[1] == b"%d" % n * 40_000
            await listener.until_done()


async def test_a_full_session_ends_the_run_with_the_quotas_code(hub: Hub) -> None:
    """The earlier text of the run stays."""
    hub.agent("results.py", RESULTS)
    await hub.start(session_files_bytes=64 * KiB)
    frames = await ask(hub, "results", "x 70000")
    assert [frame["code"] for frame in frames if frame["type"] == "run_error"] == ["quota_exceeded"]
    assert [frame["content"] for frame in frames if frame["type"] == "stream"] == ["before "]


READER = """
from hub import AgentError, Run

async def reader(run: Run):
    try:
        data = await run.file(run.message)
    except AgentError as error:
        yield error.code
        return
    yield await run.keep("copy.bin", "application/octet-stream", data[::-1])
"""
ASKER = "async def asker(run):\n    yield await run.call('reader', run.message)"


@pytest.mark.parametrize("agent", ["reader", "asker"])
async def test_an_agent_reads_attached_files_and_saves_its_own(
    hub: Hub, http: aiohttp.ClientSession, agent: str
) -> None:
    """Only those of its session, also for the agents that it calls."""
    hub.agent("reader.py", READER)
    hub.agent("asker.py", ASKER)
    await hub.stop()
    await hub.start()
    async with client(hub) as http:
        _, made = await post(http, b"hello")
        assert [frame["content"] for frame in await ask(hub, agent, made["fileId"], "s2") if "offset" in frame] == [
            "unknown_file"
        ]
        said = [frame["content"] for frame in await ask(hub, agent, made["fileId"]) if "offset" in frame]
        status, heard, headers = await get(http, said[0])
    assert (status, heard, headers["Content-Type"]) == (200, b"olleh", "application/octet-stream")
    assert (await hub.node.files.find(said[0])).key == "s1"


async def test_without_a_session_an_agent_has_no_files(hub: Hub, http: aiohttp.ClientSession) -> None:
    """Requests of OpenAI's clients without a session leave no file."""
    hub.agent("reader.py", READER)
    hub.agent("keeper.py", "async def keeper(run):\n    yield await run.keep('x', 'text/plain', b'x')")
    await hub.stop()
    await hub.start()
    async with client(hub) as http:
        _, made = await post(http, b"hello")
        body: dict[str, Any] = {"model": "reader", "messages": [{"role": "user", "content": made["fileId"]}]}
        async with http.post("chat/completions", json=body) as answer:
            assert (await answer.json())["choices"][0]["message"]["content"] == "unknown_file"
        async with http.post("chat/completions", json=body | {"model": "keeper"}) as answer:
            assert (await answer.json())["error"]["code"] == "unknown_session"


@pytest.mark.parametrize(
    "name, kind, data, error",
    [
        ("a/b", TEXT, b"x", BadQuery),
        ("x", "text", b"x", BadType),
        ("x", TEXT, b"x" * (64 * KiB + 1), FileTooLarge),
        ("x", TEXT, b"x" * 64 * KiB, QuotaExceeded),
    ],
)
async def test_agents_and_clients_have_the_same_file_limits(
    tmp_path: Path, name: str, kind: str, data: bytes, error: type[Exception]
) -> None:
    """The limits are checked in the store, and not only in the routes."""
    async with store(tmp_path, file_bytes=64 * KiB, session_files_bytes=60 * KiB) as (files, _, _):
        with pytest.raises(error):
            await files.save(Key("a"), name, kind, data)
        with pytest.raises(UnknownFile):
            await files.find("f_nothing")
        assert on_disk(tmp_path) == []


async def test_an_agent_cannot_change_saved_bytes(tmp_path: Path) -> None:
    """A bytearray is saved as it was at the call; other types than bytes are refused."""
    async with store(tmp_path) as (files, _, _):
        given = bytearray(b"hello")
        keeping: Awaitable[str] = make_file_access(files, "a").store("x", TEXT, given)  # type: ignore[arg-type]
        task = asyncio.ensure_future(keeping)
        await asyncio.sleep(0)
        given[:] = b"other"
        assert await files.read(await files.find(await task)) == b"hello"
        with pytest.raises(TypeError):
            await make_file_access(files, "a").store("x", TEXT, "text")  # type: ignore[arg-type]


async def test_files_are_not_opened_in_the_event_loop(hub: Hub) -> None:
    """All work with the disk runs in threads."""
    hub.agent("reader.py", READER)
    hub.agent("results.py", RESULTS)
    await hub.start()
    async with client(hub) as http:
        with blockbuster_ctx("hub.storage.blobs"):
            _, made = await post(http, b"hello")
            assert (await get(http, made["fileId"]))[1] == b"hello"
            assert (await post(http, b"x" * 100, "sessionId=s1&name=%2F"))[0] == 400
            await ask(hub, "reader", made["fileId"])
            await ask(hub, "results", "x 70000")
            await delete_session(hub.node.files, hub.node.log, "s1")
    assert on_disk(hub.folder) == []


async def test_an_agent_whose_answer_has_ended_saves_no_file(hub: Hub) -> None:
    """It may outlive its session, and another session may have its id."""
    code = """
        import asyncio, pathlib

        async def late(run):
            yield "a "
            while not pathlib.Path(run.message).exists():
                try:
                    await asyncio.sleep(0.01)
                except asyncio.CancelledError:
                    pass
            await run.keep("late.txt", "text/plain", b"of the old session")
        """
    hub.agent("late.py", code)
    await hub.start(grace_seconds=0.1)
    gate = hub.folder / "gate"
    listener = await hub.connect(extended=True)
    await listener.send(type="chat", agentId="late", sessionId="s1", message=str(gate))
    await listener.until_type("stream")
    async with client(hub) as http:
        async with http.delete("sessions/s1") as said:
            assert said.status == 204
        async with http.post("sessions", json={"sessionId": "s1"}) as said:
            assert said.status == 201
    agent = hub.node.agents.get_working("late")
    gate.touch()
    await eventually(lambda: not agent.running_answers)
    assert await hub.node.log.files.sum_bytes_by_session(1) == {} and on_disk(hub.folder) == []


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no modes: run this on Linux or macOS")
async def test_no_other_account_reads_stored_files(hub: Hub) -> None:
    """Also if an older hub left them open."""
    data = hub.folder / "data"
    data.mkdir(mode=0o755)
    (data / "hub.db").touch(mode=0o644)
    (data / "hub.db-wal").touch(mode=0o644)
    await hub.start()
    async with aiohttp.ClientSession(base_url=f"{hub.url}/api/v1/") as http:
        await post(http, b"secret")
    modes = {path.relative_to(hub.folder): path.stat().st_mode & 0o777 for path in [data, *data.rglob("*")]}
    assert len(modes) > 6
    for path, mode in modes.items():
        assert mode == (0o700 if (hub.folder / path).is_dir() else 0o600), path


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no modes: run this on Linux or macOS")
async def test_the_mode_of_a_shared_folder_does_not_change(hub: Hub) -> None:
    """Only the hub's own files are closed: the folder may be /tmp, or that of a project."""
    data = hub.folder / "data"
    data.mkdir()
    data.chmod(0o1777)
    (data / "theirs.txt").touch(mode=0o644)
    for _ in range(2):
        await hub.start()
        await hub.stop()
        assert data.stat().st_mode & 0o7777 == 0o1777
        assert (data / "theirs.txt").stat().st_mode & 0o777 == 0o644
        assert (data / "hub.db").stat().st_mode & 0o777 == 0o600
        assert (data / "files").stat().st_mode & 0o777 == 0o700


async def test_a_folder_whose_mode_cannot_be_changed_is_used(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """It belongs to another account that lets the hub write there. One log line says that others may read it."""

    def refuse(path: Path, mode: int) -> None:
        raise PermissionError(1, "Operation not permitted", str(path))

    monkeypatch.setattr(Path, "chmod", refuse)
    with capture_logs() as logs:
        await hub.start()
    assert {line["event"] for line in logs if line["log_level"] == "warning"} == {"open to other accounts"}
    async with aiohttp.ClientSession(base_url=f"{hub.url}/api/v1/") as http:
        assert (await post(http, b"hello"))[0] == 201


async def test_a_reader_cancelled_during_open_leaves_no_file_open(tmp_path: Path) -> None:
    """The file is closed as soon as it is open."""
    async with store(tmp_path) as (files, _, _):
        file = await files.save(Key("a"), "x", TEXT, b"hello")
        blob = files.folder / file.digest
        blob.unlink()
        os.mkfifo(blob)  # open() waits for a writer
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ResourceWarning)
            reading = asyncio.create_task(files.read(file))
            writer = None
            async with asyncio.timeout(PATIENCE):
                while writer is None:
                    await asyncio.sleep(0.001)
                    with suppress(OSError):
                        writer = os.open(blob, os.O_WRONLY | os.O_NONBLOCK)
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
            os.close(writer)
            await eventually(lambda: not [name for name in os.listdir("/proc/self/fd") if file.digest in _target(name)])
            gc.collect()
        assert [str(one.message) for one in caught if file.digest in str(one.message)] == []


async def test_reading_leaves_no_file_open(tmp_path: Path) -> None:
    """Also if the store was closed meanwhile."""
    async with store(tmp_path) as (files, _, _):
        file = await files.save(Key("a"), "x", TEXT, b"hello")
        async with files.open(file) as read:
            assert await read(0, 5) == b"hello"
            await files.close()
    assert not [name for name in os.listdir("/proc/self/fd") if file.digest in _target(name)]


def _target(descriptor: str) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")
    except OSError:
        return ""
