"""The JavaScript client: several objects of one session, and uploads with progress, in Node.js and in a browser."""

import json
from pathlib import Path

from playwright.async_api import Browser
from support.browser import Tab, needs_browser
from support.hub import Hub
from support.node import NODE_FOLDER, SCRIPTS, needs_node, run_node

from hub.limits import MiB

GATED = """
import asyncio, pathlib

async def gated(message: str):
    yield "one "
    while not pathlib.Path(message).exists():
        await asyncio.sleep(0.01)
    yield "two"
"""
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
UPLOADS_IN_A_PAGE = """
async ([source, size]) => {
  const { connect } = await import('/client.js')
  const { checkUploads } = await import(URL.createObjectURL(new Blob([source], { type: 'text/javascript' })))
  return await checkUploads(connect(), size)
}
"""


def address(hub: Hub) -> str:
    return f"ws://127.0.0.1:{hub.port}/api/v1/ws"


@needs_node
async def test_each_object_of_a_session_gets_each_event_once(hub: Hub, tmp_path: Path) -> None:
    """Also one that is opened during an answer, with the history; and one with a cursor."""
    hub.agent("gated.py", GATED)
    await hub.start()
    checks = json.loads(await run_node("session_objects.js", address(hub), str(tmp_path / "gate")))
    assert checks == {name: True for name in checks} and len(checks) > 12


@needs_node
async def test_uploads_in_node(hub: Hub) -> None:
    """With progress and abort; what is aborted or refused leaves nothing."""
    hub.agent("reader.py", READER)
    await hub.start(file_bytes=SIZE)
    (NODE_FOLDER / "uploads_program.mjs").write_text(UPLOADS_IN_NODE)
    checks = json.loads(await run_node("uploads_program.mjs", address(hub)))
    assert checks == {name: True for name in checks} and len(checks) > 12


@needs_browser
async def test_uploads_in_a_browser(hub: Hub, browser: Browser) -> None:
    """A browser reports the progress of an upload only to an XMLHttpRequest."""
    hub.agent("reader.py", READER)
    await hub.start(file_bytes=SIZE)
    tab = Tab(await browser.new_page())
    await tab.page.goto(f"{hub.url}/health")
    source = (SCRIPTS / "uploads.mjs").read_text()
    checks = await tab.page.evaluate(UPLOADS_IN_A_PAGE, [source, SIZE])
    assert checks == {name: True for name in checks} and len(checks) > 12
