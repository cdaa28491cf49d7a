"""The TLS certificate of the hub: read at the start, and again when its files change."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import structlog

from hub.settings import ConfigError, Settings

CHECK_SECONDS = 60.0

log = structlog.get_logger()


@attrs.define(eq=False, repr=False)
class Certificate:
    """The certificate for new connections. Connections that are open keep the certificate that they began with.

    *file* has the certificate and those of its issuers, *key_file* the private key.
    """

    file: Path
    key_file: Path
    context: ssl.SSLContext
    _stamps: tuple[tuple[int, ...], ...] = attrs.field(default=(), init=False)

    async def reload(self) -> None:
        """Read the files, changed or not. If they cannot be used, keep the old certificate, and log the reason."""
        try:
            self._stamps = self._read_stamps()
            self.context = await asyncio.to_thread(make_context, self.file, self.key_file)
        except ConfigError as error:
            log.error("the new certificate cannot be used, the old one stays", reason=str(error))
        else:
            log.info("certificate loaded", file=str(self.file))

    async def reload_if_changed(self) -> None:
        """Read the files if one of them has changed since the last time, also since a time when they were wrong."""
        if self._read_stamps() != self._stamps:
            await self.reload()

    async def watch(self) -> None:
        """Read changed files again and again, until the task is cancelled."""
        self._stamps = self._read_stamps()
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            await self.reload_if_changed()

    def _read_stamps(self) -> tuple[tuple[int, ...], ...]:
        """Return what changes with the files. A file that is missing has an empty stamp."""
        return tuple(_read_stamp(path) for path in (self.file, self.key_file))


def open_certificate(settings: Settings) -> Certificate | None:
    """Return the certificate of the settings, or None without one. Raises ConfigError if it cannot be used."""
    if settings.tls_certificate is None or settings.tls_key is None:  # Settings refuses the one without the other
        return None
    # Absolute, because an agent may change the current folder.
    file, key_file = settings.tls_certificate.absolute(), settings.tls_key.absolute()
    return Certificate(file, key_file, make_context(file, key_file))


@asynccontextmanager
async def watch_certificate(certificate: Certificate | None) -> AsyncIterator[None]:
    """Read changed files until the end of the context."""
    task = asyncio.create_task(certificate.watch()) if certificate is not None else None
    try:
        yield
    finally:
        if task is not None:
            task.cancel()
            await asyncio.wait([task])


def make_context(file: Path, key_file: Path) -> ssl.SSLContext:
    """Return the context for TLS 1.2 and later. Raises ConfigError if a file cannot be used."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    for setting, path in (("tls_certificate", file), ("tls_key", key_file)):
        try:
            path.read_bytes()
        except OSError as error:
            raise ConfigError(f"{setting}: {path} cannot be read: {error.strerror}") from None
    try:
        context.load_cert_chain(file, key_file, _refuse_password)
    except ssl.SSLError as error:
        raise ConfigError(_describe_error(error, file, key_file)) from None
    return context


def _refuse_password() -> str:
    """Raise ConfigError. Without this function, OpenSSL would ask for the password at the terminal."""
    raise ConfigError("tls_key has a password: remove it with openssl pkey -in OLD -out NEW")


def _describe_error(error: ssl.SSLError, file: Path, key_file: Path) -> str:
    if error.reason == "KEY_VALUES_MISMATCH":
        return f"tls_key: {key_file} is not the key of the certificate {file}: name the files of one pair"
    return f"tls_certificate and tls_key must be PEM files with a certificate and its key: {file} or {key_file} is none"


def _read_stamp(path: Path) -> tuple[int, ...]:
    try:
        stat = path.stat()
    except OSError:
        return ()
    return (stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size, stat.st_ino)
