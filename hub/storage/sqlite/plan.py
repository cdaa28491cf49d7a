"""What one commit of the embedded log writes."""

from collections.abc import Callable, Collection, Sequence
from typing import Any

import attrs
import msgspec

from hub.ids import Key, id_of
from hub.limits import KiB
from hub.messages import Chunk, Event
from hub.storage.records import Append, FileRecord, Head
from hub.storage.sqlite.statements import COLUMNS
from hub.storage.sqlite.strips import Row, Said, encode, to_json

HEAVY_BYTES, HEAVY_EVENT_BYTES = 16 * KiB, 1 * KiB  # a commit that has more, in all and for each event, is heavy
LOOSE_EVENT_BYTES = 512  # for each an event that lies loose counts once more


@attrs.frozen
class Cut:
    """Drop the events of each session, named by its id and its epoch, up to a seq."""

    pieces: Sequence[tuple[Key, str, int]]


@attrs.frozen
class Relabel:
    """Replace the title or the metadata of a session; the latter is JSON."""

    key: Key
    changes: dict[str, str | None]


@attrs.frozen
class Make:
    """Make a session, where it is not there."""

    key: Key


@attrs.frozen
class Delete:
    """Take a session away; never in one commit with anything else."""

    key: Key


@attrs.frozen
class Probe:
    """Write a page as it is, to learn whether the file can be written."""


Work = Append | Cut | FileRecord | Relabel | Make | Delete | Probe
Job = tuple[Work, Callable[[Any], None]]
# What to tell in the loop: session, events, the one who asked, the answer.
Outcome = tuple[Key, Sequence[Event], Callable[[Any], None], Any]

NONE = Key("")  # where no session has events to announce


class Standing(msgspec.Struct):
    """Where a session stands: *seq* is its last, *floor* the last that is no longer kept; *id* is for its events."""

    id: str
    epoch: str
    seq: int
    floor: int


@attrs.define(kw_only=True)
class Plan:
    """What one commit writes, and what is told when it has landed.

    *heads* says where sessions stand; it runs ahead of the file until the commit has landed, and must be forgotten
    where that fails. *look* puts there what the file knows of others, and returns those of which damage hides it.
    """

    now: int
    new_secret: Callable[[int], str]
    heads: dict[Key, Standing]
    look: Callable[[Collection[Key]], Collection[Key]]
    rows: dict[str, list[Any]] = attrs.Factory(lambda: {table: [] for table in COLUMNS})
    loose: int = 0  # how many events are written; long ones count more
    heavy: list[Any] = attrs.Factory(list)  # a row of `loose` that goes into strips at once: it would be written twice
    looked: bool = False
    hidden: Collection[Key] = ()
    ended: list[tuple[str, str]] = attrs.Factory(list)
    removed: list[tuple[str, str]] = attrs.Factory(list)
    cuts: list[tuple[Cut, dict[Key, int]]] = attrs.Factory(list)
    labels: list[Relabel] = attrs.Factory(list)
    deleted: dict[Key, list[Any]] = attrs.Factory(dict)  # sessions, and the rows of files that they had
    has_probe: bool = False
    outcomes: list[Outcome] = attrs.Factory(list)

    def add(self, batch: list[Job]) -> None:
        """Number what is appended, and write down all rows; raises LookupError for a file without a session."""
        now, heads, outcomes = self.now, self.heads, self.outcomes
        said: Said = []
        for work, done in batch:
            if type(work) is not Append:
                self._add(work, done, batch)
                continue
            session = work.key
            standing = heads.get(session)
            if standing is None:
                standing = self._standing(session, batch)
            name, epoch, seq = standing.id, standing.epoch, standing.seq
            first = seq + 1
            rows: list[Row] = []
            for event in work.events:
                seq += 1
                event.sessionId, event.epoch, event.seq, event.ts = name, epoch, seq, now
                body, agent, run = event.body, event.agentId, event.runId
                if type(body) is Chunk:
                    rows.append((seq, now, "stream", agent, run, body.messageId, body.offset, body.content))
                else:
                    message = getattr(body, "messageId", None)
                    rows.append((seq, now, body.type, agent, run, message, None, to_json(body)))
            if rows:
                standing.seq = seq
                said.append((session, first, now, rows))
            if work.messages or work.saved_runs or work.ended_runs or work.chats or work.removed_messages:
                self._beside(work, first)
            outcomes.append((session, work.events, done, first))
        if said:
            self._write_down(said)

    def _write_down(self, said: Said) -> None:
        text = encode(said)
        events, size = sum([len(rows) for *_, rows in said]), len(text)
        self.loose = max(events, size // LOOSE_EVENT_BYTES)
        heavy = size > HEAVY_BYTES and size > HEAVY_EVENT_BYTES * events
        row = self.heavy if heavy else self.rows["loose"]
        row += (size, text.decode())

    def _add(self, work: Work, done: Callable[[Any], None], batch: list[Job]) -> None:
        if isinstance(work, Make):
            self._look_once(work.key, batch)
            is_new = work.key not in self.heads
            standing = self._standing(work.key, batch)
            head = Head(work.key, standing.epoch, standing.seq, standing.floor)
            self.outcomes.append((NONE, (), done, (head, is_new)))
        elif isinstance(work, FileRecord):
            self._look_once(work.key, batch)
            if work.key not in self.heads:
                raise LookupError(f"there is no session {work.key}")
            row = (work.fileId, work.key, work.name, work.type, work.size, work.digest, self.now)
            self.rows["files"] += row
            self.outcomes.append((NONE, (), done, None))
        elif isinstance(work, Cut):
            floors: dict[Key, int] = {}
            if work.pieces:
                self.cuts.append((work, floors))
            self.outcomes.append((NONE, (), done, floors))
        elif isinstance(work, Relabel):
            self.labels.append(work)
            self.outcomes.append((NONE, (), done, None))
        elif isinstance(work, Probe):
            self.has_probe = True
            self.outcomes.append((NONE, (), done, None))
        else:
            self.outcomes.append((NONE, (), done, self.deleted.setdefault(work.key, [])))

    def _look_once(self, session: Key, batch: list[Job]) -> None:
        """Look for a session and all others of the batch at once, where it is not known; once."""
        if session not in self.heads and not self.looked:
            self.looked = True
            named = {session} | {getattr(work, "key", session) for work, _ in batch}
            self.hidden = self.look(named - self.heads.keys())

    def _standing(self, session: Key, batch: list[Job]) -> Standing:
        """Return where a session stands, which is made where it is not there."""
        self._look_once(session, batch)
        standing = self.heads.get(session)
        if session in self.hidden:
            raise LookupError(f"the latest events of session {session} are damaged: delete it, or restore a backup")
        if standing is None:
            standing = self.heads[session] = Standing(id_of(session), self.new_secret(8), 0, 0)
            self.rows["sessions"] += (session, standing.epoch, 0, self.now)
        return standing

    def _beside(self, append: Append, first: int) -> None:
        session = append.key
        for i, m in append.messages:
            author = (m.author.id, m.author.name) if m.author else (None, None)
            head = (session, m.messageId, first + i, self.now, m.role, m.agentId, m.runId, *author)
            body = (m.content, _or_null(m.parts), _or_null(m.metadata), m.userMessageId, m.stopReason)
            self.rows["messages"] += (*head, *body, _or_null(m.error))
        for r in append.saved_runs:
            self.rows["runs"] += (session, r.runId, r.after, to_json(r))
        self.ended += ((session, run) for run in append.ended_runs)
        self.removed += ((session, message) for message in append.removed_messages)
        for i, c in append.chats:
            self.rows["chats"] += (session, c.principal, c.clientMsgId, c.digest, c.messageId, c.runId, first + i)

    def lone(self) -> bool:
        """Say whether one statement writes it all; such a one is its own transaction."""
        return not (self._changes() or self.heavy) and [table for table, rows in self.rows.items() if rows] == ["loose"]

    def empty(self) -> bool:
        return not (self._changes() or self.heavy or any(self.rows.values()))

    def _changes(self) -> bool:
        return bool(self.ended or self.removed or self.cuts or self.labels or self.deleted or self.has_probe)


def _or_null(fact: Any) -> str | None:
    return None if fact is None else to_json(fact)
