"""The key set of an issuer, from a real server: cached, read once by all waiters, and again after a rotation."""

import asyncio
import gzip
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from structlog.testing import capture_logs
from support.key_server import Answer, KeyServer, serve_keys
from support.tokens import EC, ED, KEY_SET, RSA, encode_key_set, jwk
from support.waiting import PATIENCE
from yarl import URL

from hub.access.jwt import TokenHeader
from hub.settings import ConfigError
from hub.web.key_set import CACHE_SECONDS, MAX_BYTES, RETRY_SECONDS, KeyFile, KeySet, KeyUrl, make_key_set

SIGNED_BY_RSA = TokenHeader("RS256", "RS256")
SIGNED_BY_NEW = TokenHeader("ES256", "new")
ROTATED = encode_key_set(jwk(EC, "new"))
AT_ONCE = {"retry_seconds": 0.0}
NO_CACHE = {"retry_seconds": 0.0, "cache_seconds": 0.0}


@pytest.fixture
async def server() -> AsyncIterator[KeyServer]:
    async with serve_keys() as running:
        yield running


@asynccontextmanager
async def open_keys(
    source: KeyServer | Path, *, cache_seconds: float = CACHE_SECONDS, retry_seconds: float = RETRY_SECONDS
) -> AsyncIterator[KeySet]:
    """Open a key set; every wait for it is bounded."""
    kind = KeyFile(source) if isinstance(source, Path) else KeyUrl(URL(source.url))
    keys = KeySet(source=kind, cache_seconds=cache_seconds, retry_seconds=retry_seconds)
    async with asyncio.timeout(PATIENCE):
        await keys.open()
        try:
            yield keys
        finally:
            await keys.close()


async def kids(keys: KeySet, header: TokenHeader) -> list[str | None]:
    return [key.kid for key in await keys.find(header)]


async def test_the_keys_are_read_once_and_cached(server: KeyServer) -> None:
    async with open_keys(server, **AT_ONCE) as keys:
        for _ in range(20):
            assert await kids(keys, SIGNED_BY_RSA) == ["RS256"]
            assert await kids(keys, TokenHeader("EdDSA", None)) == ["EdDSA"]
    assert server.paths == ["/keys"]


async def test_an_unknown_kid_reads_the_keys_again(server: KeyServer) -> None:
    """The issuer has begun to sign with a new key, and has dropped the old one."""
    async with open_keys(server, **AT_ONCE) as keys:
        assert await kids(keys, SIGNED_BY_RSA) == ["RS256"]
        server.body = ROTATED
        assert await kids(keys, SIGNED_BY_NEW) == ["new"]
        assert await kids(keys, SIGNED_BY_RSA) == []
    assert len(server.paths) == 3


async def test_unknown_kids_do_not_read_the_keys_all_the_time(server: KeyServer) -> None:
    """Anyone can send tokens with an unknown kid: within 30 s of a read they read nothing."""
    async with open_keys(server) as keys:
        assert await kids(keys, SIGNED_BY_RSA) == ["RS256"]
        for number in range(50):
            assert await kids(keys, TokenHeader("RS256", f"unknown{number}")) == []
    assert len(server.paths) == 1


async def test_old_keys_are_read_again(server: KeyServer) -> None:
    """A key that the issuer has dropped is no longer used when the cache has ended."""
    async with open_keys(server, **NO_CACHE) as keys:
        assert await kids(keys, SIGNED_BY_RSA) == ["RS256"]
        server.body = ROTATED
        assert await kids(keys, SIGNED_BY_RSA) == []


async def test_concurrent_verifications_share_one_request(server: KeyServer) -> None:
    """Single flight: 50 of them wait for the same answer."""
    server.gate.clear()
    async with open_keys(server, **NO_CACHE) as keys:
        tasks = [asyncio.create_task(kids(keys, SIGNED_BY_RSA)) for _ in range(50)]
        await server.request_arrived.wait()
        server.gate.set()
        assert await asyncio.gather(*tasks) == [["RS256"]] * 50
    assert len(server.paths) == 1


async def test_a_cancelled_verification_does_not_cancel_the_request(server: KeyServer) -> None:
    """The others still wait for its answer."""
    server.gate.clear()
    async with open_keys(server) as keys:
        first, second = [asyncio.create_task(kids(keys, SIGNED_BY_RSA)) for _ in range(2)]
        await server.request_arrived.wait()
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        server.gate.set()
        assert await second == ["RS256"]
    assert len(server.paths) == 1


async def test_known_keys_are_used_while_the_set_is_read(server: KeyServer) -> None:
    """A token with an unknown kid delays no other token."""
    async with open_keys(server, **AT_ONCE) as keys:
        assert await kids(keys, SIGNED_BY_RSA) == ["RS256"]
        server.gate.clear()
        server.request_arrived.clear()
        waiting = asyncio.create_task(kids(keys, SIGNED_BY_NEW))
        await server.request_arrived.wait()
        assert await kids(keys, SIGNED_BY_RSA) == ["RS256"]
        assert not waiting.done()
        server.gate.set()
        assert await waiting == []


def response(status: int = 200, body: bytes = KEY_SET, **headers: str) -> Answer:
    async def answer(request: web.Request) -> web.StreamResponse:
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.Response(status=status, body=body, headers=fields)

    return answer


async def hang_up(request: web.Request) -> web.StreamResponse:
    """Close the connection in the middle of the body."""
    stream = web.StreamResponse(headers={"Content-Length": str(len(KEY_SET))})
    await stream.prepare(request)
    await stream.write(KEY_SET[:100])
    assert request.transport is not None
    request.transport.abort()
    return stream


async def stream_without_length(request: web.Request) -> web.StreamResponse:
    stream = web.StreamResponse()
    await stream.prepare(request)
    for _ in range(2 * 16):
        await stream.write(b" " * 65536)
    await stream.write(KEY_SET)
    return stream


FAILURES: dict[str, tuple[Answer, str]] = {
    "an error": (response(500), "the server answers with status 500"),
    "nothing": (response(204, b""), "the server answers with status 204"),
    "a page": (response(200, b"<html>"), "neither a public key in PEM nor a key set in JSON"),
    "no usable key": (response(200, b'{"keys": []}'), "no public key for RS256"),
    "a moved set": (
        response(302, b"", Location="/other"),
        "status 302: set jwt_keys to the address without a redirect",
    ),
    "a set moved for ever": (response(308, b"", Location="/other"), "the server answers with status 308"),
    "2 MB": (response(200, KEY_SET + b" " * 2_000_000), "larger than 262144 bytes"),
    "2 MB without a length": (stream_without_length, "larger than 262144 bytes"),
    "one byte too many": (response(200, KEY_SET.ljust(MAX_BYTES + 1)), "larger than 262144 bytes"),
    "a compressed set": (response(200, gzip.compress(KEY_SET), Content_Encoding="gzip"), "neither a public key"),
    "half of the set": (hang_up, ""),
}


@pytest.mark.parametrize(("answer", "reason"), FAILURES.values(), ids=FAILURES)
async def test_a_failed_request_keeps_the_old_keys(server: KeyServer, answer: Answer, reason: str) -> None:
    """One log line says why. When the server works again, its keys are used."""
    async with open_keys(server, **NO_CACHE) as keys:
        assert await kids(keys, SIGNED_BY_RSA) == ["RS256"]
        server.answer = answer
        with capture_logs() as lines:
            assert await kids(keys, SIGNED_BY_RSA) == ["RS256"]
        assert [line["event"] for line in lines] == ["the keys of jwt_keys cannot be read: the earlier keys stay valid"]
        assert reason in lines[0]["reason"] and lines[0]["reason"] and lines[0]["source"] == server.url
        server.answer, server.body = None, ROTATED
        assert await kids(keys, SIGNED_BY_RSA) == []
    assert set(server.paths) == {"/keys"}


async def test_the_largest_set_is_read(server: KeyServer) -> None:
    server.body = KEY_SET.ljust(MAX_BYTES)
    async with open_keys(server) as keys:
        assert await kids(keys, SIGNED_BY_RSA) == ["RS256"]


async def test_a_server_that_does_not_answer_is_given_up(server: KeyServer) -> None:
    """The limit is for the whole answer: a server that sends its body slowly reaches it, too."""

    async def trickle(request: web.Request) -> web.StreamResponse:
        stream = web.StreamResponse()
        await stream.prepare(request)
        await asyncio.Event().wait()
        return stream

    server.answer = trickle
    keys = KeySet(source=KeyUrl(URL(server.url), seconds=0.2))
    with capture_logs() as lines:
        await keys.open()
        async with asyncio.timeout(PATIENCE):
            assert await kids(keys, SIGNED_BY_RSA) == []
    assert [line["reason"] for line in lines] == ["no complete answer in 0.2 seconds"]
    await keys.close()


async def test_a_server_may_start_after_the_hub() -> None:
    """While it does not run, there are no keys, and the hub tries again later."""
    async with serve_keys() as server:
        port = URL(server.url).port
    async with open_keys(server, **AT_ONCE) as keys:
        with capture_logs() as lines:
            assert await kids(keys, SIGNED_BY_RSA) == []
        assert lines[0]["reason"].startswith(f"Cannot connect to host 127.0.0.1:{port}")
        async with serve_keys(port or 0):
            assert await kids(keys, SIGNED_BY_RSA) == ["RS256"]


async def test_close_ends_a_request(server: KeyServer) -> None:
    """A verification that waits for it continues; later ones send no request."""
    server.gate.clear()
    keys = KeySet(source=KeyUrl(URL(server.url), seconds=1e6), cache_seconds=0.0, retry_seconds=0.0)
    await keys.open()
    waiting = asyncio.create_task(kids(keys, SIGNED_BY_RSA))
    async with asyncio.timeout(PATIENCE):
        await server.request_arrived.wait()
        await keys.close()
        assert await waiting == []
        assert await kids(keys, SIGNED_BY_RSA) == []
        await server.client_left.wait()
    assert len(server.paths) == 1


async def test_no_log_line_shows_the_query_of_the_url(server: KeyServer) -> None:
    """It may have a key of the issuer."""
    server.answer = response(500)
    keys = KeySet(source=KeyUrl(URL(server.url + "?code=s3cret")))
    with capture_logs() as lines:
        await keys.open()
        assert await kids(keys, SIGNED_BY_RSA) == []
    assert lines and "s3cret" not in repr(lines)
    await keys.close()


@pytest.mark.parametrize("data", [RSA.as_pem(private=False), KEY_SET], ids=["PEM", "JWKS"])
async def test_keys_from_a_file(tmp_path: Path, data: bytes) -> None:
    """A changed file is read again, as a changed URL is."""
    file = tmp_path / "keys"
    file.write_bytes(data)
    async with open_keys(file, **NO_CACHE) as keys:
        assert len(await keys.find(SIGNED_BY_RSA)) == 1
        file.write_bytes(ED.as_pem(private=False))
        assert await keys.find(SIGNED_BY_RSA) == ()
        assert len(await keys.find(TokenHeader("EdDSA", "any"))) == 1
        file.unlink()
        with capture_logs() as lines:
            assert len(await keys.find(TokenHeader("EdDSA", None))) == 1
        assert [line["reason"] for line in lines] == ["No such file or directory"]


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (None, "No such file or directory"),
        (b"", "neither a public key in PEM nor a key set in JSON"),
        (RSA.as_pem(private=True), "no public key for RS256, ES256, EdDSA"),
        (KEY_SET.ljust(MAX_BYTES + 1), f"larger than {MAX_BYTES} bytes"),
    ],
    ids=["missing", "empty", "private", "large"],
)
async def test_a_file_without_keys_is_refused_at_the_start(tmp_path: Path, data: bytes | None, problem: str) -> None:
    file = tmp_path / "keys"
    if data is not None:
        file.write_bytes(data)
    with pytest.raises(ConfigError, match=f"^jwt_keys: {file} cannot be used: {problem}"):
        await KeySet(source=KeyFile(file)).open()


@pytest.mark.parametrize(
    "text",
    [
        "http://issuer.example/keys",
        "http://localhost.evil.example/keys",
        "http://10.0.0.1/keys",
        "ftp://localhost/keys",
        "file:///etc/keys",
        "https://user:word@issuer.example/keys",
        "https://",
        "https:///keys",
        "https://[::1/keys",
        "https://issuer.example:port/keys",
    ],
)
def test_keys_come_only_over_https(text: str) -> None:
    """Others in the network could replace keys that come over http."""
    with pytest.raises(ConfigError, match="^jwt_keys must be an https URL"):
        make_key_set(text)


@pytest.mark.parametrize(
    "text", ["https://issuer.example/keys?a=b", "http://localhost:8080/keys", "http://[::1]/", "http://127.0.0.1/keys"]
)
def test_a_safe_url_is_accepted(text: str) -> None:
    """On a loopback name, http is safe."""
    assert make_key_set(text).source == KeyUrl(URL(text))


def test_other_texts_are_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They begin at the folder in which the hub starts, which an agent may change later."""
    monkeypatch.chdir(tmp_path)
    assert make_key_set("keys.json").source == KeyFile(tmp_path / "keys.json")
