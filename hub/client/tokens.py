"""The token of a client, by which the hub knows the principal: a key, or a JWT."""

import inspect
import os
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import attrs

from hub.client.addresses import has_password, is_same_origin
from hub.settings import KEY_VARIABLE, URL_VARIABLE

# A token, or a function that returns one. The function may be async.
ClientToken = str | Callable[[], str | Awaitable[str]]


@attrs.define(eq=False, repr=False)  # no repr: a traceback must not contain the token
class TokenSource:
    """Gives the token of each connection, and remembers it for the requests over HTTP.

    *token* is a text that never changes, or a function, which is asked for each connection: its tokens may expire.
    """

    token: ClientToken | None
    current: str | None = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.current = self.token.strip() if isinstance(self.token, str) else None

    @property
    def headers(self) -> dict[str, str]:
        """The header with the current token; no header without a token."""
        return {} if self.current is None else {"Authorization": f"Bearer {self.current}"}

    async def renew(self) -> None:
        """Ask the function for a token. Raises ConnectionError if it fails: the next attempt to connect asks again."""
        if self.token is None or isinstance(self.token, str):
            return
        try:
            answer: Any = self.token()
            text = await answer if inspect.isawaitable(answer) else answer
            self.current = text.strip()
        except Exception as error:
            raise ConnectionError(f"the token function failed: {error!r}") from error

    async def replace(self, old_token: str | None) -> bool:
        """Return whether there is another token than *old_token*, which the hub has refused. Raises ConnectionError."""
        if self.current == old_token:
            await self.renew()
        return self.current != old_token


def choose_token(
    url: str, headers: Mapping[str, str], token: ClientToken | None, environ: Mapping[str, str] = os.environ
) -> ClientToken | None:
    """Return *token*, or the key in HUBBUB_KEY if *token* is None.

    If the variable HUBBUB_URL is set, the key is for the origin of that address, and no other origin gets it. The key
    is not used either if *url* has a password, or *headers* an Authorization. Raises ValueError if *token* is then set,
    because a request has one Authorization.
    """
    if has_password(url) or any(name.lower() == "authorization" for name in headers):
        if token is not None:
            raise ValueError("the address or the headers sign in already: remove their password, or the token")
        return None
    key, hub_url = environ.get(KEY_VARIABLE, "").strip(), environ.get(URL_VARIABLE)
    if token is None and key and (not hub_url or is_same_origin(hub_url, url)):
        return key
    return token
