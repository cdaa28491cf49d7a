"""The core reads clocks and randomness only through one object, its Seams."""

import ast
from collections import Counter
from pathlib import Path

import pytest
from support.documents import ROOT
from support.hub import Hub

from hub.ids import Key
from hub.seams import Seams

FOLDERS = ("access", "commands", "delivery", "node", "sessions", "storage")
# Wall time, clocks and randomness. Modules that run in threads may import them: threads have no event loop.
WORLD = {"time", "datetime", "random", "secrets", "uuid"}
THREADS = {"node/watchdog.py", "storage/sqlite/open_file.py", "storage/sqlite/pacing.py", "storage/sqlite/writer.py"}
FILES = [path for folder in FOLDERS for path in sorted((ROOT / "hub" / folder).rglob("*.py"))]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT / "hub")))
def test_the_core_reads_time_and_randomness_from_its_seams(path: Path) -> None:
    """Durations come from the running event loop, everything else from a Seams."""
    modules = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            modules.add((node.module or "").partition(".")[0])
    assert not modules & WORLD or str(path.relative_to(ROOT / "hub")) in THREADS


async def test_a_hub_uses_its_seams_for_ids_secrets_and_times(hub: Hub) -> None:
    """All ids, secrets and stored times come from the Seams."""
    counts: Counter[str] = Counter()

    def number(kind: str) -> str:
        counts[kind] += 1
        return f"{kind}_{counts[kind]}"

    def secret(size: int) -> str:
        counts["secret"] += 1
        return f"{counts['secret']:0{2 * size}x}"

    hub.seams = Seams(now=lambda: 1_000_000, new_id=number, new_secret=secret)
    await hub.start()
    client = await hub.connect(extended=True)
    await client.send(type="chat", agentId="echo", message="hello")
    await client.until_done()
    events = [frame for frame in client.frames if "seq" in frame and "ts" in frame]
    assert {frame["ts"] for frame in events} == {1_000_000} and {frame["sessionId"] for frame in events} == {"s_1"}
    assert {frame.get("runId") for frame in events} == {None, "r_1"}
    assert [frame["messageId"] for frame in events if frame["type"] == "user_message"] == ["m_2"]
    assert {frame["epoch"] for frame in events} == {f"{2:016x}"}  # the first secret is the id of the connection
    file_id = await hub.node.files.save(Key("s_1"), "x.txt", "text/plain", b"x")
    assert file_id.fileId == f"f_{4:032x}" and file_id.key == "s_1"  # the third is the name of the temporary file
