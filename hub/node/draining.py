"""The end of a node's work: running answers end, or are ended, and all that was said comes into the log."""

import asyncio

import structlog

from hub.node.node import Node

HURRY_SECONDS = 0.2  # in which runs are to heed their cancel, when people cannot wait

log = structlog.get_logger()


async def finish_runs(node: Node, seconds: float, hurry: asyncio.Event) -> None:
    """Give the running answers *seconds* to end, or until *hurry*; then end those that are left.

    Answers that no session keeps are waited for, too, and ended with `aborted`.
    """
    waits = [asyncio.create_task(_answered(node)), asyncio.create_task(hurry.wait())]
    try:
        await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waits:
            task.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
    for session in list(node.sessions.values()):
        session.schedule.drain()
    for reader in node.completions.values():
        reader.stop("aborted")


async def _answered(node: Node) -> None:
    """Wait until no answer goes on. The node is draining: none begins."""
    for session in list(node.sessions.values()):
        await session.schedule.wait_for_all_ends()
    for ended in list(node.completions):
        await ended.wait()


async def write_all(node: Node, seconds: float, hurry: asyncio.Event | None = None) -> None:
    """Wait until no run goes on, everything said is in the log, and who asked without a session has been told the end.

    After *hurry* no stopped run has its grace time.
    """
    hurrying = asyncio.create_task(_abandon(node, hurry)) if hurry is not None else None
    try:
        async with asyncio.timeout(seconds):
            for session in list(node.sessions.values()):
                await session.schedule.wait_for_all_ends()
                await session.outbox.wait_until_empty()
            for ended in list(node.completions):
                await ended.wait()
    except TimeoutError:
        log.error("not everything that was said could be written")
    finally:
        if hurrying is not None:
            hurrying.cancel()
            await asyncio.wait([hurrying])


async def _abandon(node: Node, hurry: asyncio.Event) -> None:
    """End what goes on a moment after *hurry*, whether its work has ended or not."""
    await hurry.wait()
    await asyncio.sleep(HURRY_SECONDS)
    for session in list(node.sessions.values()):
        session.schedule.abandon()
    for reader in node.completions.values():
        reader.agent_task.abandon()
