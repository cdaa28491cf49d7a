"""Unchanged clients of the plain protocol, and the hub's console, with a hub that `hubbub serve` started."""

import asyncio
import contextlib
import json
import os
import random
import re
import select
import shutil
import sqlite3
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import attrs
import pytest
from playwright.async_api import Browser, expect
from support.browser import Tab, needs_browser, serve_other_origin, visit
from support.documents import ROOT
from support.hub import AGENTS, Client
from support.local_model import FETCHED, needs_model
from support.waiting import PATIENCE

both_agents = pytest.mark.parametrize("agent", ["echo", pytest.param("main", marks=needs_model)])


# --- one hub process for all tests of this file -----------------------------------------------------------------------


@attrs.frozen
class Served:
    port: int
    folder: Path

    @property
    def url(self) -> str:
        return f"http://localhost:{self.port}"

    @property
    def ws(self) -> str:
        return f"ws://localhost:{self.port}/api/v1/ws"

    @contextlib.asynccontextmanager
    async def client(self, query: str = "") -> AsyncIterator[Client]:
        http = aiohttp.ClientSession()
        client = Client(http, await http.ws_connect(self.ws + query))
        try:
            yield client
        finally:
            await client.close()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Run the shipped agents and a gated one on a free port; `main` uses the local model if it was fetched."""
    folder = tmp_path_factory.mktemp("served")
    shutil.copytree(ROOT / "agents", folder / "agents", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "agents" / "gated.py").write_text(textwrap.dedent(AGENTS["gated"]))
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("OPENAI_", "HUBBUB_"))}
    environment |= {"HUBBUB_CACHE": str(FETCHED.resolve()), "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "hub", "serve", "--port", "0", "--agents", "agents", "--data", "data"]
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        ) as hub,
    ):
        assert hub.stdout
        match = re.search(r":(\d+)", hub.stdout.readline())
        assert match, (folder / "log").read_text()
        yield Served(int(match[1]), folder)
        hub.terminate()
        assert hub.wait(timeout=PATIENCE) == 0


def readme_example(language: str) -> str:
    """Return the first example of the README in that language."""
    blocks = re.findall(rf"^```{language} first-client\n(.*?)^```", (ROOT / "README.md").read_text(), re.M | re.S)
    assert len(blocks) == 1 and "localhost:9527" in blocks[0]
    return str(blocks[0])


# --- Python's websocket-client ----------------------------------------------------------------------------------------

PYTHON_CLIENT = """
import json
import sys

import websocket

url, agent = sys.argv[1:]


def on_open(ws):
    ws.send(json.dumps({"type": "chat", "agentId": agent, "sessionId": "session-002", "message": "Hello there"}))


def on_message(ws, message):
    print(message, flush=True)
    if json.loads(message)["done"]:
        ws.close()


def on_error(ws, error):
    print("error", error)


def on_close(ws, code, reason):
    print("closed")


websocket.WebSocketApp(
    url, on_open=on_open, on_message=on_message, on_error=on_error, on_close=on_close
).run_forever()
"""


@both_agents
def test_websocket_client(served: Served, agent: str) -> None:
    """A WebSocketApp with the four callbacks and run_forever() receives an answer in pieces, and one end."""
    command = [sys.executable, "-c", PYTHON_CLIENT, served.ws, agent]
    done = subprocess.run(command, capture_output=True, text=True, timeout=3 * PATIENCE)
    *lines, closed = done.stdout.splitlines()
    assert (closed, done.stderr, done.returncode) == ("closed", "", 0), done
    check_answer([json.loads(line) for line in lines], agent)


def check_answer(frames: list[dict[str, Any]], agent: str) -> None:
    """Assert that these frames are one complete answer to "Hello there"."""
    assert {(frame["type"], frame["agentId"]) for frame in frames} == {("stream", agent)}
    assert [frame["done"] for frame in frames] == [False] * (len(frames) - 1) + [True]
    text = "".join(frame["content"] for frame in frames)
    assert text == "Hello there " if agent == "echo" else text.strip() and len(frames) > 2


@needs_model
async def test_the_python_example_of_the_readme(served: Served) -> None:
    """It prints the answer that another subscriber of its session receives, and stays connected."""
    script = readme_example("python").replace("9527", str(served.port))
    async with served.client("?sessionId=session-001") as witness:
        with subprocess.Popen(
            [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        ) as client:
            try:
                await witness.until_done()
                expected = witness.text().encode() + b"\n"
                assert await asyncio.to_thread(read, client, len(expected)) == expected and expected.strip()
                assert client.poll() is None
            finally:
                client.kill()


def read(process: "subprocess.Popen[bytes]", size: int) -> bytes:
    """Read *size* bytes of a process's output; return less if the output ends or the time is up."""
    assert process.stdout
    output, end = b"", time.monotonic() + PATIENCE
    while len(output) < size and select.select([process.stdout], [], [], max(0, end - time.monotonic()))[0]:
        if not (piece := os.read(process.stdout.fileno(), size - len(output))):
            break
        output += piece
    return output


# --- a browser --------------------------------------------------------------------------------------------------------


BROWSER_CLIENT = """
const ws = new WebSocket("%s");
ws.onopen = () => {
  ws.send(JSON.stringify({ type: "chat", agentId: "%s", sessionId: "session-003", message: "Hello there" }));
};
ws.onmessage = (event) => console.log(JSON.stringify(JSON.parse(event.data)));
setInterval(() => ws.send(JSON.stringify({ type: "ping" })), 30000);
"""


@needs_browser
@both_agents
async def test_browser(served: Served, browser: Browser, agent: str) -> None:
    """A page of another loopback origin connects, chats and receives the answer; its ping gets a pong."""
    async with serve_other_origin(BROWSER_CLIENT % (served.ws, agent)) as url:
        tab = Tab(await browser.new_page())
        await tab.page.clock.install(time=0)
        await tab.page.clock.pause_at(1)  # an answer of the model may take longer than the time to the first ping
        await tab.page.goto(url)
        lines: list[str] = []
        while not (lines and json.loads(lines[-1])["done"]):
            lines += await tab.until("}")
        check_answer([json.loads(line) for line in lines], agent)
        await tab.page.clock.fast_forward(30_000)
        assert await tab.until("}") == ['{"type":"pong"}']
        assert not tab.errors


@needs_browser
@needs_model
async def test_the_browser_example_of_the_readme(served: Served, browser: Browser) -> None:
    """It prints the answer piece by piece, to the end."""
    async with serve_other_origin(readme_example("js").replace("9527", str(served.port))) as url:
        tab = Tab(await browser.new_page())
        await tab.page.goto(url)
        *pieces, end = await tab.until(" true")
        assert end.split() == ["stream", "true"]
        assert len(pieces) > 1 and all(piece.startswith("stream ") and piece.endswith(" false") for piece in pieces)
        assert not tab.errors


# --- the console; more tests are in tests/console ---------------------------------------------------------------------


@needs_browser
@both_agents
async def test_a_visitor_sees_an_answer(served: Served, browser: Browser, agent: str) -> None:
    """A person chooses an agent, writes and presses Enter: the answer appears."""
    async with visit(browser, served.url) as tab:
        await tab.page.get_by_label("Agent").select_option(agent)
        await tab.say("hello")
        answer = tab.page.get_by_role("article", name=agent)
        await expect(answer.locator(".md")).to_have_text(re.compile(r"\S"), timeout=3 * PATIENCE * 1000)


# --- one session, three clients ---------------------------------------------------------------------------------------


@needs_model
async def test_three_clients_receive_the_same_text(served: Served) -> None:
    """One is connected from the start, one joins during the answer, one loses its socket at random and resumes."""
    session = "s-three"
    async with served.client() as first, served.client(f"?sessionId={session}") as witness:
        ask = "Write a few sentences about a cat and a dog."
        await first.send(type="chat", agentId="main", sessionId=session, message=ask)
        await first.until_type("stream")
        async with served.client(f"?sessionId={session}") as late, asyncio.TaskGroup() as readers:
            resuming = readers.create_task(read_with_kills(served, session, random.Random(7)))
            for client in (first, late, witness):
                readers.create_task(client.until_done())
        text, kills = resuming.result()
        assert kills > 0 and text == first.text() == late.text() == witness.text() != ""
    # The message that the run stored; the clients received the events.
    with contextlib.closing(sqlite3.connect(f"file:{served.folder}/data/hub.db?mode=ro", uri=True)) as log:
        rows = log.execute("SELECT content FROM messages WHERE session = ? AND role = 'assistant'", (session,))
        assert rows.fetchall() == [(text,)]


async def read_with_kills(served: Served, session: str, chance: random.Random) -> tuple[str, int]:
    """Read an answer to its end with many aborted sockets; return its text and the number of aborts."""
    text, cursor, kills = "", "", 0
    while True:
        async with served.client(f"?sessionId={session}{cursor}") as client:
            for _ in range(chance.randint(1, 12) if kills else 1):  # at least one kill
                frame = await client.next()
                text += frame["content"]
                cursor = f"&afterSeq={frame['seq']}&epoch={frame['epoch']}"
                if frame["done"]:
                    return text, kills
            kills += 1
            connection = client.ws._response.connection
            assert connection and connection.transport
            connection.transport.abort()
