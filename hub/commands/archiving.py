"""Use cases of the operator: back up and restore the data folder.

The hub of these use cases is not started. Another process may run a hub on the folder during a backup.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from threading import Event
from typing import TypeVar

import attrs

from hub.access.principal import Principal
from hub.commands.hub import Hub
from hub.storage.archive import CopyProgress
from hub.storage.backup import back_up_data
from hub.storage.manifest import read_manifest
from hub.storage.restoring import Restorer

T = TypeVar("T")


@attrs.frozen(kw_only=True)
class BackupReport:
    """The time of a backup in UTC, and the number of its records by kind.

    *problems* has a line for each damage. *old_files* are the data that a restore has moved aside.
    """

    created: str
    counts: Mapping[str, int]
    problems: Sequence[str]
    old_files: Sequence[Path] = ()


async def back_up(hub: Hub, principal: Principal, folder: Path, report: CopyProgress) -> BackupReport:
    """Back up the log and the files into a new folder. If this fails or is cancelled, nothing of the backup is left.

    *report* is called in a thread. Raises LogUnusable, OSError.
    """
    archive, files, now = hub.node.log.open_archive(), hub.node.files.folder, hub.node.seams.now
    manifest = await _run_in_thread(lambda stop: back_up_data(archive, files, folder, now, stop), report)
    problems = [f"the blob {digest} is missing or damaged" for digest in manifest.missing_blobs]
    return BackupReport(created=manifest.created, counts=manifest.counts, problems=problems)


async def restore(
    hub: Hub, principal: Principal, folder: Path, report: CopyProgress, is_forced: bool = False
) -> BackupReport:
    """Restore a backup to the data folder. With *is_forced*, move old data aside; without it, refuse.

    Raises LogInUse if a hub runs, LogUnusable, OSError.
    """
    await asyncio.to_thread(read_manifest, folder)  # a wrong name makes no data folder
    hub.node.make_data_folder()
    restorer = Restorer(
        archive=hub.node.log.open_archive(),
        blobs=hub.node.files.folder,
        backup=folder,
        seams=hub.node.seams,
        is_forced=is_forced,
    )
    result = await _run_in_thread(restorer.run, report)
    manifest, problems = result.manifest, [damage.to_line() for damage in result.damages]
    return BackupReport(created=manifest.created, counts=manifest.counts, problems=problems, old_files=result.old_files)


class _Stop(Exception):
    """The caller was cancelled."""


async def _run_in_thread(work: Callable[[CopyProgress], T], report: CopyProgress) -> T:
    """Return the result of *work*, which gets a function to report its progress. A cancellation ends *work* first."""
    is_cancelled = Event()

    def report_or_stop(copied_bytes: int, all_bytes: int) -> None:
        if is_cancelled.is_set():
            raise _Stop
        report(copied_bytes, all_bytes)

    task = asyncio.create_task(asyncio.to_thread(work, report_or_stop))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        is_cancelled.set()
        await asyncio.gather(task, return_exceptions=True)
        raise
