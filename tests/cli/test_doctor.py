"""`hubbub doctor` names what must be mended, each with the line that mends it."""

import asyncio
import json
import os
import re
import shlex
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import aiohttp
import attrs
import pytest
from support.certificates import CertificateFiles, make_certificate, sign_again
from support.http_proxy import HttpProxy, run_http_proxy
from support.process import CommandOutput, HubProcess, make_environment, run_hubbub

from hub.cli.doctor.certificate_checks import check_certificate, check_public_certificate
from hub.cli.doctor.findings import Finding
from hub.cli.doctor.folder_checks import find_disk_kind
from hub.cli.doctor.machine import compare_descriptors
from hub.cli.doctor.proxy_checks import check_proxy
from hub.cli.doctor.setting_checks import check_settings
from hub.limits import Limits
from hub.setting_sources import SettingSources
from hub.settings import Settings
from hub.web.certificate import make_context

ECHO = "def echo(message):\n    yield message\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with one agent that works."""
    (tmp_path / "agents").mkdir()
    (tmp_path / "agents" / "echo.py").write_text(ECHO)
    return tmp_path


@attrs.frozen
class Report:
    """The output of the doctor: its findings, and its exit code."""

    code: int
    findings: tuple[Finding, ...]

    def find(self, fragment: str) -> Finding:
        """Return the finding whose text has *fragment*."""
        (finding,) = [finding for finding in self.findings if fragment in finding.text]
        return finding

    @property
    def problems(self) -> list[str]:
        return [finding.text for finding in self.findings if finding.level == "wrong"]


def read_report(output: CommandOutput) -> Report:
    findings: list[Finding] = []
    for line in output.out.splitlines()[:-1]:
        level, _, text = line.partition(" ")
        if line.startswith("        -> "):
            remedy = "\n".join(filter(None, [findings[-1].remedy, line.removeprefix("        -> ")]))
            findings[-1] = attrs.evolve(findings[-1], remedy=remedy)
        else:
            findings.append(Finding(level, text.strip()))  # type: ignore[arg-type]
    report = Report(output.code, tuple(findings))
    assert (output.code, output.err) == (1 if report.problems else 0, ""), output
    assert output.out.splitlines()[-1] == (f"{len(report.problems)} to mend" if report.problems else END)
    return report


END = "nothing must be mended"


async def examine(folder: Path, *arguments: str, **variables: Any) -> Report:
    return read_report(await run_hubbub(folder, "doctor", *arguments, **variables))


# --- the output -------------------------------------------------------------------------------------------------------


async def test_the_report_can_be_json(folder: Path) -> None:
    """And nothing else is in the output, although an agent prints."""
    (folder / "agents" / "loud.py").write_text("print('canary')\ndef loud(message):\n    yield message\n")
    (folder / "agents" / "bad.py").write_text("import nothing_like_this\n")
    output = await run_hubbub(folder, "doctor", "--json")
    report = json.loads(output.out)
    assert (output.code, report["problems"]) == (1, 1)
    (finding,) = [finding for finding in report["findings"] if finding["level"] == "wrong"]
    assert "agent bad is broken" in finding["text"] and finding["remedy"]


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that other accounts can enter."""
    with TemporaryDirectory(prefix="hubbub-") as name:
        path = Path(name)
        path.chmod(0o755)
        (path / "agents").mkdir()
        (path / "agents" / "echo.py").write_text(ECHO)
        yield path


async def examine_as_nobody(folder: Path, *arguments: str) -> Report:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "hub", "doctor", *arguments),
        cwd=folder,
        env=make_environment(),
        user=65534,
        group=65534,
        extra_groups=[],
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode is not None
    return read_report(CommandOutput(process.returncode, out.decode(), err.decode()))


@pytest.mark.skipif(os.name == "nt" or os.geteuid() != 0, reason="only root can run a command as another account")
@pytest.mark.parametrize("is_running", [False, True], ids=["stopped", "running"])
async def test_another_account_gets_lines_and_no_traceback(open_folder: Path, is_running: bool) -> None:
    """It can read neither the data nor the control socket. The remedy names the account of the hub."""
    process = HubProcess(open_folder)
    try:
        await process.start()
        if not is_running:
            await process.kill()
        for arguments in ([], ["--url", process.url]):
            report = await examine_as_nobody(open_folder, *arguments)
            assert report.code == 1
            assert report.find("belongs to the account root").remedy == "sudo -u root hubbub doctor"
    finally:
        await process.kill()


# --- the machine ------------------------------------------------------------------------------------------------------


async def test_a_sound_hub_needs_nothing(folder: Path) -> None:
    """Before its first start, and while it runs. Advice does not change the exit code."""
    report = await examine(folder)
    assert report.problems == [] and report.find("agents: echo").level == "ok"
    assert report.find("the first start makes it") and report.find("no hub runs")
    process = HubProcess(folder)
    try:
        await process.start()
        report = await examine(folder)
    finally:
        await process.kill()
    assert report.problems == []
    assert report.find("a hub runs on this data folder") and report.find("the log has no damage")


async def test_missing_extensions_of_aiohttp_are_found(folder: Path) -> None:
    report = await examine(folder, AIOHTTP_NO_EXTENSIONS="1")
    assert report.find("without its C extensions").remedy == "unset AIOHTTP_NO_EXTENSIONS"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit: run it on Linux or macOS")
async def test_too_few_file_descriptors_are_found(folder: Path) -> None:
    """The line that mends it is a command of the shell."""
    command = f"ulimit -n 300; exec {shlex.quote(sys.executable)} -m hub doctor"
    process = await asyncio.create_subprocess_exec(
        *("sh", "-c", command),
        cwd=folder,
        env=make_environment(HUBBUB_SIGN_IN="true"),
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate()
    assert process.returncode == 1
    report = read_report(CommandOutput(process.returncode, out.decode(), ""))
    finding = report.find("300 files at a time")
    assert finding.level == "wrong" and finding.remedy.startswith("ulimit -n 5200 ")


def test_the_limit_of_descriptors_must_fit_the_connections() -> None:
    """Without sign-in, only this machine connects, so it is advice."""
    signed = Settings(sign_in=True)
    assert [*compare_descriptors(signed, 5200, "x")] == [] == [*compare_descriptors(Settings(), 1024, "x")]
    assert [finding.level for finding in compare_descriptors(signed, 5199, "x")] == ["wrong"]
    assert [finding.level for finding in compare_descriptors(Settings(), 1023, "x")] == ["advice"]
    assert [*compare_descriptors(signed, -1, "x")] == []  # no limit


# --- settings ---------------------------------------------------------------------------------------------------------

SECRET = "0123456789abcdef" * 4
SIGN_IN: dict[str, Any] = {"sign_in": True}
BEHIND_PROXY = SIGN_IN | {"public_url": "https://hub.example.com", "trusted_proxies": "127.0.0.1, ::1"}


def check(flags: dict[str, Any], folder: Path = Path()) -> list[Finding]:
    """Return the problems and the advice for settings."""
    loaded_settings = SettingSources(flags=flags, folder=folder).load()
    return [finding for finding in check_settings(loaded_settings) if finding.level != "ok"]


@pytest.mark.parametrize(
    ("flags", "fragment", "remedy"),
    [
        ({"host": "0.0.0.0"}, "would open the hub to the network", "sign_in = true"),
        ({"trusted_proxies": "127.0.0.1"}, "sign-in is off", "sign_in = true"),
        (BEHIND_PROXY | {"trusted_proxies": "0.0.0.0/0"}, "can claim any client address", 'trusted_proxies = ["AD'),
        (BEHIND_PROXY | {"trusted_proxies": "::/0"}, "can claim any client address", 'trusted_proxies = ["AD'),
        (SIGN_IN | {"public_url": "https://hub.example.com"}, "no proxy is trusted", "trusted_proxies = ["),
        (SIGN_IN | {"public_url": "http://hub.example.com"}, "over https only", 'public_url = "https://hub.example'),
        (SIGN_IN | {"host": "0.0.0.0"}, "links for people lead to this machine", "public_url = "),
        (BEHIND_PROXY | {"public_url": "http://localhost:1"}, "browsers cannot sign in", 'public_url = "https'),
        (BEHIND_PROXY | {"user_header": "X-User", "new_user_role": "admin"}, "may do everything", "new_user_role ="),
        (BEHIND_PROXY | {"jwt_issuer": "a", "jwt_audience": "b", "jwt_keys": "no/file"}, "no file", "jwt_keys ="),
        (
            BEHIND_PROXY | {"jwt_issuer": "a", "jwt_audience": "b", "jwt_secret": SECRET},
            "other accounts of this machine can read the flags",
            "write HUBBUB_JWT_SECRET",
        ),
        (
            SIGN_IN | {"tls_certificate": "c", "tls_key": "k", "public_url": "http://localhost:1"},
            "the hub speaks https",
            'public_url = "https://localhost:1"',
        ),
    ],
)
def test_settings_that_do_not_fit_are_wrong(flags: dict[str, Any], fragment: str, remedy: str) -> None:
    """The remedy is a line of hubbub.toml. Nothing else is wrong with these settings."""
    (finding,) = [finding for finding in check(flags) if finding.level == "wrong"]
    assert fragment in finding.text and finding.remedy.startswith(remedy)


@pytest.mark.parametrize(
    ("flags", "fragment"),
    [
        (SIGN_IN | {"host": "0.0.0.0", "public_url": "http://hub.lan", "allow_http": True}, "copy the cookies"),
        (BEHIND_PROXY | {"user_header": "X-User", "host": "0.0.0.0"}, "must drop this header"),
        (BEHIND_PROXY | {"metrics_port": 9528, "metrics_host": "0.0.0.0"}, "can read the metrics"),
        (BEHIND_PROXY | {"reload": True}, "reload is on"),
        ({"log_level": "debug"}, "what people write"),
        (BEHIND_PROXY | {"origins": "null"}, "pages of any site"),
    ],
)
def test_settings_that_need_care_get_advice(flags: dict[str, Any], fragment: str) -> None:
    (finding,) = check(flags)
    assert finding.level == "advice" and fragment in finding.text and finding.remedy


@pytest.mark.parametrize(
    "flags", [{}, SIGN_IN, BEHIND_PROXY, BEHIND_PROXY | {"user_header": "X-User", "trusted_proxies": "10.1.0.0/16"}]
)
def test_settings_that_fit_get_no_advice(flags: dict[str, Any]) -> None:
    assert check(flags) == []


async def test_a_setting_that_the_hub_refuses_is_wrong(folder: Path) -> None:
    """The doctor shows the same line as `hubbub serve`."""
    (folder / "hubbub.toml").write_text('[hubbub]\nprot = 80\nsign_in = "no"\n')
    report = await examine(folder)
    assert report.code == 1
    assert report.problems == ["hubbub.toml: unknown setting 'prot': did you mean port?"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no modes: run it on Linux or macOS")
async def test_a_secret_that_others_can_read_is_found(folder: Path) -> None:
    """In .env, and in hubbub.toml. The remedy mends it."""
    (folder / "hubbub.toml").write_text(
        f'[hubbub]\njwt_issuer = "a"\njwt_audience = "b"\njwt_secret = "{SECRET}"\npublic_url = "http://localhost"\n'
    )
    (folder / ".env").write_text("OPENAI_API_KEY=sk-1\n")
    for name in ("hubbub.toml", ".env"):
        (folder / name).chmod(0o644)
    report = await examine(folder)
    for name in ("hubbub.toml", ".env"):
        remedy = report.find(f"read {name}").remedy
        subprocess.run(remedy, shell=True, check=True, cwd=folder)
    report = await examine(folder)
    assert report.problems == [] and SECRET not in str(report)


async def test_a_weak_secret_and_an_empty_key_are_found(folder: Path) -> None:
    (folder / ".env").write_text(f"HUBBUB_JWT_SECRET={'s' * 32}\nOPENAI_API_KEY=\n")
    (folder / ".env").chmod(0o600)
    (folder / "hubbub.toml").write_text('[hubbub]\njwt_issuer = "a"\njwt_audience = "b"\n')
    report = await examine(folder)
    assert report.find("jwt_secret is weak").level == "wrong"
    assert report.find("OPENAI_API_KEY in .env has no value").level == "advice"


# --- certificates -----------------------------------------------------------------------------------------------------


def check_files(files: CertificateFiles, public_url: str = "https://localhost") -> Finding:
    settings = Settings(tls_certificate=files.file, tls_key=files.key_file, public_url=public_url)
    (finding,) = check_certificate(settings)
    return finding


def test_the_end_of_a_certificate_is_found(tmp_path: Path) -> None:
    """Two weeks before it."""
    files = make_certificate(tmp_path)
    for days, level, fragment in (
        (14.5, "ok", "is valid for 14 days"),
        (13.5, "wrong", "ends in 13.5 days: after that, nobody can connect"),
        (-0.5, "wrong", "certificate has expired"),
    ):
        sign_again(files, days)
        finding = check_files(files)
        assert finding.level == level and fragment in finding.text


def test_a_certificate_that_cannot_be_used_is_found(tmp_path: Path) -> None:
    """It has another name than the hub, or another key, or does not exist."""
    files = make_certificate(tmp_path)
    assert "hub.example.com" in check_files(files, "https://hub.example.com").text
    other = make_certificate(tmp_path, "other")
    assert "is not the key" in check_files(attrs.evolve(files, key_file=other.key_file)).text
    assert "cannot be read" in check_files(attrs.evolve(files, file=tmp_path / "no.pem")).text
    assert [*check_certificate(Settings())] == []


async def test_the_certificate_of_the_public_address_is_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = make_certificate(tmp_path)
    sign_again(files, 5)
    monkeypatch.setenv("SSL_CERT_FILE", str(files.file))
    context = make_context(files.file, files.key_file)
    server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", ssl=context)
    async with server:
        url = f"https://localhost:{server.sockets[0].getsockname()[1]}"
        (finding,) = await asyncio.to_thread(lambda: [*check_public_certificate(url)])
    assert finding.level == "wrong" and "the certificate of localhost ends in 5.0 days" in finding.text


# --- the data folder and the log --------------------------------------------------------------------------------------


@pytest.fixture
async def used_folder(folder: Path) -> Path:
    """A folder with a log."""
    process = HubProcess(folder)
    await process.start()
    await process.kill()
    return folder


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no modes: run it on Linux or macOS")
async def test_a_data_folder_that_others_can_read_is_found(used_folder: Path) -> None:
    """The remedy mends it."""
    data = used_folder / "data"
    data.chmod(0o755)
    for file in data.glob("hub.db*"):
        file.chmod(0o644)
    report = await examine(used_folder)
    finding = report.find("with all messages")
    assert finding.level == "wrong" and report.code == 1
    subprocess.run(finding.remedy, shell=True, check=True, cwd=used_folder)
    report = await examine(used_folder)
    assert report.problems == []
    subprocess.run(report.find("can list the data folder").remedy, shell=True, check=True, cwd=used_folder)
    assert (await examine(used_folder)).find("data folder data is private").level == "ok"


async def test_a_file_in_the_place_of_the_data_folder_is_found(folder: Path) -> None:
    (folder / "data").write_text("")
    assert (await examine(folder)).find("is a file").level == "wrong"


async def test_a_log_of_a_newer_version_is_found(used_folder: Path) -> None:
    with closing(sqlite3.connect(used_folder / "data" / "hub.db")) as db:
        db.execute("PRAGMA user_version = 999")
    assert "newer Hubbub" in (await examine(used_folder)).problems[0]


async def test_damage_in_the_log_is_found(used_folder: Path) -> None:
    """As `hubbub check` finds it."""
    with closing(sqlite3.connect(used_folder / "data" / "hub.db")) as db, db:
        db.execute("INSERT INTO sessions (id, epoch, floor, created) VALUES ('s1', 'e', 0, 0)")
        db.execute("INSERT INTO runs (session, id, after, record) VALUES ('s1', 'r1', 0, '{')")
    finding = (await examine(used_folder)).find("damage in the log: ")
    assert "r1" in finding.text and finding.remedy.startswith("hubbub restore")


@pytest.mark.parametrize(
    ("folder_name", "kind"), [("/srv/hub/data", "nfs4"), ("/srv/h", "ext4"), ("/", "ext4"), ("/my disk/x", "cifs")]
)
def test_a_network_disk_is_recognised(tmp_path: Path, folder_name: str, kind: str) -> None:
    """By the mount point that is nearest to the folder."""
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
        "40 22 0:41 / /srv/hub rw,relatime shared:9 master:1 - nfs4 10.0.0.1:/hub rw\n"
        "41 22 0:42 / /my\\040disk rw - cifs //server/share rw\n"
    )
    assert find_disk_kind(Path(folder_name), mounts) == kind
    assert find_disk_kind(Path(folder_name), tmp_path / "nothing") == ""


# --- agents -----------------------------------------------------------------------------------------------------------


async def test_broken_agents_and_missing_packages_are_found(folder: Path) -> None:
    (folder / "agents" / "bad.py").write_text("import nothing_like_this\n")
    (folder / "agents" / "requirements.txt").write_text("no-package-like-this>=3\n")
    report = await examine(folder)
    assert report.find("agent bad is broken: ").level == "wrong"
    finding = report.find("no-package-like-this>=3")
    assert (finding.level, finding.remedy) == ("wrong", "pip install -r agents/requirements.txt")


async def test_a_missing_agents_folder_is_found(tmp_path: Path) -> None:
    assert (await examine(tmp_path)).find("no agents folder").remedy == "hubbub init"


async def test_a_missing_model_is_found(folder: Path) -> None:
    """Only if the agent `main` needs it. An endpoint takes its place."""
    (folder / "agents" / "main.toml").write_text('description = "x"\nadapter = "openai_chat"\n')
    cache = {"HUBBUB_CACHE": str(folder / "cache"), "OPENAI_API_KEY": "", "OPENAI_BASE_URL": ""}
    assert (await examine(folder, **cache)).find("has no model").level == "advice"
    report = await examine(folder, **cache | {"OPENAI_BASE_URL": "http://localhost:1/v1"})
    assert not [finding for finding in report.findings if "has no model" in finding.text]


# --- through a proxy --------------------------------------------------------------------------------------------------


@pytest.fixture
async def process(folder: Path) -> AsyncIterator[HubProcess]:
    """A hub with sign-in that trusts the proxies of this machine, and whose users a proxy names."""
    running = HubProcess(folder)
    try:
        yield await running.start(
            sign_in="true",
            public_url="http://localhost",
            trusted_proxies="127.0.0.1",
            user_header="X-User",
            limits_file_bytes=2**21,
        )
    finally:
        await running.kill()


async def try_url(process: HubProcess, url: str) -> list[Finding]:
    """Return what the doctor finds on the way of *url*."""
    settings = Settings(
        sign_in=True,
        data=process.folder / "data",
        trusted_proxies=("127.0.0.1",),
        user_header="X-User",
        limits=Limits(file_bytes=2**21),
    )
    return await asyncio.to_thread(lambda: [*check_proxy(settings, url)])


def wrongs(findings: list[Finding]) -> Iterator[str]:
    return (finding.text for finding in findings if finding.level == "wrong")


async def test_a_good_proxy_needs_nothing(process: HubProcess) -> None:
    """Each part of the way is reported."""
    async with run_http_proxy(HttpProxy(hub_port=process.port, lost_headers={"x-user"})) as url:
        findings = await try_url(process, url)
    assert [*wrongs(findings)] == []
    text = " ".join(finding.text for finding in findings)
    for part in ("arrive unchanged", "X-Forwarded-For", "the client is 127.0.0.1, over http", "cannot claim"):
        assert part in text
    for part in ("arrive at once", "WebSockets open, with the protocol hubbub.v1", "an upload of 2 MiB arrives"):
        assert part in text


async def test_the_hub_itself_is_recognised(process: HubProcess) -> None:
    """Then a forged header is not the mistake of a proxy."""
    findings = await try_url(process, process.url.replace("127.0.0.1", "localhost"))
    assert [*wrongs(findings)] == [] and "is the hub itself, without a proxy" in findings[0].text


# The options of a proxy, what is found, and the remedy: lines for nginx, Caddy and HAProxy.
MISTAKES: list[tuple[dict[str, Any], list[str], list[str]]] = [
    ({"version": "1.0", "keep_upgrade": False}, ["HTTP/1.0", "Upgrade does not arrive"], ["proxy_http_version 1.1;"]),
    ({"keep_host": False}, ["the Host localhost:"], ["proxy_set_header Host $http_host;", "remove header_up Host"]),
    ({"keep_upgrade": False}, ["no WebSocket opens"], ["proxy_set_header Upgrade $http_upgrade;", "option httpclose"]),
    (
        {"name_client": False},
        ["does not name the address of its clients"],
        [
            "X-Forwarded-For $remote_addr;",
            "header_up X-Forwarded-For {remote_host}",
            "set-header X-Forwarded-For %[src]",
        ],
    ),
    ({"scheme": "https"}, ["requests over http look like https"], ["X-Forwarded-Proto $scheme;", "if { ssl_fc }"]),
    ({"stores_responses": True}, ["are buffered"], ["proxy_buffering off;", "flush_interval -1"]),
    ({"max_body": 2**20}, ["an upload of 2 MiB does not arrive", "413"], ["client_max_body_size 3m;", "3MiB"]),
    ({"max_body": 2**19}, ["neither an upload of 2 MiB nor a message of 1 MiB"], ["client_max_body_size 3m;"]),
    ({"cuts_sockets": True}, ["closed before its first message"], ["proxy_read_timeout", "timeout tunnel"]),
    ({"lost_headers": {"authorization"}}, ["Authorization does not arrive", "keys"], ["$http_authorization;"]),
    ({"lost_headers": {"cookie"}}, ["Cookie does not arrive", "stay signed in"], ["header_up Cookie {header.Cookie}"]),
    ({"lost_headers": {"last-event-id"}}, ["Last-Event-ID does not", "cannot resume"], ["del-header Last-Event-ID"]),
    ({"lost_headers": {"idempotency-key"}}, ["Idempotency-Key does not", "twice"], ["$http_idempotency_key;"]),
    ({"lost_headers": {"origin"}}, ["the Origin http://localhost:", "as nothing"], ["Origin $http_origin;"]),
    ({"lost_headers": {"sec-websocket-protocol"}}, ["Sec-WebSocket-Protocol"], ["$http_sec_websocket_protocol;"]),
    ({"status": 502}, ["the answer has the status 502, and comes from a proxy"], ["in nginx: proxy_pass http://127."]),
    ({"status": 401}, ["the answer has the status 401"], ["let the proxy pass on /api/v1/echo"]),
    ({"keep_forwarded": True, "name_client": False}, ["claim any address", "claim any Host"], ["X-Forwarded-Host"]),
    ({"keep_forwarded": True}, ["can hide its address: the proxy passes on the Forwarded"], ['Forwarded "";']),
    ({"lost_headers": set()}, ["can sign in as any user: the proxy passes on the X-User"], ["X-User $remote_user;"]),
]


async def test_each_mistake_of_a_proxy_is_found(process: HubProcess) -> None:
    """With the lines that mend it, for each proxy."""
    places = asyncio.Semaphore(4)

    async def check_mistake(options: dict[str, Any], fragments: list[str], remedies: list[str]) -> None:
        if options.get("lost_headers") != set():
            options = options | {"lost_headers": {"x-user"} | options.get("lost_headers", set())}
        async with places, run_http_proxy(HttpProxy(hub_port=process.port, **options)) as url:
            findings = [finding for finding in await try_url(process, url) if finding.level == "wrong"]
        text, remedy = ("\n".join(getattr(finding, name) for finding in findings) for name in ("text", "remedy"))
        assert all(fragment in text for fragment in fragments), (options, findings)
        assert all(fragment in remedy for fragment in remedies), (options, findings)

    await asyncio.gather(*(check_mistake(*mistake) for mistake in MISTAKES))


async def test_a_slow_way_gets_advice(process: HubProcess) -> None:
    """Compressed streams, and bodies that the proxy stores."""
    proxy = HttpProxy(hub_port=process.port, lost_headers={"x-user"}, compresses=True, stores_bodies=True)
    async with run_http_proxy(proxy) as url:
        findings = await try_url(process, url)
    assert [*wrongs(findings)] == []
    (advice,) = [finding for finding in findings if finding.level == "advice"]
    assert "compresses streams (gzip)" in advice.text and "in nginx: gzip off;" in advice.remedy
    assert "after the proxy has stored it" in findings[-1].text and "request_buffering off;" in findings[-1].remedy


async def test_a_path_without_its_setting_is_found(process: HubProcess) -> None:
    """If the proxy removes it, and if not."""
    for prefix, fragment in (("/hubbub", "the address has the path /hubbub, but base_path is not set"), ("", "404")):
        async with run_http_proxy(HttpProxy(hub_port=process.port, prefix=prefix)) as url:
            findings = await try_url(process, f"{url.removesuffix('/hubbub')}/hubbub/")
        (finding,) = [finding for finding in findings if fragment in finding.text]
        assert (finding.level, finding.remedy) == ("wrong", 'base_path = "/hubbub"')


@pytest.mark.parametrize("prefix", ["", "/hubbub"], ids=["kept", "removed"])
async def test_a_path_with_its_setting_needs_nothing(folder: Path, prefix: str) -> None:
    variables = BEHIND_PROXY | {"public_url": "http://localhost", "base_path": "/hubbub", "allow_http": True}
    process = HubProcess(folder)
    try:
        await process.start(**variables)
        async with run_http_proxy(HttpProxy(hub_port=process.port, prefix=prefix)) as url:
            address = f"{url.removesuffix('/hubbub')}/hubbub"
            names = {f"HUBBUB_{name.upper()}": value for name, value in variables.items()}
            report = await examine(folder, "--url", address, **names | {"HUBBUB_PUBLIC_URL": url.removesuffix(prefix)})
    finally:
        await process.kill()
    assert report.problems == [] and "messages arrive" in str(report)


async def test_an_untrusted_proxy_is_found(folder: Path) -> None:
    """The remedy has its address."""
    process = HubProcess(folder)
    try:
        await process.start(sign_in="true")
        async with run_http_proxy(HttpProxy(hub_port=process.port)) as url:
            report = await examine(folder, "--url", url, HUBBUB_SIGN_IN="true")
    finally:
        await process.kill()
    assert report.find("is not trusted").remedy == 'trusted_proxies = ["127.0.0.1"]'


@pytest.mark.parametrize(
    ("sign_in", "level", "remedy"),
    [("true", "wrong", 'trusted_proxies = ["ADDRESS"]'), ("false", "wrong", "sign_in = true")],
)
async def test_a_proxy_that_the_settings_do_not_know_is_seen(
    folder: Path, sign_in: str, level: str, remedy: str
) -> None:
    """The running hub has counted its requests."""
    process = HubProcess(folder)
    try:
        await process.start(sign_in=sign_in)
        assert not (await examine(folder, HUBBUB_SIGN_IN=sign_in)).problems
        async with aiohttp.ClientSession() as http:
            async with http.get(f"{process.url}/health", headers={"X-Forwarded-For": "192.0.2.1"}) as response:
                assert response.status == (200 if sign_in == "true" else 403)
        finding = (await examine(folder, HUBBUB_SIGN_IN=sign_in)).find("1 requests came through a proxy")
    finally:
        await process.kill()
    assert finding.level == level and finding.remedy.startswith(remedy)


async def test_a_proxy_without_sign_in_is_refused(folder: Path) -> None:
    process = HubProcess(folder)
    try:
        await process.start()
        async with run_http_proxy(HttpProxy(hub_port=process.port)) as url:
            report = await examine(folder, "--url", url)
    finally:
        await process.kill()
    finding = report.find("the hub refuses requests that come through")
    assert "a proxy passed this request on (X-Forwarded-For)" in finding.text and finding.remedy == "sign_in = true"


async def test_an_address_that_cannot_be_reached_is_found(process: HubProcess) -> None:
    """In one line, without a token."""
    for url in ("ftp://localhost", "localhost:1", "http://", "http://localhost:1", "https://localhost:1"):
        (text,) = wrongs(await try_url(process, url))
        assert url in text and not re.search(r"Traceback|Error\(|hp_", text)


async def test_the_way_can_be_tried_only_with_a_running_hub(folder: Path) -> None:
    report = await examine(folder, "--url", "http://localhost:9")
    assert report.find("no hub runs on the data folder data: start it first").level == "wrong"


@pytest.mark.skipif(os.name == "nt" or os.geteuid() != 0, reason="only root can change the owner of a folder")
async def test_the_data_folder_of_another_account_is_found(used_folder: Path) -> None:
    os.chown(used_folder / "data", 65534, -1)
    finding = (await examine(used_folder)).find("belongs to")
    assert re.fullmatch(r"sudo -u \w+ hubbub doctor", finding.remedy)
