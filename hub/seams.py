"""The hub's sources of time and randomness, in one value that a simulation can replace."""

import secrets
from collections.abc import Callable
from time import time_ns

import attrs

# Random text is asked of the system many pieces at a time: one by one it was 7 % of a profile of chats.
_tokens: list[str] = []


def _now() -> int:
    return time_ns() // 1_000_000


def _new_id(kind: str) -> str:
    if not _tokens:
        many = secrets.token_hex(10 * 256)
        _tokens.extend(many[at : at + 20] for at in range(0, len(many), 20))
    return f"{kind}_{_tokens.pop()}"


def _new_secret(size: int) -> str:
    return secrets.token_hex(size)


@attrs.frozen(kw_only=True)
class Seams:
    """Wall time, random ids, and random secrets. Durations come from the running loop.

    *now* returns milliseconds since 1970. *new_id* returns an id such as `r_...` for the kind `r`; nobody can guess it,
    and none is made of time; only the loop's thread calls it. *new_secret* returns so many random bytes in hex, to any
    thread.
    """

    now: Callable[[], int] = _now
    new_id: Callable[[str], str] = _new_id
    new_secret: Callable[[int], str] = _new_secret
