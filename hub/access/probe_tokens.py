"""Tokens of the operator for requests that test the way to the hub, through its proxies."""

from collections.abc import Callable

import attrs

from hub.access.secrets import is_secret_of, make_token, parse_token

PROBE_MS = 60_000
MAX_PROBE_TOKENS = 100  # the oldest ones go first


@attrs.define(eq=False, kw_only=True)
class ProbeTokens:
    """The valid tokens, in memory. Each works once, within a minute."""

    now: Callable[[], int]
    new_secret: Callable[[int], str]
    _tokens: dict[str, tuple[str, int]] = attrs.Factory(dict)  # the digest and the end (ms), by id

    def issue(self) -> str:
        """Return a new token."""
        token = make_token("hp", self.new_secret)
        while len(self._tokens) >= MAX_PROBE_TOKENS:
            del self._tokens[next(iter(self._tokens))]
        self._tokens[token.id] = token.digest, self.now() + PROBE_MS
        return token.text

    def redeem(self, text: str) -> bool:
        """Use a token up. Return whether it was valid."""
        token = parse_token(text)
        if token is None or token.kind != "hp":
            return False
        digest, expires = self._tokens.get(token.id, ("", 0))
        if not is_secret_of(digest, token):
            return False
        del self._tokens[token.id]
        return self.now() < expires
