"""`hubbub settings`, the flags of `hubbub serve`, and --config."""

import json
import re
from pathlib import Path

from support.process import CommandOutput, HubProcess, run_hubbub

from hub.cli.setting_options import SETTING_GROUPS
from hub.setting_sources import LIMIT_TYPES, SETTING_TYPES, flag_name
from hub.settings import Secret, Settings, Switch

# The values of the settings for which a number is none.
SAMPLES = {
    "origins": "https://a.example",
    "trusted_proxies": "10.0.0.1",
    "public_url": "https://a.example",
    "base_path": "/hubbub",
    "session_access": "team",
    "new_user_role": "guest",
    "log_level": "debug",
    "log_format": "json",
}
SECRET = "0123456789abcdef0123456789abcdef"


def test_each_setting_is_in_one_group_of_the_help() -> None:
    """A new setting without a flag fails this test."""
    names = [name for group in SETTING_GROUPS.values() for name in group]
    assert sorted(names) == sorted(SETTING_TYPES)


async def test_the_help_of_serve_has_each_setting_with_its_default(tmp_path: Path) -> None:
    """In sections."""
    output = await run_hubbub(tmp_path, "serve", "--help")
    assert output.code == 0
    for group in (*SETTING_GROUPS, "Limits", "Other options"):
        assert f"\n{group}:\n" in output.out
    words = " ".join(output.out.split())
    assert all(f"{flag_name(name)} " in words for name in SETTING_TYPES)
    assert "--retention-days N How many days the events of ended answers stay (7.0)." in words
    assert "--sign-in / --no-sign-in Require sign-in (off)." in words
    assert "--session-access private|team" in words


async def test_settings_shows_each_value_and_its_origin(tmp_path: Path) -> None:
    """From all sources. A secret is hidden, and so is the password in an address."""
    (tmp_path / "my.toml").write_text("[hubbub]\nport = 7\nlog = 'x://ann:pw@db'\n[limits]\nqueued_runs = 5\n")
    (tmp_path / ".env").write_text(f"HUBBUB_JWT_SECRET={SECRET}\nHUBBUB_HOST=ignored\n")
    flags = ("--config", "my.toml", "--jwt-issuer", "i", "--jwt-audience", "a", "--no-guests")
    output = await run_hubbub(tmp_path, "settings", *flags, HUBBUB_HOST="127.0.0.1")
    assert output.code == 0 and SECRET not in output.out and "pw" not in output.out
    rows = {
        cells[0]: cells[1:] for cells in (re.split(r"\s*│\s*", line.strip("│ ")) for line in output.out.split("\n"))
    }
    assert rows["port"] == ["7", "file my.toml"]
    assert rows["log"] == ["x://db", "file my.toml"]
    assert rows["limits.queued_runs"] == ["5", "file my.toml"]
    assert rows["host"] == ["127.0.0.1", "environment HUBBUB_HOST"]
    assert rows["jwt_secret"] == ["(hidden)", ".env HUBBUB_JWT_SECRET"]
    assert rows["guests"] == ["false", "flag --guests"]
    assert rows["hosts"] == ["-", "default"] and rows["data"] == ["data", "default"]
    assert rows.keys() >= {*SETTING_TYPES, *(f"limits.{name}" for name in LIMIT_TYPES)}


async def test_the_output_in_a_pipe_has_a_line_for_each_setting(tmp_path: Path) -> None:
    """However long its value is. COLUMNS sets another width."""
    hosts = ",".join(f"hub-{number}.example.com" for number in range(20))
    output = await run_hubbub(tmp_path, "settings", HUBBUB_HOSTS=hosts, COLUMNS="")
    (line,) = [line for line in output.out.splitlines() if "│ hosts " in line]
    assert hosts.replace(",", ", ") in line
    narrow = await run_hubbub(tmp_path, "settings", HUBBUB_HOSTS=hosts, COLUMNS="80")
    assert max(map(len, narrow.out.splitlines())) == 80


async def test_settings_are_checked_without_output(tmp_path: Path) -> None:
    """Wrong ones, and a certificate that cannot be used, are one line, with exit code 2."""
    assert await run_hubbub(tmp_path, "settings", "--check") == CommandOutput(0, "", "")
    (tmp_path / "hubbub.toml").write_text("[hubbub]\nlog_level = 'loud'\n")
    output = await run_hubbub(tmp_path, "settings", "--check")
    assert (output.code, output.out) == (2, "") and "log_level" in output.err and output.err.count("\n") == 1
    (tmp_path / "hubbub.toml").write_text("[hubbub]\ntls_certificate = 'no.pem'\ntls_key = 'no.pem'\n")
    output = await run_hubbub(tmp_path, "settings", "--check")
    assert (output.code, output.err) == (
        2,
        f"hubbub: tls_certificate: {tmp_path}/no.pem cannot be read: No such file or directory\n",
    )


async def test_each_setting_has_a_flag_that_sets_it(tmp_path: Path) -> None:
    """All of them at once, but for `jwt_secret`, which excludes `jwt_keys`."""
    flags: list[str] = []
    for name, kind in [(name, kind) for name, kind in SETTING_TYPES.items() if kind is not Secret]:
        if kind is Switch:
            flag = flag_name(name)
            flags.append(flag if not getattr(Settings(), name) else f"--no-{flag.removeprefix('--')}")
        else:
            flags += [flag_name(name), SAMPLES.get(name, "11")]
    output = await run_hubbub(tmp_path, "settings", "--json", *flags)
    assert output.code == 0, output.err
    values = json.loads(output.out)["hubbub"]
    assert {name for name, row in values.items() if row["source"] != "flag"} == {"jwt_secret"}
    defaults = json.loads((await run_hubbub(tmp_path, "settings", "--json")).out)["hubbub"]
    assert {name for name, row in values.items() if row["value"] == defaults[name]["value"]} == {"jwt_secret"}


async def test_settings_writes_json_for_programs(tmp_path: Path) -> None:
    """A program reads the values with their types."""
    output = await run_hubbub(
        *(tmp_path, "settings", "--json", "--hosts", "a.example,b.example", "--limit", "queued_runs=5"),
        HUBBUB_JWT_SECRET=SECRET,
        HUBBUB_JWT_ISSUER="i",
        HUBBUB_JWT_AUDIENCE="a",
    )
    tables = json.loads(output.out)
    assert tables["hubbub"].keys() == SETTING_TYPES.keys() and tables["limits"].keys() == LIMIT_TYPES.keys()
    assert tables["hubbub"]["hosts"] == {"value": ["a.example", "b.example"], "source": "flag", "name": "--hosts"}
    assert tables["hubbub"]["retention_days"] == {"value": 7.0, "source": "default", "name": None}
    assert tables["limits"]["queued_runs"] == {"value": 5, "source": "flag", "name": "--limit"}
    secret = {"value": None, "source": "environment", "name": "HUBBUB_JWT_SECRET", "isHidden": True}
    assert tables["hubbub"]["jwt_secret"] == secret and SECRET not in output.out


async def test_wrong_settings_are_one_line(tmp_path: Path) -> None:
    """With exit code 2."""
    output = await run_hubbub(tmp_path, "settings", "--config", "no.toml")
    assert (output.code, output.out) == (2, "")
    assert output.err == "hubbub: no.toml cannot be read: No such file or directory\n"


async def test_every_command_takes_config(tmp_path: Path) -> None:
    """After its name, and before."""
    (tmp_path / "my.toml").write_text("[hubbub]\nagents = 'birds'\ndata = 'kept'\nport = 1\n")
    (tmp_path / "birds").mkdir()
    for arguments in (("agents", "--config", "my.toml"), ("--config", "my.toml", "agents")):
        assert (await run_hubbub(tmp_path, *arguments)).out == "no agents here yet\n"
    assert (await run_hubbub(tmp_path, "agents", HUBBUB_CONFIG="my.toml")).out == "no agents here yet\n"
    assert "kept" in (await run_hubbub(tmp_path, "check", "--config", "my.toml")).err
    assert "kept" in (await run_hubbub(tmp_path, "key", "list", "--config", "my.toml")).err
    assert "http://localhost:1" in (await run_hubbub(tmp_path, "sessions", "--config", "my.toml")).err


async def test_a_hub_starts_with_the_variables_of_kubernetes(tmp_path: Path) -> None:
    """One line of its output names them."""
    hub = HubProcess(tmp_path)
    await hub.start(service_host="10.0.0.1", port_9527_tcp_port="9527", service_port="9527")
    await hub.kill()
    (line,) = [line for line in hub.output_lines if "variables ignored" in line]
    assert "HUBBUB_PORT_9527_TCP_PORT, HUBBUB_SERVICE_HOST, HUBBUB_SERVICE_PORT" in line
