"""The errors of the hub that clients receive, one class for each error code.

HubError
├── BadFrame                a frame or body that is incomplete, is no JSON object, or has a missing or wrong field
│   ├── UnknownType         a `type` that is not a command
│   └── BadId               an id with a wrong character or length, or a malformed Last-Event-ID
├── TooManySubscriptions    the connection has as many subscriptions as the limit allows
├── TooManyConnections      the address, the principal or the hub has as many connections as the limit allows
├── RateLimited             the connection sends more commands per second than the limit allows
├── UnknownAgent            no agent with this id
├── UnknownSession          no session with this id
├── UnknownInterrupt        no question with this id in the session
├── UnknownFile             no file with this id
├── UnknownMessage          no finished message with this id in the session
├── UnknownToolCall         no tool call with this id in the session
├── ToolsUnsupported        a request that requires a tool call, for an agent that takes no tools
├── UnknownPrincipal        no principal with this id or name
│   └── UnknownMember       no principal with this id who could be a member of the session
├── UnknownKey              no credential with this id
├── UnknownInvite           no valid invite with this id in the session
├── BadQuery                an invalid query parameter or header
├── BadType                 an upload with a Content-Encoding, or with a malformed media type or that of a form
├── EmptyFile               an upload without a byte
├── FileTooLarge            an upload larger than the limit for one file
├── QuotaExceeded           an upload or a fork that exceeds the space of its session or of the hub
│   └── PrincipalQuotaExceeded  a chat, an upload or a fork that exceeds a quota of its principal or tenant
├── UploadTooSlow           an upload, or the body of a request, that took longer than the limit
├── Conflict                a command that does not fit the state of the session
│   ├── NotRunning          no run to cancel
│   ├── ToolCallAnswered    a tool call that has a result
│   ├── AlreadyResolved     a question that was answered, or whose run no longer waits for an answer
│   ├── RequiresAction      a request that waits for an answer, while its run asks a question
│   ├── IdReused            a clientMsgId that an earlier command with other content used
│   ├── SessionDeleted      a session that is being deleted, or that was deleted while the command waited
│   ├── WrongMessage        a message to which the command cannot be applied
│   ├── AmbiguousName       a name that several principals have
│   ├── LastOwner           a change after which a session would have no owner
│   └── SessionExists       a new session with the id of an existing one
├── TooLarge                a body of a request, or metadata of a session, that is larger than the limit
├── Unavailable             something that the hub cannot do now
│   ├── AgentBroken         an agent whose file could not be loaded
│   ├── Busy                a full queue, an agent without a free slot, or a chat with `ifBusy: reject`
│   ├── StorageUnavailable  a log or a file store that cannot be read or written now
│   │   └── LogDamaged      a part of the log that cannot be read
│   └── Draining            a hub that is shutting down
├── Denied                  a principal without the permission
├── Unauthenticated         a request without a valid credential
│   ├── CredentialExpired   a credential whose time has ended
│   ├── CredentialRevoked   a credential that was revoked
│   └── SignInTimeout       a WebSocket whose client did not sign in in time
├── BadLink                 a link that is wrong, expired, used or revoked
├── Refused                 a request with a Host or Origin that is not allowed, or through a proxy without sign-in
└── UpgradeRequired         a request to the address of a WebSocket that is no handshake

AgentError is separate: an agent raises it to end its run with an error text for users.
"""

from typing import Any, ClassVar


class HubError(Exception):
    """An error for a client: *message* is one line that says what is wrong, where, and what to do.

    *fields* are further fields of the error by their names on the wire, such as `sessionId` or `retryAfterMs`.
    *code* is the error code, *status* the HTTP status, *close_code* the close code if the error closes a WebSocket.
    """

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500
    close_code: ClassVar[int] = 1011

    def __init__(self, message: str, **fields: Any) -> None:
        super().__init__(message)
        self.message = message
        self.fields = fields


class BadFrame(HubError):
    code, status, close_code = "bad_frame", 400, 4501


class UnknownType(BadFrame):
    code = "unknown_type"


class BadId(BadFrame):
    code = "bad_id"


class TooManySubscriptions(HubError):
    code, status = "too_many_subscriptions", 429


class TooManyConnections(HubError):
    code, status, close_code = "too_many_connections", 429, 4504


class RateLimited(HubError):
    code, status, close_code = "rate_limited", 429, 4004


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


class UnknownToolCall(HubError):
    code, status = "unknown_tool_call", 404


class ToolsUnsupported(HubError):
    code, status = "tools_unsupported", 400


class BadQuery(HubError):
    code, status = "bad_query", 400


class BadType(HubError):
    code, status = "bad_type", 400


class EmptyFile(HubError):
    code, status = "empty_file", 400


class FileTooLarge(HubError):
    code, status = "file_too_large", 413


class QuotaExceeded(HubError):
    # Not 507: programs retry a request after a 5xx, and must not retry this one.
    code, status = "quota_exceeded", 413


class PrincipalQuotaExceeded(QuotaExceeded):
    """Its fields are `limit`, `used`, and for the quotas of a day `renewsAt`: the next midnight (UTC) in ms."""

    status = 429


class UploadTooSlow(HubError):
    code, status = "too_slow", 408


class Conflict(HubError):
    code, status = "conflict", 409


class NotRunning(Conflict):
    code = "not_running"


class ToolCallAnswered(Conflict):
    code = "tool_call_answered"


class AlreadyResolved(Conflict):
    code = "already_resolved"


class RequiresAction(Conflict):
    code = "requires_action"


class IdReused(Conflict):
    code = "id_reused"


class SessionDeleted(Conflict):
    code, close_code = "session_deleted", 1013

    def __init__(self, session_id: str, **fields: Any) -> None:
        text = f"session {session_id} is being deleted: to begin it anew, send a chat in a second"
        super().__init__(text, sessionId=session_id, retryAfterMs=1000, **fields)


class TooLarge(HubError):
    code, status, close_code = "too_large", 413, 1009


class WrongMessage(Conflict):
    code = "wrong_message"


class SessionExists(Conflict):
    code = "session_exists"


class Unavailable(HubError):
    code, status, close_code = "unavailable", 503, 1013


class AgentBroken(Unavailable):
    code = "agent_broken"


class Busy(Unavailable):
    code, status = "busy", 429


class StorageUnavailable(Unavailable):
    code = "storage_unavailable"


class LogDamaged(StorageUnavailable):
    """A part of the log cannot be read; a retry does not help."""


class Draining(Unavailable):
    code, close_code = "draining", 1012


class Refused(HubError):
    code, status = "refused", 403  # refused before the upgrade, so there is no WebSocket to close


class UpgradeRequired(HubError):
    code, status = "upgrade_required", 426


class Denied(HubError):
    code, status, close_code = "denied", 403, 4507


class Unauthenticated(HubError):
    """One text for a missing, wrong, expired and revoked credential: it tells nothing to those who guess."""

    code, status, close_code = "unauthenticated", 401, 4500

    def __init__(self, message: str = "", **fields: Any) -> None:
        text = "sign in first: send a valid key as `Authorization: Bearer KEY` or in an `auth` frame, or open /sign-in"
        super().__init__(message or text, **fields)


class CredentialExpired(Unauthenticated):
    close_code = 4001


class CredentialRevoked(Unauthenticated):
    close_code = 4503


class SignInTimeout(Unauthenticated):
    close_code = 4502


class UnknownPrincipal(HubError):
    code, status = "unknown_principal", 404


class UnknownMember(UnknownPrincipal):
    code = "unknown_member"


class UnknownKey(HubError):
    code, status = "unknown_key", 404


class UnknownInvite(HubError):
    code, status = "unknown_invite", 404


class AmbiguousName(Conflict):
    code = "ambiguous_name"


class LastOwner(Conflict):
    code = "last_owner"


class BadLink(HubError):
    code, status = "bad_link", 404

    def __init__(self) -> None:
        super().__init__("this link is wrong, expired, used or revoked: ask for a new one where you got it")


def list_error_codes(kind: type[HubError] = HubError) -> list[str]:
    """Return the codes of all kinds of HubError, sorted."""
    return sorted({kind.code}.union(*map(list_error_codes, kind.__subclasses__())))


class AgentError(Exception):
    """Raise it in an agent to end the run with an error; clients receive *message* and *code*.

    Each of the two is cut to 1000 characters. For any other exception, clients receive the code `agent_error` without
    the exception's text. *code* is in snake_case. *retryable* says whether a client may try again, *retry_after_ms*
    after which time.
    """

    def __init__(
        self, message: str, code: str = "agent_error", *, retryable: bool = False, retry_after_ms: int | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.retryable = retryable
        self.retry_after_ms = retry_after_ms
