"""Turn a batch of write requests into the rows of one commit."""

from collections.abc import Callable, Collection, Sequence
from typing import Any

import attrs
import msgspec

from hub.access.records import UsageRecord
from hub.ids import Key, id_of
from hub.limits import KiB
from hub.messages import Chunk
from hub.storage.records import Append, FileRecord, Head
from hub.storage.sqlite.access_rows import AccessChange, AuditAddition, UsageAddition, to_columns
from hub.storage.sqlite.changes import Change, Changes, FileCopies
from hub.storage.sqlite.event_rows import EventRow, NewCommit, encode_json, to_json
from hub.storage.sqlite.sql import COLUMNS

# If the events of a commit have more than LARGE_COMMIT_BYTES in all and more than LARGE_EVENT_BYTES on average, they
# are written directly to `strips`. Otherwise they would be written twice: first to `loose`, then to `strips`.
LARGE_COMMIT_BYTES, LARGE_EVENT_BYTES = 16 * KiB, 1 * KiB
LOOSE_EVENT_BYTES = 512  # CommitPlan.loose_events counts at least one event for each of these bytes


@attrs.frozen
class SessionCreation:
    """Request to make a session if it does not exist. The result is the head, and whether the session is new.

    For *owner* see SessionStore.make().
    """

    key: Key
    owner: str = ""


RecordRequest = FileRecord | SessionCreation | UsageAddition | AuditAddition | Change
WriteRequest = Append | RecordRequest
WriteCallback = Callable[[Any], None]
QueuedWrite = tuple[WriteRequest, WriteCallback]
# The callback, its argument, and the Append or None. The listener gets the events of an append before its callback.
WriteResult = tuple[WriteCallback, Any, Append | None]


class WorkingHead(msgspec.Struct):
    """The head of a session after the planned commit. *id* is the session's id, without the tenant."""

    id: str
    epoch: str
    seq: int
    floor: int


@attrs.define(kw_only=True)
class CommitPlan:
    """The rows and changes of one commit, and the results to deliver after it.

    *heads* is the writer's cache. add() changes the heads before the commit, so the writer must clear the cache if the
    commit fails. *load_heads* reads heads from the file into *heads*; it returns the sessions whose head is unknown due
    to damage. *now* is the time of all events and records of the commit (ms).
    """

    now: int
    new_secret: Callable[[int], str]
    heads: dict[Key, WorkingHead]
    load_heads: Callable[[Collection[Key]], Collection[Key]]
    rows: dict[str, list[Any]] = attrs.Factory(
        lambda: {table: [] for table in COLUMNS}
    )  # by table, as insert_rows() needs them
    loose_events: int = 0  # the number of events; more if they are long (see LOOSE_EVENT_BYTES)
    large_commit: str = ""  # the JSON of a commit that goes to `strips` instead of `loose`
    changes: Changes = attrs.Factory(Changes)
    results: list[WriteResult] = attrs.Factory(list)
    _has_loaded_heads: bool = False
    _damaged_sessions: Collection[Key] = ()

    def add(self, batch: list[QueuedWrite]) -> None:
        """Plan requests in their order, and number the events of appends. Call this once.

        Raises LookupError if the session of a file does not exist, or if damage makes the head of a session unknown.
        Raises the errors of *load_heads*.
        """
        now, heads, results = self.now, self.heads, self.results
        commit: NewCommit = []
        for request, callback in batch:
            if not isinstance(request, Append):
                results.append((callback, self._add_request(request, batch), None))
                continue
            append = request
            session = append.key
            head = heads.get(session)
            if head is None:
                head = self._find_or_make(session, batch, append.owner)
            session_id, epoch, seq = head.id, head.epoch, head.seq
            first = seq + 1
            rows: list[EventRow] = []
            for event in append.events:
                seq += 1
                event.sessionId, event.epoch, event.seq, event.ts = session_id, epoch, seq, now
                body, agent, run = event.body, event.agentId, event.runId
                if type(body) is Chunk:
                    rows.append((seq, now, "stream", agent, run, body.messageId, body.offset, body.content))
                else:
                    message = getattr(body, "messageId", None)
                    rows.append((seq, now, body.type, agent, run, message, None, to_json(body)))
            if rows:
                head.seq = seq
                commit.append((session, first, now, rows))
            if append.messages or append.saved_runs or append.ended_runs or append.chats or append.removed_messages:
                self._add_records(append, first)
            if append.file_copies:
                self.changes.file_copies.append(FileCopies(session, append.file_copies, self.now))
            self._add_usage(append.usage)
            results.append((callback, first, append))
        if commit:
            self._add_events(commit)

    def _add_usage(self, records: Sequence[UsageRecord]) -> None:
        for record in records:
            self.rows["usage"] += to_columns(record)

    def _add_events(self, commit: NewCommit) -> None:
        text = encode_json(commit)
        events, size = sum([len(rows) for *_, rows in commit]), len(text)
        self.loose_events = max(events, size // LOOSE_EVENT_BYTES)
        if size > LARGE_COMMIT_BYTES and size > LARGE_EVENT_BYTES * events:
            self.large_commit = text.decode()
        else:
            self.rows["loose"] += (size, text.decode())

    def _add_records(self, append: Append, first: int) -> None:
        session = append.key
        for i, m in append.messages:
            author = (m.author.id, m.author.name) if m.author else (None, None)
            head = (session, m.messageId, first + i, self.now, m.role, m.agentId, m.runId, *author)
            body = (m.content, _to_json_or_null(m.parts), _to_json_or_null(m.metadata), m.userMessageId, m.stopReason)
            request = append.requests.get(m.messageId)
            self.rows["messages"] += (*head, *body, _to_json_or_null(m.error), _to_json_or_null(request))
        for r in append.saved_runs:
            self.rows["runs"] += (session, r.runId, r.after, to_json(r))
        self.changes.ended_runs += ((session, run) for run in append.ended_runs)
        self.changes.removed_messages += ((session, message) for message in append.removed_messages)
        for i, c in append.chats:
            self.rows["chats"] += (session, c.principal, c.clientMsgId, c.digest, c.messageId, c.runId, first + i)

    def _add_request(self, request: RecordRequest, batch: list[QueuedWrite]) -> Any:
        """Plan a request that is not an append, and return its result. Changes.apply() fills in some results later."""
        result: Any = None
        if isinstance(request, SessionCreation):
            self._load_heads_once(request.key, batch)
            is_new = request.key not in self.heads
            head = self._find_or_make(request.key, batch, request.owner)
            result = Head(request.key, head.epoch, head.seq, head.floor), is_new
        elif isinstance(request, FileRecord):
            self._add_file(request, batch)
        elif isinstance(request, UsageAddition):
            self._add_usage(request.records)
        elif isinstance(request, AuditAddition):
            self.rows["audit"] += [value for entry in request.entries for value in to_columns(entry)]
            self.changes.max_audit_entries = request.max_entries
        elif isinstance(request, AccessChange):
            self.changes.add(self._skip_without_session(request, batch), self.new_secret)
        else:
            result = self.changes.add(request, self.new_secret)
        return result

    def _skip_without_session(self, change: AccessChange, batch: list[QueuedWrite]) -> AccessChange:
        """Return the change without the grants and invites of sessions that do not exist."""
        keys = change.keys
        for key in keys:
            self._load_heads_once(key, batch)
        missing_keys = keys - self.heads.keys() - {*self._damaged_sessions}
        records = [record for record in change.records if getattr(record, "key", None) not in missing_keys]
        return attrs.evolve(change, records=records)

    def _add_file(self, file: FileRecord, batch: list[QueuedWrite]) -> None:
        self._load_heads_once(file.key, batch)
        if file.key not in self.heads:
            raise LookupError(f"session {file.key} does not exist")
        row = (file.fileId, file.key, file.name, file.type, file.size, file.digest, self.now)
        self.rows["files"] += row

    def _load_heads_once(self, session: Key, batch: list[QueuedWrite]) -> None:
        """If the head of *session* is not cached, load the heads of all sessions of the batch, with one query."""
        if session not in self.heads and not self._has_loaded_heads:
            self._has_loaded_heads = True
            sessions = {session}
            for request, _ in batch:
                sessions |= request.keys if isinstance(request, AccessChange) else {getattr(request, "key", session)}
            self._damaged_sessions = self.load_heads(sessions - self.heads.keys())

    def _find_or_make(self, session: Key, batch: list[QueuedWrite], owner: str) -> WorkingHead:
        """Return the head of a session. If the session does not exist, plan to make it. Raises LookupError.

        If the session is new and *owner* is not empty, the principal *owner* gets the grant `owner`.
        """
        self._load_heads_once(session, batch)
        head = self.heads.get(session)
        if session in self._damaged_sessions:
            raise LookupError(f"the latest events of session {session} are damaged: delete it, or restore a backup")
        if head is None:
            head = self.heads[session] = WorkingHead(id_of(session), self.new_secret(8), 0, 0)
            self.rows["sessions"] += (session, head.epoch, 0, self.now)
            if owner:
                self.rows["grants"] += (session, owner, "owner")
        return head

    @property
    def is_single_insert(self) -> bool:
        """True if the commit is only one row of `loose`, so that it needs no BEGIN and COMMIT."""
        tables = [table for table, rows in self.rows.items() if rows]
        return tables == ["loose"] and not (self.changes or self.large_commit)

    @property
    def is_empty(self) -> bool:
        return not (self.changes or self.large_commit or any(self.rows.values()))


def _to_json_or_null(value: Any) -> str | None:
    return None if value is None else to_json(value)
