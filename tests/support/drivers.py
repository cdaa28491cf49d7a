"""Programs that control a client library by lines of JSON, for tests that both libraries must pass.

A driver reads commands and prints results, one JSON object a line:

    {"do": "connect", "url", "token"? or "tokens"?}: a function returns the tokens in turn, and fails for null
    {"do": "session", "sessionId", "agent", "afterSeq"?, "epoch"?, "handle"?}: the handle names a second session object
    {"do": "chat", "id", "sessionId", "message", "clientMsgId"?, "ifBusy"?, "parts"?, "metadata"?, "files"?, "handle"?}
    {"do": "ask", "id", "sessionId", "message", "replies"?, and the same options}: with *replies*, a function replies
    {"do": "reply", "payload"?}: what the function returns; without a payload, it fails
    {"do": "cancel", "sessionId"}
    {"do": "resume", "id", "sessionId", "interruptId", "payload"?, "status"?}
    {"do": "upload", "id", "sessionId", "text", "name", "type"}, {"do": "files", "id", "sessionId"}
    {"do": "read", "id", "sessionId", "fileId"}, {"do": "delete", "id", "sessionId", "fileId"}
    {"do": "history", "id", "sessionId", "last"}
    {"do": "leave", "sessionId" or "handle"}: close a session object
    {"do": "close"}

    {"kind": "state", "state", "code"?}
    {"kind": "event", "sessionId", "event", "handle"?}
    {"kind": "chat-event", "id", "event"}, {"kind": "chat-end", "id", "text"}
    {"kind": "answer", "id", "text"}
    {"kind": "question", "message"}: the function that replies was called
    {"kind": "done", "id", "value"?}: the result of another command
    {"kind": "error", "id"?, "code", "message"}
    {"kind": "reset", "sessionId", "reason"}
    {"kind": "closed"}

A driver prints each numbered event of each session once, in order, as `event`. After `closed` it exits with 0.
"""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
from support import client_driver
from support.documents import ROOT
from support.node import NODE_FOLDER, SCRIPTS, install_packages, needs_node
from support.waiting import PATIENCE

LONG = 3 * PATIENCE  # for a whole answer through many reconnects


@attrs.define(eq=False)
class Driver:
    """A driver program. `lines` has all results that it has printed."""

    process: asyncio.subprocess.Process
    lines: list[dict[str, Any]] = attrs.Factory(list)
    commands: int = 1000  # the id of the last command of result_of()

    async def do(self, do: str, **fields: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"do": do} | fields).encode() + b"\n")
        await self.process.stdin.drain()

    async def until(self, kind: str, **wanted: Any) -> dict[str, Any]:
        """Return the first line with these fields that was not returned before; wait for it if necessary."""
        line: dict[str, Any]
        for line in self.lines:
            if line["kind"] == kind and not line.get("seen") and wanted.items() <= line.items():
                line["seen"] = True
                return line
        assert self.process.stdout is not None
        async with asyncio.timeout(LONG):
            while raw := await self.process.stdout.readline():
                line = json.loads(raw)
                self.lines.append(line)
                if line["kind"] == kind and wanted.items() <= line.items():
                    line["seen"] = True
                    return line
        raise EOFError(f"the driver ended before a line {kind} {wanted}: {self.lines[-5:]}")

    async def until_event(self, kind: str, session: str = "s1") -> dict[str, Any]:
        """Return the next event of that type."""
        while True:
            line = await self.until("event", sessionId=session)
            event: dict[str, Any] = line["event"]
            if event["type"] == kind:
                return event

    def events(self, session: str = "s1") -> list[dict[str, Any]]:
        """Return the events of a session that its first session object has got."""
        lines = [line for line in self.lines if line["kind"] == "event" and line["sessionId"] == session]
        return [line["event"] for line in lines if "handle" not in line]

    async def result_of(self, do: str, **fields: Any) -> Any:
        """Run a command to its end, and return its value. The command has the next id."""
        self.commands += 1
        await self.do(do, id=self.commands, **fields)
        return (await self.until("done", id=self.commands)).get("value")

    def count(self, kind: str, **wanted: Any) -> int:
        return sum(line["kind"] == kind and wanted.items() <= line.items() for line in self.lines)

    async def join(self, port: int, agent: str, session: str = "s1", **cursor: Any) -> None:
        """Connect, and join a session."""
        await self.do("connect", url=f"ws://127.0.0.1:{port}/api/v1/ws")
        await self.do("session", sessionId=session, agent=agent, **cursor)
        await self.until("state", state="live")

    async def close(self) -> None:
        """Close the client, and wait until the driver exits."""
        await self.do("close")
        await self.until("closed")
        async with asyncio.timeout(PATIENCE):
            assert await self.process.wait() == 0


NODE_DRIVER = SCRIPTS / "driver.mjs"
COMMANDS: dict[str, Callable[[], list[str]]] = {
    "python": lambda: [sys.executable, "-P", client_driver.__file__],  # -P: support/hub.py is not the hub
    "node": lambda: ["node", str(NODE_FOLDER / NODE_DRIVER.name)],
}
DRIVERS = ["python"] + ([pytest.param("node", marks=needs_node)] if NODE_DRIVER.exists() else [])


@asynccontextmanager
async def run_driver(library: str) -> AsyncIterator[Driver]:
    """Run a driver program of one client library, and kill it at the end if it is still running."""
    if library == "node":
        await install_packages()
    process = await asyncio.create_subprocess_exec(
        *COMMANDS[library](),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=2**24,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUTF8": "1"},
    )
    try:
        yield Driver(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()
