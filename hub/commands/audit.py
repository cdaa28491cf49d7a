"""The audit: who did what, from where, and whether it was allowed. Entries wait in memory until they are saved."""

import asyncio
from collections import Counter
from collections.abc import Sequence

import attrs

from hub.access.principal import Principal
from hub.access.records import AuditEntry
from hub.errors import StorageUnavailable
from hub.observe.rare_log import RareLog
from hub.seams import Seams
from hub.storage.access_store import AccessStore

MAX_WAITING_ENTRIES = 10_000  # while the log cannot be written; more are lost
MAX_REFUSALS = 10  # entries for refusals between two saves, for each group of principals
READ_MS = 60_000  # a second read of the same session in this time makes no entry
MAX_READS = 10_000  # in memory, to recognise repeated reads


@attrs.define(eq=False, kw_only=True)
class Audit:
    """Collects entries. The housekeeping calls save() about once a second.

    Of the refusals between two saves, only the first ones get an entry each; one entry has the number of the others.
    They are counted for each tenant, and separately for those who have not signed in, who can cause any number.
    """

    store: AccessStore
    seams: Seams
    max_entries: int
    _entries: list[AuditEntry] = attrs.Factory(list)
    _refusal_counts: Counter[tuple[str, bool]] = attrs.Factory(Counter)  # by tenant, and whether it was signed in
    _lost_entries: int = 0
    _read_times: dict[tuple[str, ...], int] = attrs.Factory(dict)
    _erased_ids: set[str] = attrs.Factory(set)
    _failure_log: RareLog = attrs.Factory(lambda: RareLog(60.0))

    def note(self, principal: Principal, action: str, target: str, reason: str = "", start: int | None = None) -> None:
        """Add an entry for what a principal has begun at *start* (ms). *reason* is the error code of a refusal."""
        entry = AuditEntry(
            ts=self.seams.now() if start is None else start,
            tenant="" if principal.is_operator else principal.tenant,
            principal=principal.id if principal.is_signed_in else "",
            name=principal.name if principal.is_signed_in else "",
            action=action,
            target=target,
            address=principal.address,
            is_allowed=not reason,
            reason=reason,
        )
        self._add(entry)

    def _add(self, entry: AuditEntry) -> None:
        if not entry.is_allowed:
            group = entry.tenant, bool(entry.principal)
            self._refusal_counts[group] += 1
            if self._refusal_counts[group] > MAX_REFUSALS:
                return
        if len(self._entries) >= MAX_WAITING_ENTRIES:
            self._lost_entries += 1
            return
        self._entries.append(self._without_erased_name(entry))

    def is_new_read(self, *identity: str) -> bool:
        """Return whether nobody with this *identity* (who reads what, and how) has read in the last minute."""
        now = self.seams.now()
        if 0 <= now - self._read_times.get(identity, -READ_MS) < READ_MS:
            return False
        self._read_times.pop(identity, None)  # so that the oldest ones are first
        while len(self._read_times) >= MAX_READS:
            del self._read_times[next(iter(self._read_times))]
        self._read_times[identity] = now
        return True

    def forget_name(self, principal_id: str) -> None:
        """Leave the name of a principal out of the entries that are not saved yet, and out of later ones."""
        self._erased_ids.add(principal_id)
        self._entries = [self._without_erased_name(entry) for entry in self._entries]

    def _without_erased_name(self, entry: AuditEntry) -> AuditEntry:
        return attrs.evolve(entry, name="") if entry.principal in self._erased_ids else entry

    async def save(self) -> None:
        """Save the entries. If the log cannot be written, keep them for the next call."""
        entries, lost_entries = self._take_entries(), self._lost_entries
        self._lost_entries = 0
        loss = [self._make_count("", "lost_entries", lost_entries)] if lost_entries else []
        if not entries and not loss:
            return
        try:
            await self.store.add_audit([*entries, *loss], self.max_entries)
        except StorageUnavailable as error:
            self._failure_log.warn(
                asyncio.get_running_loop().time(), "the audit cannot be saved now", reason=error.message
            )
            waiting = [*map(self._without_erased_name, entries), *self._entries]
            self._entries, excess = waiting[:MAX_WAITING_ENTRIES], waiting[MAX_WAITING_ENTRIES:]
            self._lost_entries += lost_entries + len(excess)

    def _take_entries(self) -> Sequence[AuditEntry]:
        entries, self._entries = self._entries, []
        counts, self._refusal_counts = self._refusal_counts, Counter()
        for (tenant, _), count in counts.items():
            if count > MAX_REFUSALS:
                entries.append(self._make_count(tenant, "more_refusals", count - MAX_REFUSALS))
        return entries

    def _make_count(self, tenant: str, action: str, count: int) -> AuditEntry:
        """Return an entry for *count* events that have no entries of their own. The number is its target."""
        return AuditEntry(
            ts=self.seams.now(),
            tenant=tenant,
            principal="",
            name="",
            action=action,
            target=str(count),
            address="",
            is_allowed=False,
            reason="rate_limited" if action == "more_refusals" else "storage_unavailable",
        )
