"""The runs that an earlier process left, session by session: one whose log is damaged does not stop the start."""

import asyncio
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import structlog

from hub.errors import HubError, LogDamaged
from hub.ids import Key
from hub.sessions.recovery import abort_session, recover_session
from hub.storage.records import RunRecord

if TYPE_CHECKING:
    from hub.node.node import Node

TOGETHER = 16  # sessions that are recovered at a time

log = structlog.get_logger()


async def recover_runs(node: "Node") -> None:
    """Take up the runs of all sessions; those of a session that cannot be read end `aborted`."""
    left: dict[Key, list[RunRecord]] = {}
    for record in await node.log.runs.list_unfinished():
        left.setdefault(record.key, []).append(record)
    if not left:
        return
    sessions = iter(left.items())
    async with asyncio.TaskGroup() as workers:
        for _ in range(min(TOGETHER, len(left))):
            workers.create_task(_recover_each(node, sessions))
    log.info("recovered runs", sessions=len(left), runs=sum(map(len, left.values())))


async def _recover_each(node: "Node", sessions: Iterator[tuple[Key, Sequence[RunRecord]]]) -> None:
    """Recover one session after the other until there is none left; the workers share *sessions*."""
    for key, records in sessions:
        try:
            async with node.use(key) as session:
                try:
                    await recover_session(session, records)
                except LogDamaged as damage:
                    abort_session(session, records)
                    _warn(key, records, damage, outcome="aborted")
        except HubError as damage:  # the session cannot be loaded, or not be read just now
            _warn(key, records, damage, outcome="left to the next start")


def _warn(key: Key, records: Sequence[RunRecord], damage: HubError, outcome: str) -> None:
    runs = [record.runId for record in records]
    log.warning("a session was not recovered", session=key, reason=damage.message, runs=runs, outcome=outcome)
