"""Nothing waits by looking again and again for what an event could tell."""

import ast

import pytest
from support.documents import ROOT

HUB = ROOT / "hub"
# The loops that sleep, by file and function, with what they wait for. None of it is in this process, or is an event.
SLEEPERS = {
    ("adapters/local_model.py", "_keep_alive"): "a pause before a child that died is started again",
    ("adapters/chat_agent.py", "answer"): "the pause between two tries at a stranger's endpoint",
    ("client/link.py", "run"): "the pause before the next connection",
    ("client/pages.py", "read"): "the pause before the next try",
    ("node/upkeep.py", "_every"): "the next turn of what is done again and again",
}


def sleepers(code: str) -> set[str]:
    """Return the functions in which a loop sleeps; one that sleeps for 0 seconds only gives the others their turn."""
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


def test_no_loop_of_the_hub_sleeps_but_those_that_are_listed() -> None:
    found = {
        (path.relative_to(HUB).as_posix(), name)
        for path in sorted(HUB.rglob("*.py"))
        for name in sleepers(path.read_text(encoding="utf-8"))
    }
    assert found == set(SLEEPERS)


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("async def f():\n    while not done:\n        await asyncio.sleep(0.01)", {"f"}),
        ("async def f():\n    for _ in range(9):\n        if x:\n            await asyncio.sleep(wait)", {"f"}),
        ("async def f():\n    while not done:\n        await asyncio.sleep(0)", set()),
        ("async def f():\n    await asyncio.sleep(1)", set()),
    ],
)
def test_a_loop_that_sleeps_is_seen(code: str, found: set[str]) -> None:
    assert sleepers(code) == found
