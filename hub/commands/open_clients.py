"""The open clients of the hub, by connection and by principal."""

from typing import TYPE_CHECKING

import attrs

from hub.access.principal import Principal
from hub.delivery.connection import Connection
from hub.hosting.calls import OutputReader

if TYPE_CHECKING:
    from hub.commands.client import ClientHandle


@attrs.define(eq=False, repr=False)
class OpenClients:
    """The open clients. A client is in both indexes from attach() to close().

    *readers* are the readers of the answers outside sessions, with the principals that read them.
    """

    by_connection: "dict[Connection, ClientHandle]" = attrs.Factory(dict)
    readers: dict[OutputReader, Principal] = attrs.Factory(dict)
    _by_principal: "dict[str, set[ClientHandle]]" = attrs.Factory(dict)

    def add(self, client: "ClientHandle") -> None:
        self.by_connection[client.connection] = client
        self._by_principal.setdefault(client.principal.id, set()).add(client)

    def remove(self, client: "ClientHandle") -> None:
        """Remove a client; do nothing if it is not here."""
        self.by_connection.pop(client.connection, None)
        clients = self._by_principal.get(client.principal.id, set())
        clients.discard(client)
        if not clients:
            self._by_principal.pop(client.principal.id, None)

    def list_of(self, principal_id: str) -> "list[ClientHandle]":
        """Return the open clients of a principal."""
        return [*self._by_principal.get(principal_id, ())]

    def count_of(self, principal_id: str) -> int:
        return len(self._by_principal.get(principal_id, ()))
