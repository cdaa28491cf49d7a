"""The errors of the client.

Failure
├── Unreachable    no hub answered at the address in time
├── Closed         the connection has ended for good, or the program has left the session
├── ConnectionCut  the connection was lost before the answer to a command; the hub may have executed the command
├── Refusal        the hub refused a command
├── RunFailed      an answer did not end normally
├── Forgotten      the log no longer has the events that the client must read: see `reset` in docs/protocol.md
└── TooSlow        the program read events too slowly, and cannot read the rest from a log
"""

from hub.messages import Error
from hub.messages.codes import RETRYABLE


class Failure(Exception):
    """An error of the client. *message* is one line for a person, and *code* is stable.

    *retryable* is True if a retry may succeed. *retry_after_ms* is the least wait before a retry, if the hub gave one.
    """

    def __init__(self, code: str, message: str, *, retryable: bool = False, retry_after_ms: int | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.retryable = retryable
        self.retry_after_ms = retry_after_ms


class Unreachable(Failure):
    pass


class Closed(Failure):
    pass


class ConnectionCut(Failure):
    pass


class Refusal(Failure):
    pass


class RunFailed(Failure):
    """An answer did not end normally: *text* is its text so far, *stop_reason* the stop reason of its run."""

    text: str = ""
    stop_reason: str = ""


class Forgotten(Failure):
    pass


class TooSlow(Failure):
    pass


def refusal_of(error: Error) -> Refusal:
    """Return the exception for an error notice of the hub."""
    is_retryable = error.code in RETRYABLE or error.retryAfterMs is not None
    return Refusal(error.code, error.message, retryable=is_retryable, retry_after_ms=error.retryAfterMs)
