"""The errors that a client may meet: one class per wire code.

HubError
├── BadFrame              not JSON, not an object, a field missing or of the wrong type
│   ├── UnknownType       a type that is no command
│   └── BadId             an id outside its alphabet or length
├── TooManySubscriptions  one connection wants more sessions than the limit
├── RateLimited           one connection sends commands faster than the limit
├── UnknownAgent          nothing of that name in the agents folder
├── UnknownSession        the session does not exist
├── UnknownInterrupt      no run of that session asked such a question
├── UnknownFile           no file has that id
├── UnknownMessage        no finished message of that id in the session
├── BadQuery              a value in an address that makes no sense
├── BadType               a file whose media type is none
├── EmptyFile             a file without a byte
├── FileTooLarge          a file past the limit of one
├── QuotaExceeded         a file past what its session, or the hub, may hold in all
├── UploadTooSlow               an upload that took too long
├── Conflict
│   ├── NotRunning        nothing there to cancel
│   ├── AlreadyResolved   the question has its answer, or nobody waits for one any more
│   ├── IdReused          a clientMsgId that came before with other content
│   ├── SessionDeleted    the session is being deleted, or was while it was waited for
│   ├── WrongMessage      a message that the command cannot be about
│   └── SessionExists     something was said under that id already
├── TooLarge              the body of a request is past its limit
├── Unavailable
│   ├── AgentBroken       the agent's file could not be loaded
│   ├── Busy              a queue or an agent is at its limit, or the chat said `ifBusy: reject`
│   ├── StorageUnavailable  the log cannot be written now; nothing of the command was kept
│   │   └── LogDamaged      a part of the log cannot be read
│   └── Draining          the hub is going down
├── Denied                the principal may not do this
└── Refused               this Origin or Host may not come in

AgentError stands beside them: what an agent raises to choose the words its users see.
"""

from typing import Any, ClassVar


class HubError(Exception):
    """Say what was wrong, where, and what to do, in one line for a person.

    *about* holds what it concerns, by the wire's names (`sessionId`, `runId`, `clientMsgId`, `retryAfterMs`).
    """

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500
    close: ClassVar[int] = 1011

    def __init__(self, message: str, **about: Any) -> None:
        super().__init__(message)
        self.message = message
        self.about = about


class BadFrame(HubError):
    code, status, close = "bad_frame", 400, 4501


class UnknownType(BadFrame):
    code = "unknown_type"


class BadId(BadFrame):
    code = "bad_id"


class TooManySubscriptions(HubError):
    code, status = "too_many_subscriptions", 429


class RateLimited(HubError):
    code, status, close = "rate_limited", 429, 4004


class UnknownAgent(HubError):
    code, status = "unknown_agent", 404


class UnknownSession(HubError):
    code, status = "unknown_session", 404


class UnknownInterrupt(HubError):
    code, status = "unknown_interrupt", 404


class UnknownFile(HubError):
    code, status = "unknown_file", 404


class UnknownMessage(HubError):
    code, status = "unknown_message", 404


class BadQuery(HubError):
    code, status = "bad_query", 400


class BadType(HubError):
    code, status = "bad_type", 400


class EmptyFile(HubError):
    code, status = "empty_file", 400


class FileTooLarge(HubError):
    code, status = "file_too_large", 413


class QuotaExceeded(HubError):
    # Not 507: nothing is wrong with the hub, and what repeats a request after a 5xx must not repeat this one.
    code, status = "quota_exceeded", 413


class UploadTooSlow(HubError):
    code, status = "too_slow", 408


class Conflict(HubError):
    code, status = "conflict", 409


class NotRunning(Conflict):
    code = "not_running"


class AlreadyResolved(Conflict):
    code = "already_resolved"


class IdReused(Conflict):
    code = "id_reused"


class SessionDeleted(Conflict):
    code, close = "session_deleted", 1013

    def __init__(self, session_id: str, **about: Any) -> None:
        text = f"session {session_id} is being deleted: a chat begins it anew in a moment"
        super().__init__(text, sessionId=session_id, retryAfterMs=1000, **about)


class TooLarge(HubError):
    code, status = "too_large", 413


class WrongMessage(Conflict):
    code = "wrong_message"


class SessionExists(Conflict):
    code = "session_exists"


class Unavailable(HubError):
    code, status, close = "unavailable", 503, 1013


class AgentBroken(Unavailable):
    code = "agent_broken"


class Busy(Unavailable):
    code, status = "busy", 429


class StorageUnavailable(Unavailable):
    code = "storage_unavailable"


class LogDamaged(StorageUnavailable):
    """A part of the log cannot be read, and will not be by trying again."""


class Draining(Unavailable):
    code, close = "draining", 1012


class Refused(HubError):
    code, status = "refused", 403  # before the upgrade: there is no socket to close


class Denied(HubError):
    code, status, close = "denied", 403, 4507


class AgentError(Exception):
    """Raised by an agent to end its run with words and a code of its own choosing.

    Whatever else an agent raises is told to clients as `agent_error`, without its text; this message is shown as it is.
    *code* is snake_case; *retry_after_ms* tells a client when to try again.
    """

    def __init__(
        self, message: str, code: str = "agent_error", *, retryable: bool = False, retry_after_ms: int | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.retryable = retryable
        self.retry_after_ms = retry_after_ms
