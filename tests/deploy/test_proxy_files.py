"""The files of proxies in deploy/ fit the limits of the hub. tests/proxies runs them with the proxies."""

import re
from pathlib import Path

import pytest
from support.certificates import CertificateFiles
from support.documents import DOCS, ROOT
from support.proxy_servers import CADDY, HAPROXY, HOST, KINDS, NGINX, Place, ProxyKind, write_file

from hub.limits import Limits
from hub.settings import Settings

UNITS = {"s": 1, "m": 60}
BELIEVED_HEADERS = {"Forwarded", "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host"}


def find_seconds(kind: ProxyKind, option: str) -> int:
    """Return the only value of an option."""
    (match,) = re.findall(rf"\b{option} (\d+)([sm])\b", kind.file.read_text())
    return int(match[0]) * UNITS[match[1]]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_the_page_names_the_file(kind: ProxyKind) -> None:
    assert f"`{kind.file.relative_to(ROOT)}`" in DOCS["operations"].read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_the_file_names_the_host_and_the_address_of_the_hub(kind: ProxyKind, tmp_path: Path) -> None:
    """And all that a test changes before it runs the file."""
    text = kind.file.read_text()
    assert text.count(f"127.0.0.1:{Settings().port}") == 1 and (HOST in text or kind is HAPROXY)
    certificate = CertificateFiles(tmp_path / "a.pem", tmp_path / "a.key")
    for path in (certificate.file, certificate.key_file):
        path.touch()
    place = Place(folder=tmp_path, hub_port=1234, http_port=2345, port=3456, certificate=certificate)
    assert "127.0.0.1:1234" in write_file(kind, place, {}).read_text()


@pytest.mark.parametrize(
    ("kind", "option"), [(NGINX, "keepalive_timeout"), (CADDY, "keepalive"), (HAPROXY, "pool-purge-delay")]
)
def test_the_proxy_closes_an_idle_connection_before_the_hub_does(kind: ProxyKind, option: str) -> None:
    """HAProxy needs twice the time, because it closes half of the connections each time."""
    assert 2 * find_seconds(kind, option) <= Limits().header_seconds


@pytest.mark.parametrize(("kind", "option"), [(NGINX, "proxy_read_timeout"), (HAPROXY, "timeout server")])
def test_the_proxy_waits_for_the_longest_answer(kind: ProxyKind, option: str) -> None:
    assert find_seconds(kind, option) > Limits().run_seconds + Limits().grace_seconds


def test_the_proxy_keeps_a_socket_between_two_pings() -> None:
    assert find_seconds(HAPROXY, "timeout tunnel") > Limits().ping_seconds + Limits().pong_seconds


@pytest.mark.parametrize("kind", (NGINX, HAPROXY), ids=lambda kind: kind.name)
def test_the_proxy_sets_or_removes_each_header_that_the_hub_believes(kind: ProxyKind) -> None:
    """Else a client could write it."""
    headers = re.findall(r"(?:proxy_set_header|(?:set|del)-header) (\S+)", kind.file.read_text())
    assert BELIEVED_HEADERS <= {*headers}
