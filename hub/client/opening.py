"""Make a client from an address, a token, and the variables of the environment."""

import os
from collections.abc import Mapping

from hub.client.addresses import DEFAULT_URL, websocket_url
from hub.client.client import Client
from hub.client.tokens import ClientToken, TokenSource, choose_token
from hub.settings import URL_VARIABLE


def connect(
    url: str | None = None,
    *,
    token: ClientToken | None = None,
    patience: float | None = 10.0,
    headers: Mapping[str, str] | None = None,
) -> Client:
    """Return a client, to use as `async with connect() as hub`.

    Without *url*, it uses the address in HUBBUB_URL, or a hub on this machine. *token* is a key of the hub or a JWT, or
    a function that returns one, and that the client calls for each connection. The function may be async; a plain one
    must not block. Without *token*, the client uses the key in HUBBUB_KEY. Raises the errors of choose_token().

    Entering the context waits for the first connection. It raises Unreachable after *patience* seconds without a
    connection (None: wait forever; 0: try once), and Closed if the hub refuses the client. After a later loss, the
    client reconnects by itself.
    """
    url, headers = url or os.environ.get(URL_VARIABLE) or DEFAULT_URL, dict(headers or {})
    tokens = TokenSource(choose_token(url, headers, token))
    if not url.startswith(("ws://", "wss://")):
        url = websocket_url(url)
    return Client(url=url, patience=patience, headers=headers, tokens=tokens)
