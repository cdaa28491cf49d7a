"""`hubbub doctor --url` through nginx, Caddy and HAProxy."""

import json
import re
from pathlib import Path

import pytest
from support.process import run_hubbub
from support.proxy_servers import CADDY, HAPROXY, NGINX, ProxyKind, each_proxy, needs_proxy
from support.sites import Site, open_site

from hub.cli.doctor.findings import Finding
from hub.cli.doctor.proxy_lines import NAMES

HOST = "localhost"  # a name that the doctor can resolve
# The lines of each file that the doctor must find again: between these two texts.
LINES = {
    "nginx": ("proxy_pass http://hubbub;\n", "    }\n}"),
    "caddy": ("reverse_proxy 127.0.0.1:9527 {\n", "\t}\n}"),
    "haproxy": ("unless { ssl_fc }\n", "    default_backend"),
}
MAX_ROUNDS = 3  # uploads are tried when the requests are accepted


async def examine(site: Site) -> list[Finding]:
    """Run the doctor with the settings of the hub, and return what it finds."""
    variables = {f"HUBBUB_{name.upper()}": value for name, value in site.settings.items()}
    certificate = site.place.certificate.file
    output = await run_hubbub(
        site.hub.folder, "doctor", "--json", "--url", site.url, **variables, SSL_CERT_FILE=certificate
    )
    report = json.loads(output.out)
    assert output.code == bool(report["problems"]), output
    return [Finding(**fields) for fields in report["findings"]]


def wrong_texts(findings: list[Finding]) -> list[str]:
    return [finding.text for finding in findings if finding.level == "wrong"]


@each_proxy
async def test_the_doctor_finds_nothing_wrong_with_the_file(kind: ProxyKind, tmp_path: Path) -> None:
    async with open_site(tmp_path, kind, host=HOST) as site:
        findings = await examine(site)
    assert wrong_texts(findings) == []
    assert any("messages arrive" in finding.text for finding in findings)


def read_lines(kind: ProxyKind) -> str:
    before, after = LINES[kind.name]
    return kind.file.read_text().partition(before)[2].partition(after)[0]


def find_mending_lines(kind: ProxyKind, findings: list[Finding]) -> dict[str, None]:
    """Return the lines that the doctor wants to have in the settings of the proxy."""
    lines: dict[str, None] = {}
    for finding in findings:
        for line in finding.remedy.splitlines() if finding.level == "wrong" else ():
            if line.startswith(f"in {NAMES[kind.name]}: "):
                text = line.partition(": ")[2]
                lines |= dict.fromkeys(re.findall(r"[^;]+;", text) if kind is NGINX else [text])
    return lines


@each_proxy
async def test_the_lines_of_the_doctor_mend_a_bare_proxy(kind: ProxyKind, tmp_path: Path) -> None:
    """All that it finds, in a few rounds."""
    lines: dict[str, None] = {}
    for number in range(MAX_ROUNDS):
        folder = tmp_path / str(number)
        folder.mkdir()
        edits = {read_lines(kind): "".join(f"{line.strip()}\n" for line in lines)}
        async with open_site(folder, kind, edits, host=HOST) as site:
            findings = await examine(site)
        if not wrong_texts(findings):
            break
        new_lines = find_mending_lines(kind, findings)
        assert new_lines.keys() - lines.keys(), findings
        lines |= new_lines
    assert wrong_texts(findings) == [] and lines


HAPROXY_LINE = "http-response del-header X-Hubbub-Echo"
CADDY_ENCODE = "\tencode {\n\t\tgzip\n\t\tminimum_length 1\n\t}\n"
ANSWER_MISTAKES = [
    (HAPROXY, {"backend hubbub\n": f"backend hubbub\n    {HAPROXY_LINE}\n"}, "headers of the hub's", "del-header"),
    (
        NGINX,
        {"proxy_buffering off;": "proxy_ignore_headers X-Accel-Buffering;"},
        "are buffered",
        "proxy_buffering off;",
    ),
    (NGINX, {"proxy_buffering off;": "gzip on; gzip_types text/event-stream;"}, "compresses streams", "gzip off;"),
    (CADDY, {"\treverse_proxy": f"{CADDY_ENCODE}\treverse_proxy"}, "compresses streams (gzip)", "encode @page gzip"),
    (NGINX, {"proxy_request_buffering off;": ""}, "the proxy stores it first", "proxy_request_buffering off;"),
]


@pytest.mark.parametrize(
    ("kind", "edits", "fragment", "remedy"),
    [pytest.param(*mistake, marks=needs_proxy(mistake[0])) for mistake in ANSWER_MISTAKES],
)
async def test_changed_answers_and_bodies_are_found(
    kind: ProxyKind, edits: dict[str, str], fragment: str, remedy: str, tmp_path: Path
) -> None:
    """If the proxy names itself, with the line for this proxy alone."""
    async with open_site(tmp_path, kind, edits, host=HOST) as site:
        findings = await examine(site)
    (finding,) = [finding for finding in findings if fragment in finding.text]
    names = [NAMES[kind.name]] if kind is not HAPROXY else list(NAMES.values())
    assert [line.partition(": ")[0] for line in finding.remedy.splitlines()] == [f"in {name}" for name in names]
    assert remedy in finding.remedy


@needs_proxy(NGINX)
async def test_a_path_is_examined(tmp_path: Path) -> None:
    """Which nginx removes."""
    edits = {"location / {": "location /hubbub/ {", "proxy_pass http://hubbub;": "proxy_pass http://hubbub/;"}
    async with open_site(tmp_path, NGINX, edits, host=HOST, base_path="/hubbub") as site:
        assert site.url.endswith("/hubbub") and wrong_texts(await examine(site)) == []
