"""What is damaged in the file of an embedded log, read beside a hub that may be running: no lock, no write."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import attrs
import msgspec

from hub.ids import Key
from hub.storage.log import LogUnusable
from hub.storage.records import Damage, RunRecord
from hub.storage.sqlite.damage import pieces
from hub.storage.sqlite.migrations import MIGRATIONS
from hub.storage.sqlite.strips import Commit, Damaged, Row, to_events
from hub.storage.sqlite.wal import BUSY_MS

MOST_FAULTS = 20  # of the file itself, as SQLite names them
STRIPS = """
    SELECT t.n, s.id, s.floor, t.seq, t.upto, t.events FROM strips t JOIN sessions s ON s.n = t.session
    WHERE s.id > '!' ORDER BY s.n, t.upto"""

_rows = msgspec.json.Decoder(list[Row]).decode
_commits = msgspec.json.Decoder(Commit).decode
_record = msgspec.json.Decoder(RunRecord).decode


def check(path: Path, blob_size: Callable[[str], int | None]) -> list[Damage]:
    """Return what is damaged; *blob_size* returns the bytes that lie under a digest, or None.

    Raises LogUnusable where there is no such log, or of another version.
    """
    if not path.is_file():
        raise LogUnusable(f"there is no log {path}: name its folder with --data, or the log with --log")
    try:
        db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", BUSY_MS / 1000, isolation_level=None, uri=True)
        with closing(db):
            _refuse_other_versions(db, path)
            db.text_factory = bytes  # what is no UTF-8 is damage, not the end of the check
            return Check(db, blob_size).damages()
    except sqlite3.Error as error:
        raise LogUnusable(f"{path} cannot be read as a log ({error}): restore a backup") from error


def _refuse_other_versions(db: sqlite3.Connection, path: Path) -> None:
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version < len(MIGRATIONS):
        raise LogUnusable(f"{path} is of an older Hubbub: start the hub once, which brings it up to date")
    if version > len(MIGRATIONS):
        raise LogUnusable(f"{path} is of a newer Hubbub: update Hubbub")


@attrs.define(eq=False)
class Check:
    """One look at a log.

    *next_seqs* has the seq that each session must have next, *aside* where the pieces begin that were set
    aside."""

    db: sqlite3.Connection
    blob_size: Callable[[str], int | None]
    next_seqs: dict[Key, int] = attrs.Factory(dict)
    aside: dict[Key, list[int]] = attrs.Factory(dict)

    def damages(self) -> list[Damage]:
        """Look at everything in one view of the file, so that what a running hub moves is seen once."""
        self.db.execute("BEGIN")
        found: list[Damage] = []
        for where, look in (
            ("the log file", self._file),
            ("table sessions", self._sessions),
            ("table damaged", self._damaged),
            ("table strips", self._strips),
            ("table loose", self._loose),
            ("table runs", self._runs),
            ("table files", self._files),
        ):
            try:
                found.extend(look())
            except sqlite3.DatabaseError as error:
                found.append(Damage(where=where, reason=str(error)))
        self.db.execute("ROLLBACK")
        return [damage for damage in found if damage.file_id is None or self._has_file(damage.file_id)]

    def _file(self) -> Iterator[Damage]:
        for (fault,) in self.db.execute(f"PRAGMA quick_check({MOST_FAULTS})"):
            if fault != b"ok":
                yield Damage(where="the log file", reason=" ".join(fault.decode(errors="replace").split()))

    def _sessions(self) -> Iterator[Damage]:
        for name, floor in self.db.execute("SELECT id, floor FROM sessions WHERE id > '!'"):
            self.next_seqs[_key(name)] = floor + 1
        yield from ()

    def _damaged(self) -> Iterator[Damage]:
        for n, name, seq in self.db.execute(
            "SELECT d.n, s.id, d.seq FROM damaged d LEFT JOIN sessions s ON s.n = d.session ORDER BY d.n"
        ):
            key = None if name is None else _key(name)
            if key is not None:
                self.aside.setdefault(key, []).append(seq)
            yield Damage(
                where=f"damaged row {n}",
                key=key,
                first=seq,
                last=None,
                reason="it could not be read, and was set aside",
            )

    def _strips(self) -> Iterator[Damage]:
        for n, name, floor, seq, upto, events in self.db.execute(STRIPS):
            key = _key(name)
            yield from self._follow(key, seq, upto)
            try:
                _check_rows(key, _rows(events), seq, upto)
            except (msgspec.MsgspecError, UnicodeDecodeError, Damaged) as error:
                yield Damage(where=f"strips row {n}", key=key, first=max(seq, floor + 1), last=upto, reason=str(error))

    def _loose(self) -> Iterator[Damage]:
        for n, events in self.db.execute("SELECT n, events FROM loose ORDER BY n"):
            try:
                commit = _commits(events)
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                yield from _torn(n, events, str(error))
                continue
            for session, seq, _, lines in commit:
                key, upto = Key(session), seq + len(lines) - 1
                yield from self._follow(key, seq, upto)
                try:
                    _check_rows(key, _rows(b"[" + b",".join(lines) + b"]"), seq, upto)
                except (msgspec.MsgspecError, UnicodeDecodeError, Damaged) as error:
                    yield Damage(where=f"loose row {n}", key=key, first=seq, last=upto, reason=str(error))

    def _follow(self, key: Key, seq: int, upto: int) -> Iterator[Damage]:
        """Say which seqs of a session are missing before *seq*."""
        expected = self.next_seqs.get(key)
        if expected is None:
            return
        if seq > expected and not any(expected <= first < seq for first in self.aside.get(key, ())):
            yield Damage(where="events", key=key, first=expected, last=seq - 1, reason="they are missing")
        self.next_seqs[key] = max(expected, upto + 1)

    def _runs(self) -> Iterator[Damage]:
        for name, run, record in self.db.execute("SELECT session, id, record FROM runs ORDER BY n"):
            try:
                _record(record)
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                reason = f"the record of the run cannot be read: {error}"
                yield Damage(where=f"run {_text(run)}", key=_key(name), reason=reason)

    def _files(self) -> Iterator[Damage]:
        for file_id, name, size, digest in self.db.execute("SELECT id, session, size, digest FROM files ORDER BY id"):
            held = self.blob_size(_text(digest))
            if held == size:
                continue
            lies = "no blob" if held is None else f"a blob of {held} bytes instead of {size}"
            where, reason = f"file {_text(file_id)}", f"{lies} lies under {_text(digest)}"
            yield Damage(where=where, key=_key(name), reason=reason, file_id=_text(file_id))

    def _has_file(self, file_id: str) -> bool:
        """Say whether a file is still there: a running hub may have deleted its session, and then its blob."""
        return self.db.execute("SELECT 1 FROM files WHERE id = ?", (file_id,)).fetchone() is not None


def _check_rows(key: Key, rows: list[Row], seq: int, upto: int) -> None:
    """Raise Damaged, or a MsgspecError, where rows are not the events *seq* to *upto*."""
    to_events(key, "", rows)
    if [row[0] for row in rows] != [*range(seq, upto + 1)]:
        raise Damaged(f"it does not hold the seqs {seq} to {upto}")


def _torn(n: int, events: bytes, reason: str) -> Iterator[Damage]:
    """Name the sessions of a commit that cannot be read, as far as their names can."""
    for key, seq, _ in pieces(events):
        yield Damage(where=f"loose row {n}", key=key, first=seq, last=None, reason=reason)


def _key(name: bytes) -> Key:
    return Key(_text(name))


def _text(value: bytes) -> str:
    return value.decode(errors="replace")
