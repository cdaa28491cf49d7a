"""Calls two other agents, and streams their answers."""

from hub import AgentError, Run

AGENTS = ("echo", "main")


async def relay(run: Run):
    for index, name in enumerate(AGENTS):
        yield f"\n\n{name}: " if index else f"{name}: "
        try:
            async for text in run.call(name, run.message):
                yield text
        except AgentError as error:
            yield f"(no answer: {error.message})"
