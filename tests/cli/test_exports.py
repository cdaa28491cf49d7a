"""`hubbub export --principal`: everything about one principal, with a running hub and without one."""

import json
import re
from collections.abc import AsyncIterator
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from support.process import HubProcess, run_hubbub
from support.waiting import PATIENCE

ESCAPED = "a\x1b[2J\u202e\0 \U0001f600"


@pytest.fixture
async def process(tmp_path: Path) -> AsyncIterator[HubProcess]:
    """A hub with sign-in; killed after the test."""
    running = HubProcess(tmp_path)
    running.agent("echo.py", "def echo(message):\n    yield 'echo: ' + message\n")
    running.agent(
        "fails.py", "from hub import AgentError\ndef fails(message):\n    raise AgentError('Gone.', 'gone')\n"
    )
    await running.start(sign_in=True)
    yield running
    await running.kill()


async def make_key(folder: Path, name: str) -> str:
    output = await run_hubbub(folder, "key", "create", name)
    assert output.code == 0, output
    return output.out.strip()


async def chat(process: HubProcess, key: str, session: str, message: str, agent: str = "echo") -> None:
    """Send a message, and wait for the end of its answer."""
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {key}"}) as http:
        async with http.ws_connect(f"{process.url}/api/v1/ws", protocols=("hubbub.v1",)) as ws:
            await ws.send_json({"type": "chat", "agentId": agent, "sessionId": session, "message": message})
            while (await ws.receive_json(timeout=PATIENCE))["type"] != "run_finished":
                pass


async def call(process: HubProcess, key: str, method: str, path: str, **options: Any) -> Any:
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {key}"}) as http:
        async with http.request(method, f"{process.url}/api/v1{path}", **options) as answer:
            assert answer.status < 300, await answer.text()
            return await answer.json() if answer.status != 204 else None


async def test_an_export_has_everything_of_a_principal_and_nothing_of_others(
    process: HubProcess, tmp_path: Path
) -> None:
    """The same with a running hub and without one. It has no secret, and controls no terminal."""
    ann, bob = [await make_key(tmp_path, name) for name in ("ann", "bob")]
    await chat(process, ann, "s", f"hello {ESCAPED}")
    bob_id = (await call(process, bob, "GET", "/me"))["id"]
    await call(process, ann, "PATCH", "/sessions/s/members", json={"id": bob_id, "role": "member"})
    await chat(process, bob, "s", "a secret of bob")
    await chat(process, bob, "t", "another secret of bob")
    text = {"Content-Type": "text/plain"}
    await call(process, ann, "POST", "/files?sessionId=s&name=a.txt", data=BytesIO(b"hello"), headers=text)
    await call(process, bob, "POST", "/files?sessionId=t&name=b.txt", data=BytesIO(b"other"), headers=text)

    first = await run_hubbub(tmp_path, "export", "--principal", "ann", "--format", "json")
    assert (first.code, first.err) == (0, ""), first
    document = json.loads(first.out)
    check_document(document)
    assert "bob" not in json.dumps({**document, "audit": []}) and not re.search("[\x00-\x09\x0b-\x1f\u202e]", first.out)
    secret = ann.rpartition("_")[2]
    assert secret not in first.out and sha256(secret.encode()).hexdigest() not in first.out

    await process.kill()
    second = await run_hubbub(tmp_path, "export", "--principal", document["principal"]["id"], "--output", "ann.json")
    assert (second.code, second.out, second.err) == (0, "", ""), second
    assert (tmp_path / "ann.json").stat().st_mode & 0o777 == 0o600
    again = json.loads((tmp_path / "ann.json").read_text())
    assert {**again, "audit": document["audit"]} == document


def check_document(document: dict[str, Any]) -> None:
    """Assert that the document has all of ann."""
    assert (document["principal"]["name"], document["principal"]["role"]) == ("ann", "member")
    (credential,) = document["credentials"]
    assert credential["kind"] == "key" and "digest" not in credential and credential["used"] > 0
    (session,) = document["sessions"]
    assert (session["sessionId"], session["role"], session["messages"]) == ("s", "owner", 4)
    (file,) = document["files"]
    assert (file["name"], file["sessionId"], file["sha256"]) == ("a.txt", "s", sha256(b"hello").hexdigest())
    (usage,) = document["usage"]
    assert (usage["agent"], usage["messages"]) == ("echo", 1) and usage["inputTokens"]
    assert {entry["target"] for entry in document["audit"]} >= {"s"}
    question, answer = document["messages"]
    assert question["content"] == f"hello {ESCAPED}" and question["author"]["name"] == "ann"
    assert (answer["content"], answer["userMessageId"]) == (f"echo: hello {ESCAPED}", question["messageId"])


async def test_an_export_of_a_principal_says_how_answers_ended(process: HubProcess, tmp_path: Path) -> None:
    ann = await make_key(tmp_path, "ann")
    process.agent(
        "fails.py", "from hub import AgentError\ndef fails(message):\n    raise AgentError('Gone.', 'gone')\n"
    )
    await run_hubbub(tmp_path, "reload")
    await chat(process, ann, "s", "hello", agent="fails")
    document = json.loads((await run_hubbub(tmp_path, "export", "--principal", "ann")).out)
    answer = document["messages"][-1]
    assert (answer["stopReason"], answer["error"]) == ("error", {"code": "gone", "message": "Gone."})


async def test_a_failed_export_leaves_no_file(process: HubProcess, tmp_path: Path) -> None:
    """The reason is one line, and an earlier export stays."""
    (tmp_path / "x.json").write_text("earlier")
    output = await run_hubbub(tmp_path, "export", "--principal", "nobody", "--output", "x.json")
    assert output.code == 1 and output.err.startswith("hubbub: there is no principal nobody")
    assert (tmp_path / "x.json").read_text() == "earlier" and not (tmp_path / "x.json.part").exists()
    output = await run_hubbub(tmp_path, "export", "--principal", "nobody", "--output", "no/such/x.json")
    assert output.code == 2 and output.err == "hubbub: no/such/x.json.part: No such file or directory\n"


@pytest.mark.parametrize("arguments", [(), ("s", "--principal", "ann"), ("--principal", "ann", "--format", "md")])
async def test_a_wrong_command_line_is_explained(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    output = await run_hubbub(tmp_path, "export", *arguments)
    assert output.code == 2 and "--principal" in output.err or "--format md" in output.err


async def test_a_session_is_exported_into_a_private_file(tmp_path: Path) -> None:
    """The same text as on standard output."""
    hub = HubProcess(tmp_path)
    hub.agent("echo.py", "def echo(message):\n    yield 'echo: ' + message\n")
    try:
        await hub.start()
        await chat(hub, "", "s", "hello")
        printed = await run_hubbub(tmp_path, "export", "s", "--url", hub.url)
        written = await run_hubbub(tmp_path, "export", "s", "--url", hub.url, "--output", "s.md")
        assert printed.code == written.code == 0 and "echo: hello" in printed.out
        assert (tmp_path / "s.md").read_text() == printed.out and written.out == ""
        assert (tmp_path / "s.md").stat().st_mode & 0o777 == 0o600
    finally:
        await hub.kill()
