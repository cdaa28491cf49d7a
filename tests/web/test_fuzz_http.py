"""Random requests to every documented route: the hub never fails, and all responses match its OpenAPI document."""

import asyncio
import re
import sys
from pathlib import Path

import aiohttp
import pytest
from support.hub import Hub
from support.sse import wait_until_all_left
from support.waiting import PATIENCE

from hub.node import log_probe

SEED = 20261125
LIMIT = 10 * PATIENCE  # seconds: the requests take 20 s of processor time, and other programs may take most of it
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
)
STREAMS = ("-H", "Accept: text/event-stream", "--include-path-regex", "/chat$|/agui$|/completions$")  # streams that end
# A download has the type of its upload. The document names one type, for generators of clients.
CONFIG = f"""
checks.enabled = false
{chr(10).join(f"checks.{name}.enabled = true" for name in CHECKS)}

[[operations]]
include-path = "/api/v1/files/{{id}}"
checks.content_type_conformance.enabled = false
"""


async def fuzz(hub: Hub, folder: Path, *options: str) -> str:
    """Return the output of schemathesis; fail if it found something. The output says how to repeat the request."""
    (folder / "schemathesis.toml").write_text(CONFIG)
    flags = ("--phases", "examples,coverage,fuzzing", "--max-examples", "10")
    bounds = ("--request-timeout", "10", "--generation-database", "none", "--no-color")
    endless = ("--exclude-path-regex", "/agui/connect$")  # it waits for the next run of the session
    process = await asyncio.create_subprocess_exec(
        *(Path(sys.executable).with_name("schemathesis"), "run", f"{hub.url}/openapi.json", "--seed", str(SEED)),
        *(*flags, *bounds, *endless, *options),
        cwd=folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        out, _ = await asyncio.wait_for(process.communicate(), LIMIT)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    output = out.decode()
    print(output)
    assert process.returncode == 0, f"seed {SEED}"
    return output


@pytest.mark.timeout(LIMIT + 2 * PATIENCE)
@pytest.mark.parametrize("options", [(), STREAMS], ids=["complete", "streams"])
async def test_no_request_gets_an_undocumented_response(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]
) -> None:
    """No failure of the hub, and no undocumented status, header, content type or body."""
    hub.agent("main.py", "async def main(message: str):\n    yield message")
    await hub.start(run_seconds=5.0)
    output = await fuzz(hub, tmp_path, *options)
    match = re.search(r"Tested: (\d+)", output)
    assert match and int(match[1]) >= (4 if options else 28)
    monkeypatch.setattr(log_probe, "WAIT_SECONDS", PATIENCE)  # on a slow disk, a commit may take longer
    async with aiohttp.ClientSession(hub.url) as http, http.get("/ready") as answer:
        assert answer.status == 200
    await wait_until_all_left(hub)
