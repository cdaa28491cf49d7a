"""Tickets: short-lived tokens in the address of a WebSocket or an event stream, for clients that send no header."""

from collections.abc import Callable

import attrs

from hub.access.principal import Principal
from hub.access.secrets import SECRET_BYTES, Token, is_secret_of, parse_token

FIRST_USE_MS = 30_000
EVENT_TICKET_MS = 3_600_000
MAX_TICKETS = 100_000  # of all principals: the oldest tickets go first


@attrs.define(kw_only=True)
class Ticket:
    """A ticket of one principal, for pages of one *origin* (None: for programs).

    If *session_id* is None, it opens one WebSocket. Else it opens streams of the events of that session.
    *expires* is in ms.
    """

    digest: str
    principal: Principal
    origin: str | None
    session_id: str | None
    expires: int
    is_used: bool = False


@attrs.define(eq=False, kw_only=True)
class Tickets:
    """The valid tickets, in memory: a restart of the hub ends them.

    A ticket must be used within 30 s. A ticket for a WebSocket works once. A ticket for events then works for an hour,
    so that a client can reconnect.
    """

    now: Callable[[], int]
    new_secret: Callable[[int], str]
    _tickets: dict[str, Ticket] = attrs.Factory(dict)

    def issue(self, principal: Principal, origin: str | None, session_id: str | None) -> str:
        """Return a new ticket."""
        token = Token("ht", self.new_secret(8), self.new_secret(SECRET_BYTES))
        while len(self._tickets) >= MAX_TICKETS:
            del self._tickets[next(iter(self._tickets))]
        self._tickets[token.id] = Ticket(
            digest=token.digest,
            principal=principal,
            origin=origin,
            session_id=session_id,
            expires=self.now() + FIRST_USE_MS,
        )
        return token.text

    def redeem(self, text: str, origin: str | None, session_id: str | None) -> Principal | None:
        """Return the principal of a valid ticket for a WebSocket (*session_id* is None) or for the events of a session.

        The caller checks that the principal's credential is still valid.
        """
        token = parse_token(text)
        ticket = self._tickets.get(token.id) if token is not None and token.kind == "ht" else None
        if token is None or ticket is None or not is_secret_of(ticket.digest, token):
            return None
        if ticket.expires <= self.now() or (ticket.origin, ticket.session_id) != (origin, session_id):
            return None
        if ticket.session_id is None:
            del self._tickets[token.id]
        elif not ticket.is_used:
            ticket.is_used, ticket.expires = True, self.now() + EVENT_TICKET_MS
        return ticket.principal

    def sweep(self) -> None:
        """Drop expired tickets. Call this now and then."""
        now = self.now()
        for name in [name for name, ticket in self._tickets.items() if ticket.expires <= now]:
            del self._tickets[name]
