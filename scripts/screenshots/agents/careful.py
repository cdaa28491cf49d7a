"""Asks before it changes anything."""

from collections.abc import AsyncIterator

from hub import Run


async def careful(run: Run) -> AsyncIterator[str]:
    yield "The folder **old-photos** holds 1,204 pictures. 311 of them are there twice.\n"
    reply = await run.ask("Shall I delete the 311 duplicates? This cannot be undone.", schema={"type": "boolean"})
    yield "Deleted." if reply.payload else "I left them alone."
