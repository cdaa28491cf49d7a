"""Recover the runs of an earlier process at the start of the node. A damaged session does not stop the start."""

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

PARALLEL_RECOVERIES = 16

log = structlog.get_logger()


async def recover_runs(node: "Node") -> None:
    """Recover the runs of all sessions.

    If the output of a started run is damaged, all started runs of its session end as `aborted`. If a session cannot be
    loaded or read now, the next start recovers its runs. Raises StorageUnavailable if the runs cannot be listed.
    """
    records_by_key: dict[Key, list[RunRecord]] = {}
    for record in await node.log.runs.list_unfinished_runs():
        records_by_key.setdefault(record.key, []).append(record)
    if not records_by_key:
        return
    sessions, run_counts = iter(records_by_key.items()), list[int]()
    async with asyncio.TaskGroup() as workers:
        for _ in range(min(PARALLEL_RECOVERIES, len(records_by_key))):
            workers.create_task(_recover_each(node, sessions, run_counts))
    log.info("the recovery of runs has ended", sessions=len(run_counts), runs=sum(run_counts))


async def _recover_each(
    node: "Node", sessions: Iterator[tuple[Key, Sequence[RunRecord]]], run_counts: list[int]
) -> None:
    """Recover the sessions that the iterator yields, one after the other. All workers share the iterator.

    Append the number of runs of each session that was recovered to *run_counts*.
    """
    for key, records in sessions:
        try:
            async with node.loader.use(key) as session:
                try:
                    await recover_session(session, records)
                    run_counts.append(len(records))
                except LogDamaged as error:
                    await abort_session(session, records)
                    _warn(key, records, error, outcome="aborted")
        except HubError as error:  # the session cannot be loaded, or cannot be read now
            _warn(key, records, error, outcome="left to the next start")


def _warn(key: Key, records: Sequence[RunRecord], error: HubError, outcome: str) -> None:
    runs = [record.runId for record in records]
    log.warning("a session was not recovered", session=key, reason=error.message, runs=runs, outcome=outcome)
