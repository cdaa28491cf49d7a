"""The public keys of an issuer of tokens: read from a URL or a file, cached, and read again after a rotation."""

import asyncio
from pathlib import Path

import aiohttp
import attrs
import structlog
from yarl import URL

from hub.access.doors import is_loopback
from hub.access.jwt import TokenHeader, TokenKey, parse_keys, select_keys
from hub.settings import ConfigError

CACHE_SECONDS = 300.0  # so long a key may sign tokens after the issuer has removed it
RETRY_SECONDS = 30.0  # between two reads: anyone can send tokens with an unknown `kid`
FETCH_SECONDS = 10.0
MAX_BYTES = 256 * 1024  # of a key set; with certificates, a large one has 30 KiB

log = structlog.get_logger()


@attrs.frozen
class KeyUrl:
    """The URL of a key set. *seconds* is the time for the complete answer."""

    url: URL
    seconds: float = FETCH_SECONDS

    def __str__(self) -> str:
        return str(self.url.with_query(None))

    async def read(self) -> bytes:
        """Fetch the key set, and follow no redirect. Raises OSError, ValueError or aiohttp.ClientError."""
        try:
            return await self._fetch()
        except TimeoutError:
            raise ValueError(f"no complete answer in {self.seconds:g} seconds") from None

    async def _fetch(self) -> bytes:
        async with (
            aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=self.seconds),
                headers={"Accept": "application/json", "Accept-Encoding": "identity"},
                auto_decompress=False,  # a small body must not become a large one
                trust_env=not is_loopback(self.url.host or ""),  # the issuer may be behind the proxy in HTTPS_PROXY
            ) as http,
            http.get(self.url, allow_redirects=False) as response,
        ):
            if response.status != 200:
                hint = ": set jwt_keys to the address without a redirect" if 300 <= response.status < 400 else ""
                raise ValueError(f"the server answers with status {response.status}{hint}")
            return await _read_body(response)


async def _read_body(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for block in response.content.iter_any():
        body += block
        _check_size(len(body))
    return bytes(body)


def _check_size(size: int) -> None:
    if size > MAX_BYTES:
        raise ValueError(f"larger than {MAX_BYTES} bytes")


@attrs.frozen
class KeyFile:
    """The path of a file with a public key in PEM, or with a key set."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    async def read(self) -> bytes:
        """Read the file in a thread. Raises OSError or ValueError."""
        return await asyncio.to_thread(self._read)

    def _read(self) -> bytes:
        with self.path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        _check_size(len(data))
        return data


@attrs.define(eq=False, kw_only=True)
class KeySet:
    """The keys of one source. Call open() first, and close() at the end."""

    source: KeyUrl | KeyFile
    cache_seconds: float = CACHE_SECONDS
    retry_seconds: float = RETRY_SECONDS
    _keys: tuple[TokenKey, ...] = ()
    _valid_until: float = float("-inf")
    _next_read: float = float("-inf")
    _task: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Begin to read the keys. Raises ConfigError if a file has none; a server may start after the hub."""
        if isinstance(self.source, KeyUrl):
            self._begin_read()
            return
        try:
            self._keys = parse_keys(await self.source.read())
        except (OSError, ValueError) as error:
            raise ConfigError(f"jwt_keys: {self.source} cannot be used: {_describe(error)}") from None
        self._valid_until = asyncio.get_running_loop().time() + self.cache_seconds

    async def close(self) -> None:
        """End a running read. Waiters continue with the keys that are there; no read begins any more."""
        self._next_read = float("inf")
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def find(self, header: TokenHeader) -> tuple[TokenKey, ...]:
        """Return the keys that may have signed a token.

        Reads the source again first if the keys are old or none of them fits, but not more often than *retry_seconds*.
        If that fails, the old keys stay.
        """
        is_old = asyncio.get_running_loop().time() >= self._valid_until
        if is_old or not select_keys(self._keys, header):
            await self._refresh()
        return select_keys(self._keys, header)

    async def _refresh(self) -> None:
        """Wait for the running read, or for a new one if one may begin (single flight)."""
        if self._task is None and asyncio.get_running_loop().time() >= self._next_read:
            self._begin_read()
        if self._task is not None:
            await asyncio.wait([self._task])  # a waiter that is cancelled does not cancel the task

    def _begin_read(self) -> None:
        self._next_read = asyncio.get_running_loop().time() + self.retry_seconds
        self._task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        try:
            self._keys = parse_keys(await self.source.read())
            self._valid_until = asyncio.get_running_loop().time() + self.cache_seconds
        except (OSError, ValueError, aiohttp.ClientError) as error:
            log.warning(
                "the keys of jwt_keys cannot be read: the earlier keys stay valid",
                source=str(self.source),
                reason=_describe(error),
                keys=len(self._keys),
            )
        finally:
            self._task = None


def _describe(error: Exception) -> str:
    """Return the reason in one line."""
    if isinstance(error, OSError) and not isinstance(error, aiohttp.ClientError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__


def make_key_set(text: str) -> KeySet:
    """Return the key set for the setting `jwt_keys`, a URL or a path. Raises ConfigError for a URL that is not safe."""
    if "://" not in text:
        return KeySet(source=KeyFile(Path(text).absolute()))  # absolute: an agent may change the current folder
    try:
        url = URL(text)
    except ValueError:
        url = URL()
    is_loopback_http = url.scheme == "http" and is_loopback(url.host or "")
    if not url.host or url.user is not None or not (url.scheme == "https" or is_loopback_http):
        raise ConfigError(
            "jwt_keys must be an https URL without a user name, or the path of a file: others in the network could "
            "replace keys that come over http, which is allowed only on a loopback name"
        )
    return KeySet(source=KeyUrl(url))
