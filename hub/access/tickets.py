"""Tickets: short-lived tokens in the address of a WebSocket or an event stream, for clients that send no header."""

from collections.abc import Callable

import attrs

from hub.access.principal import Principal
from hub.access.secrets import is_secret_of, make_token, parse_token

FIRST_USE_MS = 30_000
EVENT_TICKET_MS = 3_600_000
# Of all principals, and of one: the oldest tickets go first. One principal must not push out the tickets of the others.
MAX_TICKETS, MAX_OWN_TICKETS = 100_000, 1000


@attrs.define(kw_only=True)
class Ticket:
    """A ticket of one principal, for pages of one *origin* (None: for programs, and for pages of the hub itself).

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
    _ids_by_principal: dict[str, dict[str, None]] = attrs.Factory(dict)

    def issue(self, principal: Principal, origin: str | None, session_id: str | None) -> str:
        """Return a new ticket."""
        token = make_token("ht", self.new_secret)
        while len(own_ids := self._ids_by_principal.get(principal.id, {})) >= MAX_OWN_TICKETS:
            self._remove(next(iter(own_ids)))
        while len(self._tickets) >= MAX_TICKETS:
            self._remove(next(iter(self._tickets)))
        self._ids_by_principal.setdefault(principal.id, {})[token.id] = None
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
            self._remove(token.id)
        elif not ticket.is_used:
            ticket.is_used, ticket.expires = True, self.now() + EVENT_TICKET_MS
        return ticket.principal

    def sweep(self) -> None:
        """Drop expired tickets. Call this now and then."""
        now = self.now()
        for name in [name for name, ticket in self._tickets.items() if ticket.expires <= now]:
            self._remove(name)

    def _remove(self, ticket_id: str) -> None:
        principal_id = self._tickets.pop(ticket_id).principal.id
        own_ids = self._ids_by_principal[principal_id]
        del own_ids[ticket_id]
        if not own_ids:
            del self._ids_by_principal[principal_id]
