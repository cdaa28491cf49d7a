"""Tokens with a secret: keys, cookies, links and tickets. The hub stores only a digest of the secret."""

import hashlib
import hmac
import re
from collections.abc import Callable
from typing import Literal, NamedTuple

# Of a key, a browser's cookie, a one-time link of a person, an invite link of a session, a ticket, and a probe.
TokenKind = Literal["hk", "hb", "hi", "hs", "ht", "hp"]
ID_BYTES, SECRET_BYTES = 8, 20
TOKEN_PATTERN = re.compile(r"(hk|hb|hi|hs|ht|hp)_([0-9a-f]{16})_([0-9a-f]{40})")


class Token(NamedTuple):
    """The parts of a token: *id* is public, *secret* is not."""

    kind: TokenKind
    id: str
    secret: str

    @property
    def text(self) -> str:
        return f"{self.kind}_{self.id}_{self.secret}"

    @property
    def digest(self) -> str:
        return hash_secret(self.secret)


def make_token(kind: TokenKind, new_secret: Callable[[int], str]) -> Token:
    """Return a new token. *new_secret* returns random bytes in hex."""
    return Token(kind, new_secret(ID_BYTES), new_secret(SECRET_BYTES))


def parse_token(text: str) -> Token | None:
    """Return the parts of a token, or None if *text* is not a token of the hub."""
    match = TOKEN_PATTERN.fullmatch(text)
    return Token(*match.groups()) if match else None  # type: ignore[arg-type]


def hash_secret(text: str) -> str:
    """Return the digest that the hub stores. The secrets are random, so a fast hash without a salt is enough."""
    return hashlib.sha256(text.encode()).hexdigest()


def is_secret_of(digest: str, token: Token) -> bool:
    """Return whether a token has the secret with this digest. The time does not depend on the secret."""
    return hmac.compare_digest(digest, token.digest)
