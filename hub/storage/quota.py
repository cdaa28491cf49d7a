"""Count the bytes of files, and refuse more than the limits allow."""

from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager

import attrs

from hub.errors import FileTooLarge, PrincipalQuotaExceeded, QuotaExceeded
from hub.ids import Key
from hub.limits import KiB, Limits, format_size

MIN_COUNTED_BYTES = 4 * KiB  # a smaller file counts as this many, because it occupies a block of the disk


def sum_counted_bytes(sizes: Iterable[int]) -> int:
    """Return the bytes that files of these sizes count together."""
    return sum(max(size, MIN_COUNTED_BYTES) for size in sizes)


@attrs.frozen(eq=False)
class SpaceShare:
    """A limit for the files of some sessions together: those of *owner*, a text for people, which *covers* selects."""

    owner: str
    max_bytes: int
    covers: Callable[[Key], bool]


@attrs.define(eq=False)
class FileQuota:
    """Counts the bytes of files for each session and for the hub, including files that are being uploaded."""

    limits: Limits
    _bytes: dict[Key, int] = attrs.Factory(dict)
    _total: int = 0
    _share_bytes: dict[SpaceShare, int] = attrs.Factory(dict)  # of the shares in use

    def add(self, key: Key, count: int) -> None:
        """Add to the counted bytes of a session; *count* may be negative."""
        for share in self._share_bytes:
            self._share_bytes[share] += count if share.covers(key) else 0
        self._total += count
        self._bytes[key] = self._bytes.get(key, 0) + count
        if not self._bytes[key]:
            del self._bytes[key]

    def count_of(self, key: Key) -> int:
        """Return the counted bytes of a session, those of uploads in progress included."""
        return self._bytes.get(key, 0)

    def sum_bytes(self, covers: Callable[[Key], bool]) -> int:
        """Return the counted bytes of the sessions that *covers* selects."""
        return sum(count for key, count in self._bytes.items() if covers(key))

    @contextmanager
    def use_shares(self, shares: Collection[SpaceShare]) -> Iterator[None]:
        """Within the context, count the bytes of shares, for reserve()."""
        self._share_bytes.update((share, self.sum_bytes(share.covers)) for share in shares)
        try:
            yield
        finally:
            for share in shares:
                del self._share_bytes[share]

    def reserve(self, key: Key, size: int, counted_bytes: int, shares: Iterable[SpaceShare] = ()) -> int:
        """Count the growth of a file to *size* bytes. *counted_bytes* is the file's count so far; return its new count.

        Call this before the bytes are written, so that two uploads cannot use the same space. If the limits or one of
        *shares* refuse the growth, raises FileTooLarge or QuotaExceeded, and changes no count.
        """
        if size > self.limits.file_bytes:
            raise FileTooLarge(f"a file has at most {format_size(self.limits.file_bytes)}")
        growth = max(size, MIN_COUNTED_BYTES) - counted_bytes
        self.grow(key, growth, shares)
        return counted_bytes + growth

    def grow(self, key: Key, growth: int, shares: Iterable[SpaceShare] = ()) -> None:
        """Count *growth* more bytes of a session. If there is no space, raises QuotaExceeded, and changes no count."""
        limits = self.limits
        if self._bytes.get(key, 0) + growth > limits.session_files_bytes:
            raise QuotaExceeded(f"the files of a session have at most {format_size(limits.session_files_bytes)} in all")
        if self._total + growth > limits.files_bytes:
            raise QuotaExceeded(f"the files of this hub have at most {format_size(limits.files_bytes)} in all")
        for share in shares:
            self._check_share(share, growth)
        self.add(key, growth)

    def _check_share(self, share: SpaceShare, growth: int) -> None:
        used, limit = self._share_bytes[share], share.max_bytes
        if used + growth > limit:
            text = f"the files of {share.owner} have {used} bytes, and at most {limit} in all: delete some first"
            raise PrincipalQuotaExceeded(text, limit=limit, used=used)
