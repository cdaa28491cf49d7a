"""No code of the hub polls in a loop if an event could wake it."""

import ast

import pytest
from support.documents import ROOT

HUB = ROOT / "hub"
# The functions with a loop that sleeps, and the reason. No event in this process could replace the sleep.
SLEEPERS = {
    ("adapters/local_model.py", "_keep_alive"): "the pause before the next start of a child that died",
    ("adapters/chat_agent.py", "answer"): "the pause between two requests to a model's endpoint",
    ("cli/top/live.py", "_read_often"): "the pause before the next reading of the metrics",
    ("client/files.py", "_upload_with_retries"): "the pause before the next try",
    ("client/link.py", "run"): "the pause before the next connection",
    ("client/pages.py", "read"): "the pause before the next try",
    ("commands/housekeeping.py", "_run"): "the pause before the next run of the periodic tasks",
    ("web/certificate.py", "watch"): "the pause before the next look at the files of the certificate",
    ("node/upkeep.py", "_every"): "the pause before the next run of a periodic task",
}


def sleepers(code: str) -> set[str]:
    """Return the functions with a loop that sleeps; a sleep of 0 seconds only yields to other tasks."""
    return {
        function.name
        for function in ast.walk(ast.parse(code))
        if isinstance(function, (ast.AsyncFunctionDef, ast.FunctionDef))
        for loop in ast.walk(function)
        if isinstance(loop, (ast.While, ast.For, ast.AsyncFor))
        for call in ast.walk(loop)
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "asyncio.sleep"
        if not (isinstance(call.args[0], ast.Constant) and call.args[0].value == 0)
    }


def test_only_the_listed_loops_sleep() -> None:
    functions = {
        (path.relative_to(HUB).as_posix(), name)
        for path in sorted(HUB.rglob("*.py"))
        for name in sleepers(path.read_text(encoding="utf-8"))
    }
    assert functions == set(SLEEPERS)


@pytest.mark.parametrize(
    ("code", "functions"),
    [
        ("async def f():\n    while not done:\n        await asyncio.sleep(0.01)", {"f"}),
        ("async def f():\n    for _ in range(9):\n        if x:\n            await asyncio.sleep(wait)", {"f"}),
        ("async def f():\n    while not done:\n        await asyncio.sleep(0)", set()),
        ("async def f():\n    await asyncio.sleep(1)", set()),
    ],
)
def test_sleepers_finds_loops_that_sleep(code: str, functions: set[str]) -> None:
    assert sleepers(code) == functions
