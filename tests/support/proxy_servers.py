"""nginx, Caddy and HAProxy as processes, with the files of deploy/ that operators copy."""

import asyncio
import os
import shutil
import socket
from collections.abc import Callable, Mapping
from pathlib import Path

import attrs
import pytest
from support.certificates import CertificateFiles
from support.documents import ROOT
from support.waiting import PATIENCE

HOST = "hub.example.com"  # the host in the files
DEPLOY = ROOT / "deploy"
INSTALL_HINT = "apt-get install nginx caddy haproxy slowhttptest"

NGINX_MAIN = """
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path {folder}/client_body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/hubbub.conf;
}}
"""
CADDY_GLOBAL = """
{{
    admin off
    http_port {http_port}
    https_port {port}
    default_bind 127.0.0.1
    storage file_system {folder}/storage
}}
"""
# The limits of Debian's haproxy.cfg, without its log and its accounts.
HAPROXY_MAIN = """
global
    maxconn 1000
defaults
    mode http
    timeout connect 5000
    timeout client 50000
    timeout server 50000
"""


def has_program(name: str) -> bool:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") is not None


@attrs.frozen(kw_only=True)
class Place:
    """Where a proxy runs in a test: what differs from the files of deploy/."""

    folder: Path
    hub_port: int
    http_port: int
    port: int
    certificate: CertificateFiles
    host: str = HOST


@attrs.frozen(kw_only=True)
class ProxyKind:
    """A program, its file in deploy/, and how a test runs it.

    *adapt* maps each text of the file that depends on the machine to the text for a place. *prepare* writes what else
    the program needs, and returns its arguments.
    """

    name: str
    file: Path
    adapt: Callable[[Place], Mapping[str, str]]
    prepare: Callable[[Place, Path], list[str]]

    @property
    def is_installed(self) -> bool:
        return has_program(self.name)


def _adapt_nginx(place: Place) -> dict[str, str]:
    folder = f"/etc/letsencrypt/live/{HOST}"
    return {
        "127.0.0.1:9527": f"127.0.0.1:{place.hub_port}",
        "listen 80;": f"listen 127.0.0.1:{place.http_port};",
        "listen 443 ssl http2;": f"listen 127.0.0.1:{place.port} ssl http2;",
        "    listen [::]:80;\n": "",
        "    listen [::]:443 ssl http2;\n": "",
        f"{folder}/fullchain.pem": str(place.certificate.file),
        f"{folder}/privkey.pem": str(place.certificate.key_file),
    }


def _prepare_nginx(place: Place, file: Path) -> list[str]:
    main = place.folder / "nginx.conf"
    user = "user root;" if os.geteuid() == 0 else ""  # only root can open the folder of a test of root
    main.write_text(user + NGINX_MAIN.format(folder=place.folder))
    return ["-p", str(place.folder), "-e", "stderr", "-c", str(main)]


def _adapt_caddy(place: Place) -> dict[str, str]:
    options = CADDY_GLOBAL.format(http_port=place.http_port, port=place.port, folder=place.folder).strip()
    certificate = f"tls {place.certificate.file} {place.certificate.key_file}"
    return {
        f"\n{HOST} {{": f"\n{options}\n\n{HOST} {{\n\t{certificate}",
        "127.0.0.1:9527": f"127.0.0.1:{place.hub_port}",
    }


def _prepare_caddy(place: Place, file: Path) -> list[str]:
    return ["run", "--config", str(file), "--adapter", "caddyfile"]


def _adapt_haproxy(place: Place) -> dict[str, str]:
    pem = place.folder / "haproxy.pem"
    pem.write_bytes(place.certificate.file.read_bytes() + place.certificate.key_file.read_bytes())
    return {
        "bind :80": f"bind 127.0.0.1:{place.http_port}",
        "bind :443": f"bind 127.0.0.1:{place.port}",
        "/etc/haproxy/hubbub.pem": str(pem),
        "127.0.0.1:9527": f"127.0.0.1:{place.hub_port}",
    }


def _prepare_haproxy(place: Place, file: Path) -> list[str]:
    main = place.folder / "haproxy.cfg"
    main.write_text(HAPROXY_MAIN)
    return ["-db", "-f", str(main), "-f", str(file)]


NGINX = ProxyKind(name="nginx", file=DEPLOY / "nginx" / "hubbub.conf", adapt=_adapt_nginx, prepare=_prepare_nginx)
CADDY = ProxyKind(name="caddy", file=DEPLOY / "caddy" / "Caddyfile", adapt=_adapt_caddy, prepare=_prepare_caddy)
HAPROXY = ProxyKind(
    name="haproxy", file=DEPLOY / "haproxy" / "hubbub.cfg", adapt=_adapt_haproxy, prepare=_prepare_haproxy
)
KINDS = (NGINX, CADDY, HAPROXY)
# Edits of each file that make the proxy collect a response before it passes the response on.
BUFFERS: dict[str, Mapping[str, str]] = {
    "nginx": {"proxy_buffering off;": "proxy_buffering on; proxy_ignore_headers X-Accel-Buffering;"},
    "caddy": {"header_up -Forwarded": "header_up -Forwarded\n\t\tbuffer_responses\n\t\tmax_buffer_size 1MB"},
    "haproxy": {"    # A request may wait": "    http-response wait-for-body time 60s\n    # A request may wait"},
}


def needs_proxy(kind: ProxyKind) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not kind.is_installed, reason=f"no {kind.name} here: {INSTALL_HINT}")


each_proxy = pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=needs_proxy(kind), id=kind.name) for kind in KINDS]
)


def write_file(kind: ProxyKind, place: Place, edits: Mapping[str, str]) -> Path:
    """Write the file of deploy/ with *edits*, and for a place. Each text that is replaced must be in the file."""
    text = kind.file.read_text()
    for old, new in [*edits.items(), *kind.adapt(place).items()]:
        assert old in text, f"{old!r} is not in {kind.file}"
        text = text.replace(old, new)
    path = place.folder / kind.file.name
    path.write_text(text.replace(HOST, place.host))
    return path


@attrs.define(eq=False)
class ProxyServer:
    """The process of a proxy."""

    process: asyncio.subprocess.Process
    output: bytearray = attrs.Factory(bytearray)
    _reader: asyncio.Task[None] | None = None

    @classmethod
    async def start(cls, kind: ProxyKind, place: Place, edits: Mapping[str, str]) -> "ProxyServer":
        """Start a proxy, and wait until it listens."""
        process = await asyncio.create_subprocess_exec(
            *(kind.name, *kind.prepare(place, write_file(kind, place, edits))),
            cwd=place.folder,
            env={**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin", "HOME": str(place.folder)},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        server = cls(process)
        server._reader = asyncio.create_task(server._read())
        async with asyncio.timeout(PATIENCE):
            while not await _is_open(place.port):
                assert process.returncode is None, server.output.decode()
                await asyncio.sleep(0.02)
        return server

    async def _read(self) -> None:
        assert self.process.stdout is not None
        while data := await self.process.stdout.read(1 << 16):
            self.output += data

    async def stop(self) -> None:
        assert self._reader is not None
        if self.process.returncode is None:
            self.process.terminate()
        async with asyncio.timeout(PATIENCE):
            await self.process.wait()
            await self._reader


async def _is_open(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.transport.abort()
    return True


def find_free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [sock.getsockname()[1] for sock in sockets]
    for sock in sockets:
        sock.close()
    return ports
