"""What may go wrong for who uses the client.

Failure
├── Unreachable    there is no hub at that address
├── Closed         the connection has ended for good
├── ConnectionCut  it was lost while a command was under way, which may or may not have been carried out
├── Refusal        the hub refused a command
├── RunFailed      an answer ended in another way than it should
├── Forgotten      the log has no place any more for what was being read: see `reset` in docs/protocol.md
└── TooSlow        events came faster than they were read, and the log cannot be asked for the rest
"""

from hub.messages import Error
from hub.messages.codes import RETRYABLE


class Failure(Exception):
    """Say what went wrong, in one line for a person; *code* is stable, *retryable* says that trying again may help."""

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
    """*text* is what was said before the end, *stop_reason* why it ended."""

    text: str = ""
    stop_reason: str = ""


class Forgotten(Failure):
    pass


class TooSlow(Failure):
    pass


def refusal(error: Error) -> Refusal:
    passing = error.code in RETRYABLE or error.retryAfterMs is not None
    return Refusal(error.code, error.message, retryable=passing, retry_after_ms=error.retryAfterMs)
