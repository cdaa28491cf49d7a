"""Uploads as forms: from programs, from a page in a browser, and in pieces over a raw socket."""

import asyncio
import io
import json
import random
import shutil
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import pytest
from playwright.async_api import Browser, FilePayload
from support.browser import needs_browser
from support.hub import Hub
from support.people import People
from support.sockets import HttpConnection
from support.waiting import PATIENCE, eventually

from hub.ids import Key
from hub.limits import KiB, MiB

BOUNDARY = "----x"
FORM = f"multipart/form-data; boundary={BOUNDARY}"
FILE = 'form-data; name="file"; filename="a.txt"\r\nContent-Type: text/plain'


@pytest.fixture
async def http(hub: Hub) -> AsyncIterator[aiohttp.ClientSession]:
    await hub.start()
    async with aiohttp.ClientSession(f"{hub.url}/api/v1/", timeout=aiohttp.ClientTimeout(PATIENCE)) as http:
        yield http


def part(disposition: str, content: str = "hello") -> str:
    return f"--{BOUNDARY}\r\nContent-Disposition: {disposition}\r\n\r\n{content}\r\n"


END = f"--{BOUNDARY}--\r\n"
SESSION = part('form-data; name="sessionId"', "s1")


async def post(
    http: aiohttp.ClientSession, data: Any, query: str = "", kind: str | None = FORM
) -> tuple[int, dict[str, Any]]:
    headers = {} if kind is None else {"Content-Type": kind}
    body = io.BytesIO(data.encode()) if isinstance(data, str) else data
    async with http.post(f"files{query}", data=body, headers=headers) as answer:
        return answer.status, await answer.json()


async def read(http: aiohttp.ClientSession, file_id: str) -> bytes:
    async with http.get(f"files/{file_id}") as answer:
        return await answer.read()


def names_on_disk(hub: Hub) -> list[str]:
    return [path.name for path in (hub.folder / "data" / "files").iterdir() if path.name != "log"]


# --- programs ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["photo.png", "мой отчёт (1).png", 'a "b"; c=d.png'])
async def test_a_form_of_aiohttp_is_stored(http: aiohttp.ClientSession, name: str) -> None:
    """With its bytes, which may look like a boundary, and with the name and the type of the part."""
    data = random.Random(1).randbytes(3 * MiB) + f"\r\n--{BOUNDARY}".encode() + b"\r\n--\r\n"
    form = aiohttp.FormData(quote_fields=False)
    form.add_field("sessionId", "s1")
    form.add_field("note", "ignored")
    form.add_field("file", io.BytesIO(data), filename=name.replace('"', "%22"), content_type="image/png")
    status, stored = await post(http, form, kind=None)
    assert (status, stored) == (
        201,
        {"fileId": stored["fileId"], "sessionId": "s1", "name": name, "type": "image/png", "size": len(data)},
    )
    assert await read(http, stored["fileId"]) == data


async def test_aiohttp_with_its_own_quoting_sends_the_name(http: aiohttp.ClientSession) -> None:
    form = aiohttp.FormData()
    form.add_field("file", b"x", filename="naïve file.txt", content_type="text/plain")
    assert (await post(http, form, "?sessionId=s1", None))[1]["name"] == "naïve file.txt"


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl here: install it")
async def test_a_form_of_curl_is_stored(hub: Hub, http: aiohttp.ClientSession) -> None:
    file = hub.folder / "Übung; 1.txt"
    file.write_text("hello")
    command = ["curl", "-sS", "-F", "sessionId=s1", "-F", f'file=@"{file}"', f"{hub.url}/api/v1/files"]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    stored = json.loads((await asyncio.wait_for(process.communicate(), PATIENCE))[0])
    assert (stored["name"], stored["type"], stored["size"]) == ("Übung; 1.txt", "text/plain", 5)


PAGE = """
<form action="/api/v1/files" method="post" enctype="multipart/form-data">
  <input name="sessionId" value="s1"><input type="file" name="file"><button>Send</button>
</form>
"""


@needs_browser
async def test_a_page_uploads_with_a_form_and_with_fetch(hub: Hub, browser: Browser) -> None:
    """A `<form>` of HTML, and FormData in fetch."""
    await hub.start()
    page = await browser.new_page()
    await page.route("**/form", lambda route: route.fulfill(content_type="text/html; charset=utf-8", body=PAGE))
    await page.goto(f"{hub.url}/form")
    fetched = await page.evaluate("""async () => {
            const form = new FormData()
            form.append("file", new File(["hello"], 'a "б".txt', { type: "text/plain" }))
            return (await fetch("/api/v1/files?sessionId=s1", { method: "POST", body: form })).json()
        }""")
    assert (fetched["name"], fetched["type"], fetched["size"]) == ('a "б".txt', "text/plain", 5)
    file = FilePayload(name="naïve\u4e2d.csv", mimeType="text/csv", buffer=b"a,b")
    await page.set_input_files("input[type=file]", files=[file])
    async with page.expect_navigation():
        await page.click("button")
    stored = json.loads(await page.inner_text("body"))
    assert (stored["sessionId"], stored["name"], stored["type"], stored["size"]) == (
        "s1",
        "naïve\u4e2d.csv",
        "text/csv",
        3,
    )
    await page.close()


# --- the form ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("disposition", "name", "kind"),
    [
        ('form-data; name="file"; filename="a.txt"', "a.txt", "text/plain"),
        ("form-data; name=file; filename=a.png", "a.png", "image/png"),
        ('form-data; name="file"; filename="a"', "a", "application/octet-stream"),
        ('form-data; name="file"; filename="a;b=c.txt"', "a;b=c.txt", "text/plain"),
        ('form-data; name="file"; filename="a \\"b\\".txt"', 'a "b".txt', "text/plain"),
        ('form-data; name="file"; filename="a %22b%22 100%.txt"', 'a "b" 100%.txt', "text/plain"),
        ('form-data; name="file"; filename="C:\\\\dir\\\\a.txt"', "a.txt", "text/plain"),
        ('form-data; name="file"; filename="dir/a.txt"', "a.txt", "text/plain"),
        ('form-data; name="file"; filename="зебра.txt"', "зебра.txt", "text/plain"),
        ('form-data; name="file"; filename="x.txt"; filename*=UTF-8\'\'%D0%B0.txt', "а.txt", "text/plain"),
        ('Form-Data;name="file";FileName=""', "file", "application/octet-stream"),
    ],
)
@pytest.mark.parametrize("more", ["", "\r\nContent-Type: text/x-test; charset=utf-8"])
async def test_the_name_and_the_type_come_from_the_part(
    http: aiohttp.ClientSession, disposition: str, name: str, kind: str, more: str
) -> None:
    """Without a type, the end of the name decides. The folders of a name are dropped."""
    status, stored = await post(http, SESSION + part(disposition + more) + END)
    assert (status, stored["name"], stored["size"]) == (201, name, 5)
    assert stored["type"] == ("text/x-test; charset=utf-8" if more else kind)


async def test_the_address_has_precedence(http: aiohttp.ClientSession) -> None:
    _, stored = await post(http, SESSION + part(FILE) + END, "?sessionId=s2&name=b.md")
    assert (stored["sessionId"], stored["name"], stored["type"]) == ("s2", "b.md", "text/plain")


@pytest.mark.parametrize("kind", [FORM, f'MULTIPART/Form-Data; charset=utf-8; Boundary="{BOUNDARY}"; x=y'])
async def test_what_is_around_the_parts_has_no_meaning(http: aiohttp.ClientSession, kind: str) -> None:
    """A text before the first boundary and after the last one, spaces after a boundary, and fields after the file."""
    body = f"hello\r\n{SESSION}{part(FILE)}{part('form-data; name=later')}{END}bye".replace(
        f"{BOUNDARY}\r\n", f"{BOUNDARY} \t\r\n"
    )
    status, stored = await post(http, body, kind=kind)
    assert status == 201 and await read(http, stored["fileId"]) == b"hello"


async def test_a_form_in_single_bytes_is_stored(hub: Hub, http: aiohttp.ClientSession) -> None:
    """No cut between two packets changes it."""
    content = "one\r\n--\r\n----\r\n-----x\r\n"
    body = (SESSION + part(FILE, content) + END).encode()
    head = (
        f"POST /api/v1/files HTTP/1.1\r\nHost: localhost\r\nContent-Type: {FORM}\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    async with AsyncExitStack() as stack:
        connection = await HttpConnection.open(hub.port, stack)
        connection.writer.write(head.encode())
        for byte in body:
            connection.writer.write(b"1\r\n%c\r\n" % byte)
            await connection.writer.drain()
        connection.writer.write(b"0\r\n\r\n")
        answer = await asyncio.wait_for(connection.reader.readuntil(b"}"), PATIENCE)
    stored = json.loads(answer.partition(b"\r\n\r\n")[2])
    assert await read(http, stored["fileId"]) == content.encode()


@pytest.mark.parametrize(
    ("body", "code", "text"),
    [
        (SESSION + part(FILE) + part(FILE) + END, "bad_frame", "more than one file"),
        (part(FILE) + SESSION + END, "bad_query", "sessionId is missing"),
        (part('form-data; name="sessionId"', "a b") + part(FILE) + END, "bad_id", "sessionId"),
        (SESSION + END, "bad_frame", "has no file"),
        (SESSION + part('form-data; name="file"') + END, "bad_frame", "has no file"),
        (SESSION + part(FILE, "") + END, "empty_file", "empty"),
        (SESSION + part('form-data; name="file"; filename="a\u202eb"') + END, "bad_query", "name of a file"),
        (SESSION + part(FILE.replace("text/plain", "text")) + END, "bad_type", "media type"),
        (
            SESSION + part(FILE + "\r\nContent-Transfer-Encoding: base64") + END,
            "bad_frame",
            "Content-Transfer-Encoding",
        ),
        (SESSION + part("attachment") + END, "bad_frame", "form-data; name="),
        (f"{SESSION}--{BOUNDARY}\r\n\r\nhello\r\n{END}", "bad_frame", "form-data; name="),
        (SESSION + part(FILE), "bad_frame", "last boundary is missing"),
        (SESSION + part(FILE).replace("\r\n\r\n", "\r\n"), "bad_frame", "last boundary is missing"),
        (f"{SESSION}--{BOUNDARY}xyz\r\n", "bad_frame", "does not end its line"),
        ("", "bad_frame", "last boundary is missing"),
        ("hello", "bad_frame", "last boundary is missing"),
        (SESSION + part("form-data; name=a; b=" + "c" * 9 * KiB) + END, "bad_frame", "more than 8 KiB"),
        (SESSION + part("form-data; name=a", "b" * 70 * KiB) + part(FILE) + END, "too_large", "64 KiB"),
        (SESSION + part(FILE) + END + "b" * 70 * KiB, "too_large", "64 KiB"),
    ],
)
async def test_a_bad_form_is_refused(hub: Hub, http: aiohttp.ClientSession, body: str, code: str, text: str) -> None:
    """With one clear error. It leaves no file and no session."""
    status, error = await post(http, body)
    assert (status, error["code"]) == (413 if code == "too_large" else 400, code)
    assert text in error["error"]
    await eventually(lambda: names_on_disk(hub) == [])
    assert await hub.node.log.sessions.find(Key("s1")) is None


async def test_a_form_without_a_boundary_is_refused(http: aiohttp.ClientSession) -> None:
    """Some programs write the header themselves."""
    status, error = await post(http, SESSION + part(FILE) + END, kind="multipart/form-data")
    assert (status, error["code"]) == (400, "bad_frame") and "no boundary" in error["error"]


@pytest.mark.parametrize(("size", "status"), [(100_000, 201), (100_001, 413)])
async def test_the_file_in_a_form_has_the_limit_of_files(hub: Hub, size: int, status: int) -> None:
    """Without its boundaries and its fields."""
    await hub.start(file_bytes=100_000)
    async with aiohttp.ClientSession(f"{hub.url}/api/v1/") as http:
        assert (await post(http, SESSION + part(FILE, "x" * size) + END))[0] == status
    await eventually(lambda: len(names_on_disk(hub)) == (status == 201))


async def test_a_form_that_breaks_off_leaves_nothing(hub: Hub, http: aiohttp.ClientSession) -> None:
    body = (SESSION + part(FILE, "x" * 200_000)).encode()
    head = f"POST /api/v1/files HTTP/1.1\r\nHost: localhost\r\nContent-Type: {FORM}\r\nContent-Length: 300000\r\n\r\n"
    async with AsyncExitStack() as stack:
        connection = await HttpConnection.open(hub.port, stack)
        connection.writer.write(head.encode() + body)
        await eventually(lambda: len(names_on_disk(hub)) == 1)
    await eventually(lambda: names_on_disk(hub) == [])
    assert await hub.node.log.sessions.find(Key("s1")) is None


async def test_a_stranger_is_refused_before_the_hub_reads_the_form(hub: Hub) -> None:
    hub.options["sign_in"] = True
    await hub.start()
    await People(hub).add("ann")
    head = f"POST /api/v1/files HTTP/1.1\r\nHost: localhost\r\nContent-Type: {FORM}\r\nContent-Length: 1000\r\n\r\n"
    async with AsyncExitStack() as stack:
        connection = await HttpConnection.open(hub.port, stack)
        connection.writer.write(head.encode())
        answer = await asyncio.wait_for(connection.reader.readline(), PATIENCE)
    assert answer.startswith(b"HTTP/1.1 401")


async def test_a_large_form_is_not_kept_in_memory(hub: Hub) -> None:
    await hub.start(file_bytes=64 * MiB)
    block = bytes(MiB)

    async def send() -> AsyncIterator[bytes]:
        yield (SESSION + part(FILE, "")).encode()[:-2]
        for _ in range(30):
            yield block
        yield f"\r\n{END}".encode()

    async with aiohttp.ClientSession(f"{hub.url}/api/v1/") as http:
        tracemalloc.start()
        try:
            status, stored = await post(http, send())
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert (status, stored["size"]) == (201, 30 * MiB) and peak < 12 * MiB
