"""Agents that several test files host."""

# Yields one of each kind of thing that an agent can yield.
EVERYTHING = """
from hub import (Custom, Progress, Reasoning, StateDelta, StateSnapshot, StepFinished, StepStarted, ToolCallArgs,
    ToolCallEnd, ToolCallResult, ToolCallStart)

async def everything(message: str):
    yield "before "
    yield Reasoning("I ")
    yield Reasoning("think")
    yield "between "
    yield Reasoning("again")
    yield StepStarted("look")
    yield ToolCallStart("c1", "search")
    yield ToolCallArgs("c1", '{"q":')
    yield ToolCallArgs("c1", '1}')
    yield ToolCallEnd("c1")
    yield ToolCallResult("c1", "nothing", isError=True)
    yield StepFinished("look")
    yield Progress(0.5, "half")
    yield Custom("mine", {"a": [1, None]})
    yield StateSnapshot({"n": 1})
    yield StateDelta([{"op": "replace", "path": "/n", "value": 2}])
    yield "after"
"""
