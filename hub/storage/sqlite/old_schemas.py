"""Copy the database before an update of its schema, so that an operator can go back to the earlier version of the hub.

The copy of `hub.db` with schema 9 is `hub.db.schema9.bak`, beside it. The newest two copies stay.
"""

import os
import re
import sqlite3
from contextlib import suppress
from pathlib import Path

from hub.storage.disk import check_space, sync_folder
from hub.storage.log import LogUnusable
from hub.storage.sqlite.copying import copy_database, measure_database, read_transaction

KEPT_COPIES = 2


def save_old_schema(db: sqlite3.Connection, path: Path, schema: int) -> Path:
    """Copy the database at *path*, which has *schema*. Return the path of the copy. Delete all but the newest copies.

    *db* is the only connection that writes. Raises LogUnusable if the copy cannot be made: the start must end then.
    """
    target = path.with_name(f"{path.name}.schema{schema}.bak")
    part = target.with_name(f"{target.name}.part")
    try:
        check_space(path.parent, measure_database(db), f"the copy of {path} before the update of its schema")
        part.unlink(missing_ok=True)  # of a start that was killed
        with read_transaction(db):
            copy_database(db, part, lambda copied_bytes, all_bytes: None)
        os.replace(part, target)
        sync_folder(path.parent)
    except (OSError, sqlite3.Error) as error:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        reason = error.strerror if isinstance(error, OSError) else error
        advice = f"make it possible to write {target.name} beside it, with enough space, then start the hub again"
        raise LogUnusable(f"{path} was not updated, because it cannot be copied first ({reason}): {advice}") from error
    _delete_older_copies(path)
    return target


def _delete_older_copies(path: Path) -> None:
    name = re.compile(rf"{re.escape(path.name)}\.schema[0-9]+\.bak")
    copies = [file for file in path.parent.iterdir() if name.fullmatch(file.name)]
    copies.sort(key=lambda file: file.stat().st_mtime_ns, reverse=True)
    for copy in copies[KEPT_COPIES:]:
        with suppress(OSError):  # it is tried again before the next update
            copy.unlink()
