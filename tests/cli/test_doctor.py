"""`hubbub doctor` names what is wrong, each with the line that fixes it."""

import asyncio
import json
import os
import re
import shlex
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import attrs
import pytest
from support.certificates import CertificateFiles, make_certificate, sign_again
from support.doctor import Report, examine, read_report
from support.documents import ROOT
from support.process import CommandOutput, HubProcess, make_environment, run_hubbub
from yarl import URL

from hub.cli.doctor.certificate_checks import check_certificate, check_public_certificate
from hub.cli.doctor.findings import Finding
from hub.cli.doctor.folder_checks import find_disk_kind
from hub.cli.doctor.machine import compare_descriptors
from hub.cli.doctor.setting_checks import check_settings
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


@pytest.mark.exact
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


@pytest.mark.exact
@pytest.mark.skipif(os.name == "nt" or os.geteuid() != 0, reason="only root can run a command as another account")
async def test_a_data_folder_that_cannot_be_made_is_found(open_folder: Path) -> None:
    """The remedy makes it, and leaves the folder above to its owner."""
    finding = (await examine_as_nobody(open_folder)).find("cannot make the data folder data")
    command = finding.remedy.removeprefix("sudo ")
    subprocess.run(command, shell=True, check=True, env=os.environ | {"USER": "nobody"})
    assert "data folder data is private" in str(await examine_as_nobody(open_folder))
    assert open_folder.stat().st_uid == 0


# --- the machine ------------------------------------------------------------------------------------------------------


async def test_the_wheel_of_the_client_beside_the_hub_is_found(folder: Path, tmp_path: Path) -> None:
    """Both have the package `hub`. The remedy installs the hub again, because pip removes shared files."""
    info = tmp_path / "packages" / "hubbub_client-0.1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: hubbub-client\nVersion: 0.1.0\n")
    report = await examine(folder, PYTHONPATH=os.pathsep.join((str(info.parent), str(ROOT))))
    finding = report.find("hubbub-client is in the same environment as Hubbub")
    assert finding.level == "wrong" and "pip uninstall hubbub-client" in finding.remedy
    assert "--force-reinstall" in finding.remedy


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
    """The line that fixes it is a shell command. Of a running hub, its own limit counts."""
    assert (await examine_with_few_descriptors(folder)).find("300 files at a time").remedy.startswith("ulimit -n 5200 ")
    process = HubProcess(folder)
    try:
        await process.start(sign_in="true")
        assert "300 files" not in str(await examine_with_few_descriptors(folder))
    finally:
        await process.kill()


async def examine_with_few_descriptors(folder: Path) -> Report:
    command = f"ulimit -n 300; exec {shlex.quote(sys.executable)} -m hub doctor"
    process = await asyncio.create_subprocess_exec(
        *("sh", "-c", command),
        cwd=folder,
        env=make_environment(HUBBUB_SIGN_IN="true"),
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate()
    assert process.returncode is not None
    return read_report(CommandOutput(process.returncode, out.decode(), ""))


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


async def test_settings_that_stop_the_start_are_wrong(folder: Path) -> None:
    """With the line of `hubbub serve`."""
    token_settings = {"HUBBUB_JWT_ISSUER": "a", "HUBBUB_JWT_AUDIENCE": "b"}
    for variables, problem in (
        (
            {**token_settings, "HUBBUB_JWT_KEYS": "no/file"},
            "no/file cannot be used: No such file or directory",
        ),
        ({**token_settings, "HUBBUB_JWT_KEYS": "http://a.example"}, "jwt_keys"),
        ({"HUBBUB_BASE_PATH": "/api"}, "base_path"),
        ({"HUBBUB_LOG": "foo://x"}, "foo"),
        ({"HUBBUB_OTEL": "true", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "OTEL_EXPORTER_OTLP_PROTOCOL is grpc"),
    ):
        (text,) = (await examine(folder, **variables)).problems
        assert problem in text


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no modes: run it on Linux or macOS")
async def test_agents_that_others_can_change_are_found(folder: Path) -> None:
    """The remedy fixes it."""
    (folder / "agents" / "echo.py").chmod(0o666)
    finding = (await examine(folder)).find("other accounts can change agents/echo.py")
    subprocess.run(finding.remedy, shell=True, check=True, cwd=folder)
    assert (await examine(folder)).problems == []


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no modes: run it on Linux or macOS")
async def test_a_secret_that_others_can_read_is_found(folder: Path) -> None:
    """In .env, and in hubbub.toml. The remedy fixes it."""
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
        (13.5, "wrong", "expires in 13.5 days: after that, nobody can connect"),
        (-0.5, "wrong", "certificate has expired"),
    ):
        sign_again(files, days)
        finding = check_files(files)
        assert finding.level == level and fragment in finding.text


def test_a_short_certificate_is_sound_in_its_first_hours(tmp_path: Path) -> None:
    """The authority of Caddy itself makes such ones, for 12 hours."""
    files = make_certificate(tmp_path)
    sign_again(files, 0.42, total_days=0.5)
    finding = check_files(files)
    assert finding.level == "ok" and "is valid for 0.4 days" in finding.text


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
        (finding,) = await asyncio.to_thread(lambda: [*check_public_certificate(URL(url))])
    assert finding.level == "wrong" and "the certificate of localhost expires in 5.0 days" in finding.text


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
    """The remedy fixes it."""
    data = used_folder / "data"
    data.chmod(0o755)
    for file in data.glob("hub.db*"):
        file.chmod(0o644)
    report = await examine(used_folder)
    finding = report.find("other accounts can read the data of the hub")
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


@pytest.mark.skipif(os.name == "nt" or os.geteuid() != 0, reason="only root can change the owner of a folder")
async def test_the_data_folder_of_another_account_is_found(used_folder: Path) -> None:
    os.chown(used_folder / "data", 65534, -1)
    finding = (await examine(used_folder)).find("belongs to")
    assert re.fullmatch(r"sudo -u \w+ hubbub doctor", finding.remedy)
