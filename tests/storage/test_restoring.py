"""A restore that is killed: the old data is somewhere, and the restore can be repeated."""

import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from hashlib import sha256
from pathlib import Path

import pytest
from support.documents import ROOT

from hub.seams import Seams
from hub.storage.backup import back_up_data
from hub.storage.restoring import Restorer
from hub.storage.sqlite.archive import SqliteArchive

# Restores the backup in folder 1 to folder 2. The process is killed before rename or deletion number 3; it prints the
# number of these steps if there were fewer.
RESTORE = """
import os, signal, sys
from pathlib import Path
from hub.seams import Seams
from hub.storage.restoring import Restorer
from hub.storage.sqlite.archive import SqliteArchive

backup, data, last = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
steps = 0
def count(function):
    def call(*arguments, **options):
        global steps
        steps += 1
        if steps == last:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **options)
    return call
for name in ("rename", "replace", "unlink"):
    setattr(os, name, count(getattr(os, name)))
archive = SqliteArchive(data / "hub.db")
Restorer(archive=archive, blobs=data / "files", backup=backup, seams=Seams(), is_forced=True).run(lambda *_: None)
print(steps)
"""


def make_data(folder: Path, session: str, blob: bytes) -> None:
    """Make a data folder with one session that has one file. Its log was not closed, so it has a write-ahead log."""
    (folder / "files").mkdir(parents=True)
    digest = sha256(blob).hexdigest()
    (folder / "files" / digest).write_bytes(blob)
    script = f"""
import os, sqlite3
from hub.storage.sqlite.migrations import migrate_schema
db = sqlite3.connect({str(folder / "hub.db")!r}, isolation_level=None)
db.execute("PRAGMA journal_mode = WAL")
migrate_schema(db)
db.execute("INSERT INTO sessions (id, epoch, floor, created) VALUES ({session!r}, 'old', 0, 0)")
db.execute("INSERT INTO files VALUES ('f_1', {session!r}, 'a', 'text/plain', {len(blob)}, {digest!r}, 0)")
os._exit(0)
"""
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)
    assert (folder / "hub.db-wal").stat().st_size


def read_sessions(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as db:
        return [id for (id,) in db.execute("SELECT id FROM sessions")]


def has_old_data(folder: Path) -> bool:
    """Return whether the folder still has the old data: the log with its latest commits, and the blob."""
    logs = [path for path in folder.iterdir() if path.name.startswith("hub.db")]
    logs = [path for path in logs if not path.name.endswith(("-wal", "-shm", ".lock", ".part"))]
    blobs = {path.read_bytes() for path in folder.rglob("*") if len(path.name) == 64}
    return ["old"] in [read_sessions(path) for path in logs] and b"old" in blobs


def restore(backup: Path, data: Path, last: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", RESTORE, str(backup), str(data), str(last)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)


@pytest.fixture
def backup(tmp_path: Path) -> Path:
    make_data(tmp_path / "source", "new", b"new")
    archive = SqliteArchive(tmp_path / "source" / "hub.db")
    back_up_data(archive, tmp_path / "source" / "files", tmp_path / "backup", Seams().now, lambda *_: None)
    return tmp_path / "backup"


def test_a_restore_that_is_killed_at_any_step_can_be_repeated(tmp_path: Path, backup: Path) -> None:
    """Before and between the renames. Nothing of the old data is lost, also what is in its write-ahead log."""
    number = 0
    while True:
        number += 1
        data = tmp_path / f"data{number}"
        make_data(data, "old", b"old")
        result = restore(backup, data, number)
        if result.returncode == 0:
            break
        assert result.returncode == -9, result.stderr
        again = restore(backup, data, 0)
        assert again.returncode == 0, again.stderr
        assert read_sessions(data / "hub.db") == ["new"]
        assert [path.read_bytes() for path in (data / "files").iterdir()] == [b"new"]
        assert has_old_data(data)
        assert not [name for name in os.listdir(data) if "part" in name]
    assert number > 7 and has_old_data(data) and read_sessions(data / "hub.db") == ["new"]


def test_a_manifest_of_another_form_is_refused(tmp_path: Path, backup: Path) -> None:
    """One of a newer hub is not misread."""
    manifest = json.loads((backup / "manifest.json").read_text())
    for changes in ({"format": 2}, {"schema": "x"}):
        (backup / "manifest.json").write_text(json.dumps(manifest | changes))
        archive = SqliteArchive(tmp_path / "data" / "hub.db")
        restorer = Restorer(archive=archive, blobs=tmp_path / "data" / "files", backup=backup, seams=Seams())
        with pytest.raises(Exception, match="newer Hubbub"):
            restorer.run(lambda *_: None)
    assert not (tmp_path / "data").exists()
