"""Count the bytes of files, and refuse more than the limits allow."""

import attrs

from hub.errors import FileTooLarge, QuotaExceeded
from hub.ids import Key
from hub.limits import KiB, Limits, format_size

MIN_COUNTED_BYTES = 4 * KiB  # a smaller file counts as this many, because it occupies a block of the disk


@attrs.define(eq=False)
class FileQuota:
    """Counts the bytes of files for each session and for the hub, including files that are being uploaded."""

    limits: Limits
    _bytes: dict[Key, int] = attrs.Factory(dict)
    _total: int = 0

    def add(self, key: Key, count: int) -> None:
        """Add to the counted bytes of a session; *count* may be negative."""
        self._total += count
        self._bytes[key] = self._bytes.get(key, 0) + count
        if not self._bytes[key]:
            del self._bytes[key]

    def reserve(self, key: Key, size: int, counted_bytes: int) -> int:
        """Count the growth of a file to *size* bytes. *counted_bytes* is the file's count so far; return its new count.

        Call this before the bytes are written, so that two uploads cannot use the same space. If the limits
        refuse the growth, raises FileTooLarge or QuotaExceeded, and changes no count.
        """
        limits = self.limits
        if size > limits.file_bytes:
            raise FileTooLarge(f"a file has at most {format_size(limits.file_bytes)}")
        growth = max(size, MIN_COUNTED_BYTES) - counted_bytes
        if self._bytes.get(key, 0) + growth > limits.session_files_bytes:
            raise QuotaExceeded(f"the files of a session have at most {format_size(limits.session_files_bytes)} in all")
        if self._total + growth > limits.files_bytes:
            raise QuotaExceeded(f"the files of this hub have at most {format_size(limits.files_bytes)} in all")
        self.add(key, growth)
        return counted_bytes + growth
