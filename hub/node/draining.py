"""Drain a node: wait for the active runs, end the rest, and wait until the log holds everything."""

import asyncio

import structlog

from hub.node.node import Node

HURRY_SECONDS = 0.2  # the grace time of cancelled runs after a second signal

log = structlog.get_logger()


async def finish_runs(node: Node, seconds: float, hurry: asyncio.Event) -> None:
    """Wait for the ends of the active runs, at most *seconds* or until *hurry* is set. Then drain all schedules.

    Schedule.drain() ends the remaining active runs as `aborted`, but suspends restartable ones. Completions, the
    answers outside a session, are awaited, too; the remaining ones end as `aborted`.
    """
    tasks = [asyncio.create_task(_wait_for_ends(node)), asyncio.create_task(hurry.wait())]
    try:
        await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for session in list(node.sessions.values()):
        session.schedule.drain()
    for reader in node.completions.values():
        reader.stop("aborted")


async def _wait_for_ends(node: Node) -> None:
    """Wait until there is no active run and no completion. The node is draining, so no new one begins."""
    for session in list(node.sessions.values()):
        await session.schedule.wait_for_all_ends()
    for end_event in list(node.completions):
        await end_event.wait()


async def flush_all(node: Node, seconds: float, hurry: asyncio.Event | None = None) -> None:
    """Wait, at most *seconds*, until no run is active, the log holds all events, and all completions have ended.

    When *hurry* is set, the grace time of stopped runs ends after HURRY_SECONDS.
    """
    abandon_task = asyncio.create_task(_abandon_after_hurry(node, hurry)) if hurry is not None else None
    try:
        async with asyncio.timeout(seconds):
            for session in list(node.sessions.values()):
                await session.schedule.wait_for_all_ends()
                await session.outbox.wait_until_empty()
            for end_event in list(node.completions):
                await end_event.wait()
    except TimeoutError:
        log.error("at the stop, an answer still ran, or some events were not written to the log")
    finally:
        if abandon_task is not None:
            abandon_task.cancel()
            await asyncio.wait([abandon_task])


async def _abandon_after_hurry(node: Node, hurry: asyncio.Event) -> None:
    """Wait for *hurry*, then HURRY_SECONDS; then end all stopped runs, although their code may still run."""
    await hurry.wait()
    await asyncio.sleep(HURRY_SECONDS)
    for session in list(node.sessions.values()):
        session.schedule.abandon()
    for reader in node.completions.values():
        reader.agent_task.abandon()
