"""Settings come from several sources; each value is recorded with the one that it came from."""

from pathlib import Path

import pytest

from hub.limits import Limits
from hub.setting_sources import LIMIT_TYPES, SERVICE_VARIABLE, SETTING_TYPES, SettingOrigin, SettingSources
from hub.settings import ConfigError, Settings


def refusal(sources: SettingSources) -> str:
    """Return the message of the error of load(); it is one line."""
    with pytest.raises(ConfigError) as caught:
        sources.load()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_each_value_has_the_origin_that_won(tmp_path: Path) -> None:
    """A flag wins over the environment, the environment over .env, and .env over the file."""
    (tmp_path / "hubbub.toml").write_text("[hubbub]\nport = 1\nhost = 'a'\nlog = 'b'\nreload = true\n")
    loaded = SettingSources(
        flags={"port": "4", "host": None},
        environ={"HUBBUB_PORT": "3", "HUBBUB_HOST": "c"},
        env_file={"HUBBUB_PORT": "2", "HUBBUB_HOST": "d", "HUBBUB_LOG": "e"},
        folder=tmp_path,
    ).load()
    assert loaded.settings == Settings(port=4, host="c", log="e", reload=True)
    origins = {name: loaded.get_origin("hubbub", name) for name in ("port", "host", "log", "reload", "data")}
    assert origins == {
        "port": SettingOrigin("flag", "--port"),
        "host": SettingOrigin("environment", "HUBBUB_HOST"),
        "log": SettingOrigin(".env", "HUBBUB_LOG"),
        "reload": SettingOrigin("file", "hubbub.toml"),
        "data": SettingOrigin("default", ""),
    }


def test_an_error_names_env_if_the_value_is_there(tmp_path: Path) -> None:
    """A reader looks into the right place at once."""
    assert refusal(SettingSources(env_file={"HUBBUB_PORT": "x"}, folder=tmp_path)).startswith(
        "HUBBUB_PORT in .env must"
    )
    assert refusal(SettingSources(env_file={"HUBBUB_PROT": "1"}, folder=tmp_path)).startswith(
        "unknown variable HUBBUB_PROT in .env: did you mean HUBBUB_PORT?"
    )


@pytest.mark.parametrize("source", ["file", "environ", "env_file"])
def test_the_settings_file_may_be_anywhere(tmp_path: Path, source: str) -> None:
    """A flag or a variable names it; hubbub.toml of the current folder is then not read. Relative paths do not move."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "hub.toml").write_text("[hubbub]\nport = 7\ndata = 'data'\n[limits]\nqueued_runs = 5\n")
    (tmp_path / "hubbub.toml").write_text("[hubbub]\nport = 1\nhost = 'elsewhere'\n")
    file = "etc/hub.toml"
    options = {"file": Path(file)} if source == "file" else {source: {"HUBBUB_CONFIG": file}}
    loaded = SettingSources(folder=tmp_path, **options).load()
    assert loaded.settings == Settings(port=7, data=Path("data"), limits=Limits(queued_runs=5))
    assert loaded.get_origin("limits", "queued_runs") == SettingOrigin("file", file)


def test_a_named_settings_file_must_exist(tmp_path: Path) -> None:
    """Only hubbub.toml may be missing. Errors in a file have its name."""
    sources = SettingSources(file=Path("no.toml"), folder=tmp_path)
    assert refusal(sources) == "no.toml cannot be read: No such file or directory"
    (tmp_path / "no.toml").write_text("[hubbub]\nport = 'x'\n")
    assert refusal(sources).startswith("no.toml: port must be")


def test_limits_have_a_flag(tmp_path: Path) -> None:
    """It comes once for each limit; a wrong one is refused."""
    loaded = SettingSources(flags={"limit": ("queued_runs=5", "run_seconds=0.5")}, folder=tmp_path).load()
    assert loaded.settings.limits == Limits(queued_runs=5, run_seconds=0.5)
    assert loaded.get_origin("limits", "run_seconds") == SettingOrigin("flag", "--limit")
    for text, message in (
        ("queued_runs", "--limit must be NAME=VALUE"),
        ("queued_run=5", "--limit: unknown limit 'queued_run': did you mean queued_runs?"),
        ("queued_runs=x", "--limit queued_runs must be a whole number"),
    ):
        assert refusal(SettingSources(flags={"limit": (text,)}, folder=tmp_path)).startswith(message)


def test_a_list_in_a_flag_has_commas(tmp_path: Path) -> None:
    """As in the environment."""
    loaded = SettingSources(flags={"hosts": "one.example, two.example"}, folder=tmp_path).load()
    assert loaded.settings.hosts == ("one.example", "two.example")


def test_the_error_about_a_wrong_flag_names_it_as_it_was_written(tmp_path: Path) -> None:
    """With dashes."""
    assert refusal(SettingSources(flags={"retention_days": "x"}, folder=tmp_path)).startswith(
        "--retention-days must be"
    )


KUBERNETES = {
    "HUBBUB_SERVICE_HOST": "10.0.0.1",
    "HUBBUB_SERVICE_PORT": "9527",
    "HUBBUB_SERVICE_PORT_HTTP": "9527",
    "HUBBUB_PORT": "tcp://10.0.0.1:9527",
    "HUBBUB_PORT_9527_TCP": "tcp://10.0.0.1:9527",
    "HUBBUB_PORT_9527_TCP_PROTO": "tcp",
    "HUBBUB_PORT_9527_TCP_PORT": "9527",
    "HUBBUB_PORT_9527_TCP_ADDR": "10.0.0.1",
    "HUBBUB_METRICS_SERVICE_HOST": "fd00::1",
    "HUBBUB_METRICS_PORT": "tcp://[fd00::1]:9528",
    "HUBBUB_METRICS_PORT_9528_TCP": "tcp://[fd00::1]:9528",
}


def test_the_variables_of_kubernetes_services_are_ignored(tmp_path: Path) -> None:
    """For services with the names hubbub and hubbub-metrics. The hub names them to its operator."""
    loaded = SettingSources(environ=KUBERNETES, folder=tmp_path).load()
    assert loaded.settings == Settings() and loaded.service_variables == tuple(sorted(KUBERNETES))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("HUBBUB_PORT", "tcp://10.0.0.1"),
        ("HUBBUB_PORT", "http://10.0.0.1:9527"),
        ("HUBBUB_PORT_9527", "1"),
        ("HUBBUB_SERVICE", "10.0.0.1"),
        ("HUBBUB_HOST", "tcp://10.0.0.1:9527 "),
    ],
)
def test_other_variables_are_still_checked(tmp_path: Path, name: str, text: str) -> None:
    """Only the forms of Kubernetes count; a typing mistake is no service."""
    sources = SettingSources(environ={name: text}, folder=tmp_path)
    if name == "HUBBUB_HOST":
        assert sources.load().settings.host == text
    else:
        assert name in refusal(sources)


def test_no_setting_has_the_name_of_a_service_variable() -> None:
    """Else the hub would ignore it."""
    names = [f"HUBBUB_{name.upper()}" for name in SETTING_TYPES] + [f"HUBBUB_LIMITS_{n.upper()}" for n in LIMIT_TYPES]
    assert not [name for name in names if SERVICE_VARIABLE.fullmatch(name)]
