"""Check the TLS certificates: that of the hub, and that of its public address."""

import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from yarl import URL

from hub.cli.doctor.findings import Finding
from hub.settings import ConfigError, Settings
from hub.web.certificate import open_certificate

TLS_SECONDS = 10.0
DAY_SECONDS = 86_400
LAST_DAYS = 14  # a certificate of 90 days is renewed 30 days before its end
LAST_PART = 0.25  # of the time of a short certificate


def check_certificate(settings: Settings) -> Iterator[Finding]:
    """Check the certificate: that its key fits, that it has the name of the hub, and when it expires."""
    try:
        certificate = open_certificate(settings)
    except ConfigError as error:
        yield Finding("wrong", str(error))
        return
    if certificate is None:
        return
    host = URL(settings.public_url).host if settings.public_url is not None else None
    try:
        fields = _shake_hands(certificate.context, certificate.file, host)
    except ssl.SSLCertVerificationError as error:
        text = f"tls_certificate: {certificate.file} is not valid: {error.verify_message}"
        yield Finding("wrong", text, f"renew it for {host or 'the name of the hub'}, as with certbot renew")
    else:
        yield _check_end(f"tls_certificate: {certificate.file}", fields)


def _shake_hands(server_context: ssl.SSLContext, file: Path, host: str | None) -> dict[str, Any]:
    """Return the fields of a certificate, from a handshake in memory with a client that trusts this certificate.

    Raises SSLCertVerificationError if it has expired, is not valid yet, or has another name.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = host is not None
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # its issuer may be missing
    context.load_verify_locations(file)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(to_client, to_server, server_hostname=host)
    server = server_context.wrap_bio(to_server, to_client, server_side=True)
    for side in (client, server):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            pass
    client.do_handshake()
    return client.getpeercert() or {}


def check_public_certificate(address: URL) -> Iterator[Finding]:
    """Check when the certificate at a public address expires. The probes report one that is not valid."""
    if address.scheme != "https" or not address.host:
        return
    try:
        with socket.create_connection((address.host, address.port), TLS_SECONDS) as sock:
            with ssl.create_default_context().wrap_socket(sock, server_hostname=address.host) as tls:
                yield _check_end(f"the certificate of {address.host}", tls.getpeercert() or {})
    except OSError:
        return


def _check_end(name: str, fields: dict[str, Any]) -> Finding:
    start, end = (ssl.cert_time_to_seconds(fields[key]) for key in ("notBefore", "notAfter"))
    days = (end - time.time()) / DAY_SECONDS
    if days < min(LAST_DAYS, LAST_PART * (end - start) / DAY_SECONDS):
        text = f"{name} expires in {days:.1f} days: after that, nobody can connect"
        return Finding("wrong", text, "renew it, and let a timer do so: certbot renew, or a proxy such as Caddy")
    return Finding("ok", f"{name} is valid for {days:.{0 if days >= LAST_DAYS else 1}f} days")
