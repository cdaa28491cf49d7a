"""The hook `useHubbub`, with React in Node.js. See also tests/clients/test_react.py, in a browser."""

import asyncio
import json
import subprocess
from pathlib import Path

from support.hub import Hub
from support.node import NODE_FOLDER, install_packages, needs_node
from support.waiting import PATIENCE

AGENTS = {
    "gated": """
import asyncio, pathlib

async def gated(message: str):
    yield "one "
    while not pathlib.Path(message).exists():
        await asyncio.sleep(0.01)
    yield "two"
""",
    "asker": """
from hub import Run

async def asker(run: Run):
    yield str((await run.ask("Which colour?")).payload)
""",
    "worker": """
from hub import Reasoning, ToolCallArgs, ToolCallEnd, ToolCallResult, ToolCallStart

async def worker(message: str):
    yield Reasoning("let me ")
    yield Reasoning("think")
    yield ToolCallStart("t1", "add")
    yield ToolCallArgs("t1", '{"a"')
    yield ToolCallArgs("t1", ":1}")
    yield ToolCallEnd("t1")
    yield ToolCallResult("t1", "3")
    yield "three"
""",
    "failing": """
from hub import AgentError

async def failing(message: str):
    yield "some "
    raise AgentError("no more today", "out_of_luck")
""",
}


@needs_node
async def test_a_component_shows_a_session(hub: Hub, tmp_path: Path) -> None:
    """In React's strict mode. Two components share a subscription, and an unmounted one leaves none."""
    for name, code in AGENTS.items():
        hub.agent(f"{name}.py", code)
    await hub.start()
    await install_packages()
    url = f"ws://127.0.0.1:{hub.port}/api/v1/ws"
    pipe = subprocess.PIPE
    program = await asyncio.create_subprocess_exec(
        *("node", str(NODE_FOLDER / "react_hook.mjs"), url, str(tmp_path)), stdin=pipe, stdout=pipe, stderr=pipe
    )
    try:
        assert program.stdout is not None and program.stderr is not None
        async with asyncio.timeout(3 * PATIENCE):
            line = await program.stdout.readline()
        assert line, (await program.stderr.read()).decode()
        checks = json.loads(line)
        assert checks.pop("no warnings") == ""
        assert checks == {name: True for name in checks} and len(checks) > 18
        (connection,) = hub.node.registry.connections
        assert list(connection.subscriptions) == ["s3"]
        await program.communicate(b"")
    finally:
        if program.returncode is None:
            program.kill()
            await program.wait()
    assert program.returncode == 0
