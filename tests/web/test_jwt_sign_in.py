"""Sign in with a bearer JWT: from the settings to the claims, with a real key server."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs
from support.key_server import KeyServer, serve_keys
from support.tokens import (
    AUDIENCE,
    EC,
    FORGERIES,
    ISSUER,
    KEY_SET,
    KEYS,
    NOW,
    RSA,
    SECRET,
    STRANGER,
    encode_key_set,
    jwk,
    make_token,
)
from support.waiting import PATIENCE

from hub.errors import Unauthenticated
from hub.seams import Seams
from hub.settings import ConfigError, Settings
from hub.web.jwt_sign_in import JwtVerifier, make_jwt_verifier
from hub.web.key_set import RETRY_SECONDS, KeySet

SEAMS = Seams(now=lambda: NOW)
PUBLIC_KEY_ALGORITHMS = [name for name in KEYS if name != "HS256"]


def make_verifier(**settings: Any) -> JwtVerifier:
    verifier = make_jwt_verifier(Settings(jwt_issuer=ISSUER, jwt_audience=AUDIENCE, **settings), SEAMS)
    assert verifier is not None
    return verifier


@asynccontextmanager
async def open_verifier(*, retry_seconds: float = RETRY_SECONDS, **settings: Any) -> AsyncIterator[JwtVerifier]:
    """Open a verifier; every wait for it is bounded."""
    verifier = make_verifier(**settings)
    if isinstance(verifier.keys, KeySet):
        verifier.keys.retry_seconds = retry_seconds
    async with asyncio.timeout(PATIENCE):
        await verifier.open()
        try:
            yield verifier
        finally:
            await verifier.close()


@pytest.fixture
async def server() -> AsyncIterator[KeyServer]:
    async with serve_keys() as running:
        yield running


async def refusal(verifier: JwtVerifier, token: str) -> Unauthenticated:
    """Return the error for a token. The log has its reason in one line, and no part of the token."""
    with capture_logs() as lines, pytest.raises(Unauthenticated) as caught:
        await verifier.verify(token)
    assert caught.value.__suppress_context__
    for line in lines:
        assert line["event"] == "a JWT was refused" and line["reason"]
        assert not any(len(part) > 8 and part in repr(line) for part in token.split("."))
    return caught.value


async def test_without_an_issuer_there_is_no_verifier() -> None:
    assert make_jwt_verifier(Settings(), SEAMS) is None


@pytest.mark.parametrize("algorithm", PUBLIC_KEY_ALGORITHMS)
async def test_a_token_of_each_algorithm_is_accepted(server: KeyServer, algorithm: str) -> None:
    """The keys come from a server or a file."""
    token = make_token(algorithm, header={"kid": algorithm})
    async with open_verifier(jwt_keys=server.url) as verifier:
        claims = await verifier.verify(token)
    assert (claims.issuer, claims.subject, claims.name, claims.expires) == (ISSUER, "user-1", "Ann", NOW + 60_000)


async def test_a_token_that_a_shared_secret_has_signed_is_accepted() -> None:
    async with open_verifier(jwt_secret=SECRET) as verifier:
        assert (await verifier.verify(make_token("HS256"))).subject == "user-1"


async def test_a_key_in_a_file_verifies_tokens(tmp_path: Path) -> None:
    file = tmp_path / "issuer.pem"
    file.write_bytes(RSA.as_pem(private=False))
    async with open_verifier(jwt_keys=str(file)) as verifier:
        assert (await verifier.verify(make_token())).subject == "user-1"


async def test_all_forged_tokens_get_the_same_answer(server: KeyServer, tmp_path: Path) -> None:
    """A client learns nothing from it: not what is wrong, and not whether the hub has a secret or public keys."""
    file = tmp_path / "keys.json"
    file.write_bytes(KEY_SET)
    answers = set()
    sources: list[dict[str, Any]] = [{"jwt_keys": server.url}, {"jwt_keys": str(file)}, {"jwt_secret": SECRET}]
    for settings in sources:
        async with open_verifier(**settings) as verifier:
            for token in FORGERIES.values():
                error = await refusal(verifier, token)
                answers.add((type(error), error.message, error.code, error.status, error.close_code, *error.fields))
    assert answers == {(Unauthenticated, Unauthenticated().message, "unauthenticated", 401, 4500)}
    assert server.paths == ["/keys"]


async def test_each_kind_of_key_verifies_only_its_algorithms(server: KeyServer) -> None:
    """A hub with public keys accepts no HMAC, and asks for no key of HMAC. A hub with a secret accepts only HMAC."""
    async with open_verifier(jwt_keys=server.url, retry_seconds=0.0) as verifier:
        assert await verifier.verify(make_token())
        await refusal(verifier, make_token("HS256"))
        assert len(server.paths) == 1
    async with open_verifier(jwt_secret=SECRET) as verifier:
        for algorithm in PUBLIC_KEY_ALGORITHMS:
            await refusal(verifier, make_token(algorithm))


async def test_an_address_in_a_token_gets_no_request(server: KeyServer) -> None:
    """A stranger signs the token, and says in it where to find the key: jku, x5u, or a URL as kid."""
    async with serve_keys() as evil, open_verifier(jwt_keys=server.url) as verifier:
        evil.body = encode_key_set(jwk(STRANGER, "evil"))
        for header in ({"jku": evil.url}, {"x5u": evil.url}, {"kid": evil.url}, {"jku": evil.url, "kid": "evil"}):
            await refusal(verifier, make_token(key=STRANGER, header=header))
        assert evil.paths == []


async def test_many_tokens_at_once_make_one_request(server: KeyServer) -> None:
    """Also with different kids: 50 verifications wait for one answer."""
    server.gate.clear()
    tokens = [make_token(name, header={"kid": name}) for name in PUBLIC_KEY_ALGORITHMS]
    async with open_verifier(jwt_keys=server.url) as verifier:
        tasks = [asyncio.create_task(verifier.verify(tokens[number % 3])) for number in range(50)]
        await server.request_arrived.wait()
        server.gate.set()
        assert {claims.subject for claims in await asyncio.gather(*tasks)} == {"user-1"}
    assert len(server.paths) == 1


async def test_a_token_of_a_new_key_is_accepted_after_a_rotation(server: KeyServer) -> None:
    """And one of the old key no longer."""
    async with open_verifier(jwt_keys=server.url, retry_seconds=0.0) as verifier:
        assert await verifier.verify(make_token(header={"kid": "RS256"}))
        server.body = encode_key_set(jwk(EC, "2027"))
        assert await verifier.verify(make_token("ES256", header={"kid": "2027"}))
        await refusal(verifier, make_token(header={"kid": "RS256"}))


async def test_tokens_are_refused_while_there_are_no_keys(server: KeyServer) -> None:
    """The server of the issuer fails from the start."""
    server.body = b"not yet"
    async with open_verifier(jwt_keys=server.url) as verifier:
        with capture_logs() as lines, pytest.raises(Unauthenticated):
            await verifier.verify(make_token())
    assert [line["log_level"] for line in lines] == ["warning", "info"]


async def test_many_wrong_tokens_do_not_fill_the_log() -> None:
    """The log has one line a second."""
    async with open_verifier(jwt_secret=SECRET) as verifier:
        with capture_logs() as lines:
            for _ in range(200):
                with pytest.raises(Unauthenticated):
                    await verifier.verify("hello")
    assert 1 <= len(lines) < 20


def test_the_start_says_which_packages_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hub without an issuer does not need them."""
    monkeypatch.setitem(sys.modules, "jwt", None)
    with pytest.raises(ConfigError, match=r"^jwt_issuer needs PyJWT and cryptography: run .* -m pip install '"):
        make_verifier(jwt_secret=SECRET)
    assert make_jwt_verifier(Settings(), SEAMS) is None


def test_a_public_key_as_secret_is_refused_at_the_start() -> None:
    with pytest.raises(ConfigError, match="^jwt_secret cannot be used: it is a public key"):
        make_verifier(jwt_secret=RSA.as_pem(private=False).decode())


async def test_a_file_without_keys_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="^jwt_keys: .* cannot be used: No such file or directory"):
        await make_verifier(jwt_keys=str(tmp_path / "gone.pem")).open()
