"""Find damage in the file of an embedded log. The check takes no lock and writes nothing, so a hub may be running."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import attrs
import msgspec

from hub.ids import Key
from hub.storage.log import LogUnusable
from hub.storage.records import Damage, RunRecord
from hub.storage.sqlite.copying import connect_read_only
from hub.storage.sqlite.damage import split_commit
from hub.storage.sqlite.event_rows import EventRow, StoredCommit, UnreadableEvents, join_rows, to_events
from hub.storage.sqlite.migrations import MIGRATIONS

MAX_FILE_FAULTS = 20  # the most that PRAGMA quick_check reports

_decode_rows = msgspec.json.Decoder(list[EventRow]).decode
_decode_commit = msgspec.json.Decoder(StoredCommit).decode
_decode_run = msgspec.json.Decoder(RunRecord).decode


def check_log_file(path: Path, blob_size: Callable[[str], int | None]) -> list[Damage]:
    """Return the damage in the file. For *blob_size* see Log.check().

    Raises LogUnusable if the file does not exist, cannot be read as a log, or has the schema of another version.
    """
    try:
        with closing(connect_read_only(path)) as db:
            _check_version(db, path)
            db.text_factory = bytes  # with str, a text that is not UTF-8 would raise and end the check
            return LogCheck(db, blob_size).find_damage()
    except sqlite3.Error as error:
        raise LogUnusable(f"{path} cannot be read as a log ({error}): restore a backup") from error


def _check_version(db: sqlite3.Connection, path: Path) -> None:
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version < len(MIGRATIONS):
        raise LogUnusable(f"{path} was written by an older Hubbub: start the hub once to update the log")
    if version > len(MIGRATIONS):
        raise LogUnusable(f"{path} was written by a newer Hubbub: update Hubbub")


@attrs.define(eq=False)
class LogCheck:
    """One check of a log.

    *next_seqs* maps each session to the seq of the next event that the check expects. *damaged_seqs* maps each
    session to the first seqs of its parts in the table `damaged` (see damage.py). A gap that contains one of these seqs
    is not reported again.
    """

    db: sqlite3.Connection
    blob_size: Callable[[str], int | None]
    next_seqs: dict[Key, int] = attrs.Factory(dict)
    damaged_seqs: dict[Key, list[int]] = attrs.Factory(dict)

    def find_damage(self) -> list[Damage]:
        """Make all checks in one read transaction: a running hub may move events from one table to another."""
        self.db.execute("BEGIN")
        damages: list[Damage] = []
        for location, check in (
            ("the log file", self._check_file),
            ("table sessions", self._read_floors),
            ("table damaged", self._check_damaged_parts),
            ("table strips", self._check_strips),
            ("table loose", self._check_loose),
            ("table runs", self._check_runs),
            ("table files", self._check_files),
        ):
            try:
                damages.extend(check())
            except sqlite3.DatabaseError as error:
                damages.append(Damage(location=location, reason=str(error)))
        self.db.execute("ROLLBACK")
        return [damage for damage in damages if damage.file_id is None or self._has_file(damage.file_id)]

    def _check_file(self) -> Iterator[Damage]:
        for (fault,) in self.db.execute(f"PRAGMA quick_check({MAX_FILE_FAULTS})"):
            if fault != b"ok":
                yield Damage(location="the log file", reason=" ".join(fault.decode(errors="replace").split()))

    def _read_floors(self) -> Iterator[Damage]:
        """Fill *next_seqs*. Yields nothing, but may raise sqlite3.DatabaseError, as the checks do."""
        for session, floor in self.db.execute("SELECT id, floor FROM sessions WHERE id > '!'"):
            self.next_seqs[_to_key(session)] = floor + 1
        yield from ()

    def _check_damaged_parts(self) -> Iterator[Damage]:
        statement = "SELECT d.n, s.id, d.seq FROM damaged d LEFT JOIN sessions s ON s.n = d.session ORDER BY d.n"
        for n, session, seq in self.db.execute(statement):
            key = None if session is None else _to_key(session)
            if key is not None:
                self.damaged_seqs.setdefault(key, []).append(seq)
            reason = "the hub could not read these events, and set them aside"
            yield Damage(location=f"damaged row {n}", key=key, first_seq=seq, last_seq=None, reason=reason)

    def _check_strips(self) -> Iterator[Damage]:
        statement = """
            SELECT t.n, s.id, s.floor, t.seq, t.upto, t.events FROM strips t JOIN sessions s ON s.n = t.session
            WHERE s.id > '!' ORDER BY s.n, t.upto"""
        for n, session, floor, seq, upto, events in self.db.execute(statement):
            key = _to_key(session)
            yield from self._check_gap(key, seq, upto)
            if reason := _find_fault(key, events, seq, upto):
                yield Damage(
                    location=f"strips row {n}", key=key, first_seq=max(seq, floor + 1), last_seq=upto, reason=reason
                )

    def _check_loose(self) -> Iterator[Damage]:
        for n, text in self.db.execute("SELECT n, events FROM loose ORDER BY n"):
            try:
                commit = _decode_commit(text)
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                yield from _report_sessions(n, text, str(error))
                continue
            for session, seq, _, events in commit:
                key, upto = Key(session), seq + len(events) - 1
                yield from self._check_gap(key, seq, upto)
                if reason := _find_fault(key, join_rows(events), seq, upto):
                    yield Damage(location=f"loose row {n}", key=key, first_seq=seq, last_seq=upto, reason=reason)

    def _check_gap(self, key: Key, seq: int, upto: int) -> Iterator[Damage]:
        """Yield the gap, if any, before a row of the events *seq* to *upto*; then expect the event after the row."""
        next_seq = self.next_seqs.get(key)
        if next_seq is None:
            return
        if seq > next_seq and not any(next_seq <= first < seq for first in self.damaged_seqs.get(key, ())):
            yield Damage(location="events", key=key, first_seq=next_seq, last_seq=seq - 1, reason="they are missing")
        self.next_seqs[key] = max(next_seq, upto + 1)

    def _check_runs(self) -> Iterator[Damage]:
        for session, run, record in self.db.execute("SELECT session, id, record FROM runs ORDER BY n"):
            try:
                _decode_run(record)
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                reason = f"the record of the run cannot be read: {error}"
                yield Damage(location=f"run {_to_text(run)}", key=_to_key(session), reason=reason)

    def _check_files(self) -> Iterator[Damage]:
        for file, session, size, digest in self.db.execute("SELECT id, session, size, digest FROM files ORDER BY id"):
            file_id, blob_size = _to_text(file), self.blob_size(_to_text(digest))
            if blob_size == size:
                continue
            problem = "is missing" if blob_size is None else f"has {blob_size} bytes instead of {size}"
            reason = f"the blob {_to_text(digest)} {problem}"
            yield Damage(location=f"file {file_id}", key=_to_key(session), reason=reason, file_id=file_id)

    def _has_file(self, file_id: str) -> bool:
        """Return True if the log still has the file: a running hub may have deleted its session, and then its blob."""
        return self.db.execute("SELECT 1 FROM files WHERE id = ?", (file_id,)).fetchone() is not None


def _find_fault(key: Key, events: bytes, seq: int, upto: int) -> str:
    """Return why *events* is not the JSON array of the events *seq* to *upto*, or an empty text if it is."""
    try:
        rows = _decode_rows(events)
        to_events(key, "", rows)
    except (msgspec.MsgspecError, UnicodeDecodeError, UnreadableEvents) as error:
        return str(error)
    if [row[0] for row in rows] != [*range(seq, upto + 1)]:
        return f"its events are not those of seq {seq} to {upto}"
    return ""


def _report_sessions(n: int, text: bytes, reason: str) -> Iterator[Damage]:
    """Yield a Damage for each part of *text*, a commit that cannot be decoded. The key is None if it cannot be read."""
    for part in split_commit(text):
        yield Damage(location=f"loose row {n}", key=part.key, first_seq=part.seq, last_seq=None, reason=reason)


def _to_key(session: bytes) -> Key:
    return Key(_to_text(session))


def _to_text(value: bytes) -> str:
    return value.decode(errors="replace")
