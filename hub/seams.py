"""The hub's sources of time and randomness, in one object that a simulation can replace."""

import secrets
from collections.abc import Callable
from time import time_ns

import attrs

# The random parts of the next ids, read from the system in batches: single reads took 7 % of the time of chats.
_random_hex: list[str] = []


def _now() -> int:
    return time_ns() // 1_000_000


def _new_id(kind: str) -> str:
    if not _random_hex:
        batch = secrets.token_hex(10 * 256)
        _random_hex.extend(batch[start : start + 20] for start in range(0, len(batch), 20))
    return f"{kind}_{_random_hex.pop()}"


def _new_secret(size: int) -> str:
    return secrets.token_hex(size)


@attrs.frozen(kw_only=True)
class Seams:
    """Wall time, random ids and random secrets. For durations, the hub uses the clock of the event loop instead.

    *now* returns milliseconds since 1970. *new_id* returns an unguessable id such as `r_...` for the kind `r`; call it
    only in the thread of the event loop. *new_secret* returns the given number of random bytes in hex; any thread may
    call it.
    """

    now: Callable[[], int] = _now
    new_id: Callable[[str], str] = _new_id
    new_secret: Callable[[int], str] = _new_secret
