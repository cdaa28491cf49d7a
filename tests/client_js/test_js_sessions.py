"""The JavaScript client: several objects of one session, and uploads with progress, in Node.js and in a browser."""

import json
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser
from support.browser import Tab, needs_browser, serve_other_origin
from support.hub import Hub
from support.node import SCRIPTS, needs_node, run_code, run_node
from support.scripted import Peer, scripted

from hub.limits import KiB, MiB

READER = """
from hub import Run

async def reader(run: Run):
    for part in run.parts:
        yield f"{part['type']} {part['metadata']['name']} "
"""
SIZE = 3 * MiB
UPLOADS_IN_NODE = f"""
import WebSocket from 'ws'
import {{ connect }} from './client.js'
import {{ checkUploads }} from './uploads.mjs'

console.log(JSON.stringify(await checkUploads(connect(process.argv[2], {{ WebSocket }}), {SIZE})))
"""
UPLOADS = (SCRIPTS / "uploads.mjs").read_text()
UPLOADS_IN_A_PAGE = """
async ([source, size, hubUrl, token]) => {
  const { connect } = await import(hubUrl + '/client.js')
  const { checkUploads } = await import(URL.createObjectURL(new Blob([source], { type: 'text/javascript' })))
  return await checkUploads(connect(hubUrl.replace(/^http/, 'ws') + '/api/v1/ws', { token }), size)
}
"""


def address(hub: Hub) -> str:
    return f"ws://127.0.0.1:{hub.port}/api/v1/ws"


@needs_node
async def test_each_object_of_a_session_gets_each_event_once(hub: Hub, tmp_path: Path) -> None:
    """Also one that is opened during an answer, with the history; and one with a cursor."""
    await hub.start()
    checks = json.loads(await run_node("session_objects.js", address(hub), str(tmp_path / "gate")))
    assert checks == {name: True for name in checks} and len(checks) > 12


@needs_node
async def test_uploads_in_node(hub: Hub) -> None:
    """With progress and abort; what is aborted or refused leaves nothing."""
    hub.agent("reader.py", READER)
    await hub.start(file_bytes=SIZE)
    checks = json.loads(await run_code(UPLOADS_IN_NODE, address(hub)))
    assert checks == {name: True for name in checks} and len(checks) > 12


@needs_browser
async def test_uploads_in_a_browser(hub: Hub, browser: Browser) -> None:
    """A browser reports the progress of an upload only to an XMLHttpRequest."""
    hub.agent("reader.py", READER)
    await hub.start(file_bytes=SIZE)
    tab = Tab(await browser.new_page())
    await tab.page.goto(f"{hub.url}/health")
    checks = await tab.page.evaluate(UPLOADS_IN_A_PAGE, [UPLOADS, SIZE, hub.url, None])
    assert checks == {name: True for name in checks} and len(checks) > 12


@needs_browser
async def test_uploads_from_a_page_of_another_origin(hub: Hub, browser: Browser) -> None:
    """With sign-in: the browser asks the hub for each method, and the requests have the token."""
    hub.agent("reader.py", READER)
    hub.options["sign_in"] = True
    await hub.start(file_bytes=SIZE)
    async with serve_other_origin("") as address:
        tab = Tab(await browser.new_page())
        await tab.page.goto(address)
        checks = await tab.page.evaluate(UPLOADS_IN_A_PAGE, [UPLOADS, SIZE, hub.url, await hub.key("ann")])
        assert checks == {name: True for name in checks} and len(checks) > 12


SLOW_PROGRAM = """
import WebSocket from 'ws'
import { connect } from './client.js'

const [url, last] = process.argv.slice(2)
const hub = connect(url, { WebSocket })
const session = hub.session('s1')
const chat = session.chat('x')
await new Promise((resolve) => session.on('event', ({ seq }) => seq === Number(last) && resolve()))
console.log(await chat.text().then(() => 'no error', (error) => error.code))
hub.close()
"""


@needs_node
@pytest.mark.parametrize(
    ("count", "size", "result"), [(10_000, 1, "no error"), (10_001, 1, "slow_reader"), (70, 256 * KiB, "slow_reader")]
)
async def test_an_unread_answer_has_a_bounded_queue(count: int, size: int, result: str) -> None:
    """In events, and in characters of text. The reader gets an error instead of the answer."""

    async def script(peer: Peer) -> None:
        await peer.accept_subscribe()
        chat = await peer.next("chat")
        fields = {"sessionId": "s1", "messageId": "m1", "runId": "r1", "seq": 1, "status": "started", "position": 0}
        await peer.say("accepted", ref=chat["ref"], **fields)
        await peer.event("run_started", 1, messageId="m2", attempt=1)
        for seq in range(2, count):
            await peer.event("stream", seq, messageId="m2", content="x" * size, offset=(seq - 2) * size)
        await peer.event("run_finished", count, messageId="m2", stopReason="end_turn")

    async with scripted(script) as url:
        assert (await run_code(SLOW_PROGRAM, url, str(count))).strip() == result


RESET_PROGRAM = """
import WebSocket from 'ws'
import { connect } from './client.js'

const hub = connect(process.argv[2], { WebSocket })
const chat = hub.session('s1').chat('x')
console.log(await chat.text().then((text) => text, (error) => `${error.code}: ${error.message} (${error.text})`))
hub.close()
"""


@needs_node
@pytest.mark.parametrize(
    ("end", "result"),
    [
        ({}, "one"),
        ({"stopReason": "max_tokens"}, "one"),
        ({"stopReason": "cancelled"}, "cancelled: the answer ended early: cancelled (one)"),
        ({"stopReason": "timeout"}, "timeout: the answer ended early: timeout (one)"),
        ({"stopReason": "error", "error": {"code": "gone", "message": "Gone."}}, "gone: Gone. (one)"),
    ],
)
async def test_a_reset_says_how_an_answer_ended(end: dict[str, Any], result: str) -> None:
    """A failed answer does not look finished. The reset has its messages, and no `run_finished` follows."""

    async def script(peer: Peer) -> None:
        await peer.accept_subscribe()
        chat = await peer.next("chat")
        fields = {"sessionId": "s1", "messageId": "m1", "runId": "r1", "seq": 1, "status": "started", "position": 0}
        await peer.say("accepted", ref=chat["ref"], **fields)
        message = {"messageId": "m2", "role": "assistant", "content": "one", "agentId": "echo", "runId": "r1", "ts": 0}
        await peer.say("reset", sessionId="s1", reason="too_old", epoch="e", messages=[message | end])

    async with scripted(script) as url:
        assert (await run_code(RESET_PROGRAM, url)).strip() == result


QUESTION_PROGRAM = """
import WebSocket from 'ws'
import { connect } from './client.js'

const hub = connect(process.argv[2], { WebSocket })
const questions = []
const text = await hub.session('s1').ask('x', { onQuestion: ({ id }) => { questions.push(id); return 'yes' } })
console.log(questions.join(), text)
hub.close()
"""


@needs_node
async def test_a_question_that_comes_again_after_a_reset_is_asked_once(hub: Hub) -> None:
    """The answer begins anew then, with its questions."""

    async def script(peer: Peer) -> None:
        await peer.accept_subscribe()
        chat = await peer.next("chat")
        fields = {"sessionId": "s1", "messageId": "m1", "runId": "r1", "seq": 1, "status": "started", "position": 0}
        await peer.say("accepted", ref=chat["ref"], **fields)
        await peer.event("run_started", 1, messageId="m2", attempt=1)
        await peer.event("interrupt", 2, id="i1", reason="confirm")
        resume = await peer.next("resume")
        await peer.say("reset", sessionId="s1", reason="epoch_changed", epoch="e", messages=[])
        again = await peer.next("subscribe")
        active = [{"runId": "r1", "agentId": "echo", "messageId": "m2"}]
        state = {"epoch": "e", "seq": 2, "agents": [], "members": [], "active": active}
        await peer.say("subscribed", sessionId="s1", ref=again["ref"], **state)
        await peer.say("reset", sessionId="s1", reason="epoch_changed", epoch="e", messages=[])
        await peer.event("run_started", 1, messageId="m2", attempt=1)
        await peer.event("interrupt", 2, id="i1", reason="confirm")
        await peer.say("ok", ref=resume["ref"])
        await peer.event("interrupt_resolved", 3, interruptId="i1", status="resolved")
        await peer.event("stream", 4, messageId="m3", content="done", offset=0)
        await peer.event("run_finished", 5, messageId="m3", stopReason="end_turn")

    async with scripted(script) as url:
        assert (await run_code(QUESTION_PROGRAM, url)).strip() == "i1 done"
