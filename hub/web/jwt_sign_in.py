"""Sign in with a bearer JWT: find the keys of its issuer, and verify it."""

import asyncio
from collections.abc import Callable

import attrs
import structlog

from hub.access.jwt import (
    TokenHeader,
    TokenKey,
    TokenRefused,
    TokenRules,
    VerifiedToken,
    make_secret_key,
    read_header,
    verify_token,
)
from hub.errors import Unauthenticated
from hub.extras import make_install_command
from hub.seams import Seams
from hub.settings import ConfigError, Settings
from hub.web.key_set import KeySet, make_key_set

LOG_SECONDS = 1.0  # between two log lines: anyone can send wrong tokens, and could fill the disk

log = structlog.get_logger()


@attrs.define(eq=False, kw_only=True)
class JwtVerifier:
    """Verifies the tokens of one issuer. Call open() first, and close() at the end.

    *keys* are the public keys of the issuer, or the secret that the hub shares with it. *now* returns the time in ms.
    """

    rules: TokenRules
    keys: KeySet | TokenKey
    now: Callable[[], int]
    _next_log_time: float = float("-inf")

    async def open(self) -> None:
        """Begin to read the keys. Raises ConfigError if they are in a file without a usable key."""
        if isinstance(self.keys, KeySet):
            await self.keys.open()

    async def close(self) -> None:
        """End the requests for keys."""
        if isinstance(self.keys, KeySet):
            await self.keys.close()

    async def verify(self, token: str) -> VerifiedToken:
        """Return the claims of a valid token. May wait until the keys are read.

        Raises Unauthenticated for every other token. The reason goes to the log.
        """
        try:
            keys = await self._find_keys(read_header(token))
            return verify_token(token, keys, self.rules, self.now())
        except TokenRefused as refusal:
            self._log_refusal(refusal)
            raise Unauthenticated() from None

    async def _find_keys(self, header: TokenHeader) -> tuple[TokenKey, ...]:
        if isinstance(self.keys, TokenKey):
            return (self.keys,)
        return () if header.algorithm == "HS256" else await self.keys.find(header)

    def _log_refusal(self, refusal: TokenRefused) -> None:
        now = asyncio.get_running_loop().time()
        if now >= self._next_log_time:
            self._next_log_time = now + LOG_SECONDS
            log.info("a JWT was refused", reason=str(refusal))


def make_jwt_verifier(settings: Settings, seams: Seams) -> JwtVerifier | None:
    """Return the verifier for the settings `jwt_*`, or None if there is no `jwt_issuer`. Raises ConfigError."""
    if settings.jwt_issuer is None or settings.jwt_audience is None:  # Settings has refused the one without the other
        return None
    _check_packages()
    return JwtVerifier(
        rules=TokenRules(settings.jwt_issuer, settings.jwt_audience), keys=_make_keys(settings), now=seams.now
    )


def _check_packages() -> None:
    """Import the packages now, not while the first client waits."""
    try:
        import cryptography  # noqa: F401
        import jwt  # noqa: F401
    except ModuleNotFoundError:
        command = make_install_command("jwt")
        raise ConfigError(f"jwt_issuer needs PyJWT and cryptography: run {command}") from None


def _make_keys(settings: Settings) -> KeySet | TokenKey:
    if settings.jwt_secret is None:
        return make_key_set(settings.jwt_keys or "")
    try:
        return make_secret_key(settings.jwt_secret)
    except ValueError as error:
        raise ConfigError(f"jwt_secret cannot be used: {error}") from None
