"""Researches a question, and shows its steps."""

import asyncio
from collections.abc import AsyncIterator

from hub import Progress, Reasoning, StepFinished, StepStarted, ToolCallArgs, ToolCallEnd, ToolCallResult, ToolCallStart
from hub.hosting.contract import AgentOutput


async def researcher(message: str) -> AsyncIterator[AgentOutput]:
    yield StepStarted("Search")
    yield Reasoning("They want the tallest peak of each continent. ")
    await asyncio.sleep(1.1)
    yield Reasoning("A list exists; the heights differ by source, so two of them should agree.")
    for call, name, arguments, result in (
        ("c1", "search", '{"query": "highest mountain of each continent"}', '{"pages": 3, "best": "Seven Summits"}'),
        ("c2", "fetch", '{"page": "Seven Summits"}', None),
    ):
        yield ToolCallStart(call, name)
        yield ToolCallArgs(call, arguments)
        yield ToolCallEnd(call)
        if result is not None:
            yield ToolCallResult(call, result)
    yield StepFinished("Search")
    yield StepStarted("Compare")
    yield "Two sources agree on **five** of seven heights. I am reading the third one now.\n"
    yield Progress(0.62, "Page 13 of 21")
    await asyncio.sleep(3600 if "wait" in message else 0.1)
    yield StepFinished("Compare")
