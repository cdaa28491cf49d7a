"""The facts about who may do what, as the log stores them: principals, credentials, grants, usage and audit."""

from typing import Literal

import attrs

from hub.ids import DEFAULT_TENANT, Key
from hub.text import cut, escape_unprintable, to_one_line

MAX_NAME_LENGTH = 100  # of a principal
MAX_SUBJECT_LENGTH = 255  # of a user that a proxy or an issuer names: OpenID Connect Core 1.0, section 2

PrincipalKind = Literal["person", "program"]
# The role of a principal in its tenant. A guest may only do what its grants allow.
TenantRole = Literal["admin", "member", "observer", "guest"]
# The role of a principal in one session, from a grant.
SessionRole = Literal["owner", "member", "viewer"]
# How a request proves who sends it: a key of a program; the cookie of a browser; a one-time link for a person; the name
# that a trusted proxy sends; the issuer and the subject of a JWT.
CredentialKind = Literal["key", "browser", "invite", "proxy", "jwt"]


def make_name(text: str) -> str:
    """Return *text* as the name of a principal: one short line that controls no terminal."""
    return cut(escape_unprintable(to_one_line(text, MAX_NAME_LENGTH)), MAX_NAME_LENGTH)


def is_subject(text: str) -> bool:
    """Return whether *text* may name a user at a proxy or an issuer: it is short, printable, and not blank."""
    return bool(text.strip()) and len(text) <= MAX_SUBJECT_LENGTH and text.isprintable()


@attrs.frozen(kw_only=True)
class PrincipalRecord:
    """A person or a program. *id* is random, begins with `p_`, and is the `author.id` of its messages.

    *name* is for people, and need not be unique. *created* is in ms.
    """

    id: str
    name: str
    kind: PrincipalKind
    role: TenantRole
    tenant: str = DEFAULT_TENANT
    created: int = 0


@attrs.frozen(kw_only=True)
class Credential:
    """One way for a principal to sign in.

    *id* is public: the part of a key before its secret, or a digest of the name that a proxy or an issuer uses.
    *digest* is the SHA-256 of the secret in hex; it is empty if there is no secret of ours (`proxy` and `jwt`).
    If *agents* is not None, the credential may use only these agents. *expires* (ms) is 0 if it never expires,
    *revoked* (ms) is 0 if it is valid, and *used* (ms) is the time of the last use, within a minute.
    """

    id: str
    principal: str
    kind: CredentialKind
    digest: str = ""
    label: str = ""
    agents: tuple[str, ...] | None = None
    created: int = 0
    expires: int = 0
    revoked: int = 0
    used: int = 0


@attrs.frozen
class Grant:
    """The role of a principal in a session."""

    key: Key
    principal: str
    role: SessionRole


@attrs.frozen(kw_only=True)
class SessionInvite:
    """A link that gives whoever opens it a role in a session, until it expires or is revoked.

    *digest* is the SHA-256 of the secret in the link. *creator* is the id of a principal.
    """

    id: str
    key: Key
    role: SessionRole
    digest: str
    creator: str
    created: int
    expires: int
    revoked: int = 0


@attrs.frozen(kw_only=True)
class UsageRecord:
    """The amounts that one principal used of one agent on one UTC day.

    *day* is as in 2026-11-30. *estimated* is the part of the tokens that the hub has estimated, because the agent
    reported none.
    """

    day: str
    tenant: str
    principal: str
    agent: str
    messages: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    estimated: int = 0


@attrs.frozen(kw_only=True)
class Quota:
    """The limits of a principal, or of all principals of a tenant together. None means no limit.

    *subject* is the id of a principal, or the name of a tenant. *runs* are answers at the same time; *messages* and
    *tokens* count per UTC day; *stored_bytes* are of files.
    """

    subject: str
    runs: int | None = None
    messages: int | None = None
    tokens: int | None = None
    stored_bytes: int | None = None


@attrs.frozen(kw_only=True)
class AuditEntry:
    """One line of the audit: who did what to which session, from where, and whether it was allowed.

    *principal* and *name* are empty if nobody was signed in. *action* is the name of a use case. *target* is a session
    key, or another id that the action is about. *address* is the IP address of the client, or `control` for the
    operator's socket. *reason* is the error code of a refusal. No entry has content of a message, or a secret.
    """

    ts: int
    tenant: str
    principal: str
    name: str
    action: str
    target: str
    address: str
    is_allowed: bool
    reason: str = ""
