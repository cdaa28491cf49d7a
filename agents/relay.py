"""Asks two other agents, and passes their answers on."""

from hub import AgentError, Run

ASKED = ("echo", "main")


async def relay(run: Run):
    for number, name in enumerate(ASKED):
        yield f"\n\n{name}: " if number else f"{name}: "
        try:
            async for text in run.call(name, run.message):
                yield text
        except AgentError as error:
            yield f"(no answer: {error.message})"
