"""Every documented route, asked what nobody thought of: the hub never fails, and answers as its document says."""

import asyncio
import re
import sys
from pathlib import Path

import aiohttp
import pytest
from support.hub import Hub
from support.sse import wait_until_all_left
from support.waiting import PATIENCE

SEED = 20261125
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
)
LISTENING = ("-H", "Accept: text/event-stream", "--include-path-regex", "/chat$|/agui$|/completions$")  # these end


async def fuzz(hub: Hub, folder: Path, *options: str) -> str:
    """Return what schemathesis says; fails where it found something, with what it takes to do it again."""
    flags = ("--phases", "examples,coverage,fuzzing", "--checks", ",".join(CHECKS), "--max-examples", "10")
    bounds = ("--request-timeout", "10", "--generation-database", "none", "--no-color")
    process = await asyncio.create_subprocess_exec(
        *(Path(sys.executable).with_name("schemathesis"), "run", f"{hub.url}/openapi.json", "--seed", str(SEED)),
        *(*flags, *bounds, *options),
        cwd=folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        out, _ = await asyncio.wait_for(process.communicate(), 4 * PATIENCE)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    said = out.decode()
    print(said)
    assert process.returncode == 0, f"seed {SEED}"
    return said


@pytest.mark.parametrize("options", [(), LISTENING], ids=["whole", "streams"])
async def test_nothing_that_is_sent_makes_the_hub_break_its_document(
    hub: Hub, tmp_path: Path, options: tuple[str, ...]
) -> None:
    """No failure of the hub, no status, header, type or shape that is not written down."""
    hub.agent("main.py", "async def main(message: str):\n    yield message")
    await hub.start(run_seconds=5.0)
    said = await fuzz(hub, tmp_path, *options)
    found = re.search(r"Tested: (\d+)", said)
    assert found and int(found[1]) >= (4 if options else 28)
    async with aiohttp.ClientSession(hub.url) as http, http.get("/ready") as answer:
        assert answer.status == 200
    await wait_until_all_left(hub)
