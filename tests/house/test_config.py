"""Settings come from hubbub.toml, HUBBUB_* and flags; each mistake has an error that names it."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.documents import ROOT

from hub.limits import Limits
from hub.setting_sources import load_settings
from hub.settings import ConfigError, Settings


def write(folder: Path, text: str) -> Path:
    (folder / "hubbub.toml").write_text(text, encoding="utf-8")
    return folder


def refusal(folder: Path, toml: str = "", environ: dict[str, str] | None = None, **flags: Any) -> str:
    """Return the message of the error that load_settings() raises; it is one line."""
    with pytest.raises(ConfigError) as caught:
        load_settings(flags, environ or {}, write(folder, toml))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_without_settings_the_defaults_apply(tmp_path: Path) -> None:
    """A hub needs no file, no variable and no flag."""
    assert load_settings({}, {"PATH": "/bin"}, tmp_path) == Settings()


def test_the_default_cache_folder_belongs_to_the_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The XDG specification ignores relative paths; without a home folder it is in the data folder."""
    monkeypatch.setenv("HOME", "/home/ann")
    monkeypatch.setenv("XDG_CACHE_HOME", "/big/caches")
    assert Settings().cache_folder == Path("/big/caches/hubbub")
    for unusable in ("", "caches"):
        monkeypatch.setenv("XDG_CACHE_HOME", unusable)
        assert Settings().cache_folder == Path("/home/ann/.cache/hubbub")
    assert load_settings({}, {"HUBBUB_CACHE": "mine"}, tmp_path).cache_folder == Path("mine")
    assert load_settings({}, {}, write(tmp_path, '[hubbub]\ncache = "/srv/cache"')).cache_folder == Path("/srv/cache")
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("os.getuid", lambda: 2**31 - 2)  # an account without an entry on this machine
    assert Settings(data=Path("kept")).cache_folder == Path("kept/cache")


def test_the_file_may_start_with_a_byte_order_mark(tmp_path: Path) -> None:
    """Editors on Windows write one."""
    assert load_settings({}, {}, write(tmp_path, "\ufeff[hubbub]\nport = 1234")).port == 1234


def test_the_file_can_contain_every_type_of_value(tmp_path: Path) -> None:
    """Texts, numbers, booleans, folders and lists have the syntax of TOML."""
    toml = """
        [hubbub]
        host = "127.0.0.1"
        port = 1234
        agents = "elsewhere"
        retention_days = 1
        frames_per_second = 12.5
        origins = ["https://one.example"]
        sign_in = true
        trusted_proxies = ["127.0.0.1", "10.0.0.0/8", "fd00::/8"]
        user_header = "X-Forwarded-User"
        new_user_role = "observer"
        public_url = "https://hub.example:8443"
    """
    assert load_settings({}, {}, write(tmp_path, toml)) == Settings(
        host="127.0.0.1",
        port=1234,
        agents=Path("elsewhere"),
        retention_days=1.0,
        frames_per_second=12.5,
        origins=("https://one.example",),
        sign_in=True,
        trusted_proxies=("127.0.0.1", "10.0.0.0/8", "fd00::/8"),
        user_header="X-Forwarded-User",
        new_user_role="observer",
        public_url="https://hub.example:8443",
    )


def test_variables_are_read_as_the_type_of_their_setting(tmp_path: Path) -> None:
    """All variables are text; commas separate the items of a list."""
    environ = {
        "HUBBUB_PORT": "1234",
        "HUBBUB_RELOAD": "true",
        "HUBBUB_RETENTION_DAYS": "0.5",
        "HUBBUB_DATA": "kept",
        "HUBBUB_HOSTS": "one.example, two.example,",
        "HUBBUB_ORIGINS": "https://one.example",
        "HUBBUB_TRUSTED_PROXIES": "127.0.0.1, 10.0.0.0/8",
        "HUBBUB_SESSION_ACCESS": "team",
        "HUBBUB_GUESTS": "false",
    }
    assert load_settings({}, environ, tmp_path) == Settings(
        port=1234,
        reload=True,
        retention_days=0.5,
        data=Path("kept"),
        hosts=("one.example", "two.example"),
        origins=("https://one.example",),
        trusted_proxies=("127.0.0.1", "10.0.0.0/8"),
        session_access="team",
        guests=False,
    )


def test_flags_override_the_environment_and_the_environment_overrides_the_file(tmp_path: Path) -> None:
    """A flag of None is unset and overrides nothing."""
    write(tmp_path, '[hubbub]\nport = 1\nhost = "file"\nlog = "file"\n')
    environ = {"HUBBUB_PORT": "2", "HUBBUB_HOST": "environment"}
    flags = {"port": "3", "host": None, "log": None, "agents": Path("flag")}
    settings = load_settings(flags, environ, tmp_path)
    assert (settings.port, settings.host, settings.log) == (3, "environment", "file")
    assert settings.agents == Path("flag")


def test_the_error_about_an_unknown_key_suggests_the_nearest_one(tmp_path: Path) -> None:
    """A typing mistake in the file is not ignored."""
    message = refusal(tmp_path, "[hubbub]\nprot = 1")
    assert "hubbub.toml" in message and "'prot'" in message and "did you mean port?" in message


def test_the_error_about_an_unknown_key_lists_all_keys_if_none_is_similar(tmp_path: Path) -> None:
    """The list helps if there is no suggestion."""
    message = refusal(tmp_path, "[hubbub]\nxyzzy = 1")
    assert "'xyzzy'" in message and "frames_per_second" in message and "limits" not in message


def test_keys_outside_of_the_tables_are_refused(tmp_path: Path) -> None:
    """A key above [hubbub], or a table with another name, is an error."""
    assert "'port' is outside of [hubbub]" in refusal(tmp_path, "port = 1")
    assert "'hubub' is outside of [hubbub]" in refusal(tmp_path, "[hubub]\nport = 1")
    assert "hubbub is not a table" in refusal(tmp_path, "hubbub = 1")


def test_the_error_about_an_unknown_variable_suggests_the_nearest_one(tmp_path: Path) -> None:
    """A typing mistake or a small letter in a variable is not ignored."""
    assert "HUBBUB_PROT" in (message := refusal(tmp_path, environ={"HUBBUB_PROT": "1"}))
    assert "did you mean HUBBUB_PORT?" in message
    assert "did you mean HUBBUB_PORT?" in refusal(tmp_path, environ={"HUBBUB_port": "1"})


def test_variables_of_the_tests_are_ignored(tmp_path: Path) -> None:
    """HUBBUB_TEST_* belongs to the tests, which start real hubs."""
    assert load_settings({}, {"HUBBUB_TEST_TORTURE": "long"}, tmp_path) == Settings()


def test_the_limits_cannot_be_set(tmp_path: Path) -> None:
    """They are measured, not chosen: neither the file nor a variable can change them."""
    assert "'limits'" in refusal(tmp_path, "[hubbub.limits]\nframe_bytes = 1")
    assert "HUBBUB_LIMITS" in refusal(tmp_path, environ={"HUBBUB_LIMITS": "{}"})
    assert Settings().limits == Limits()


@pytest.mark.parametrize(
    ("line", "key", "wanted"),
    [
        ('port = "1234"', "port", "a whole number"),
        ("port = true", "port", "a whole number"),
        ("port = 65536", "port", "0 to 65535"),
        ('host = ""', "host", "not empty"),
        ("log = 1", "log", "a text"),
        ("agents = 1", "agents", "the path of a folder"),
        ('data = ""', "data", "the path of a folder"),
        ('cache = ""', "cache", "the path of a folder"),
        ("reload = 1", "reload", "true or false"),
        ("frames_per_second = nan", "frames_per_second", "a number"),
        ("retention_days = -1", "retention_days", "a number"),
        ('hosts = "one.example"', "hosts", "a list of host names"),
        ('hosts = ["hub.example:443"]', "hosts", "without a scheme and a port"),
        ('hosts = ["https://hub.example"]', "hosts", "without a scheme and a port"),
        ('hosts = [""]', "hosts", "a list of host names"),
        ("origins = [1]", "origins", "a list of origins"),
        ('origins = ["chat.example"]', "origins", "such as https://chat.example.com"),
        ('origins = ["https://chat.example/"]', "origins", "such as https://chat.example.com"),
        ('origins = ["https://Chat.example"]', "origins", "such as https://chat.example.com"),
        ('origins = ["https://chat.example:443"]', "origins", "such as https://chat.example.com"),
        ('origins = ["*"]', "origins", "such as https://chat.example.com"),
        ('trusted_proxies = ["proxy.example"]', "trusted_proxies", "a list of IP addresses and networks"),
        ('trusted_proxies = ["10.0.0.1/8"]', "trusted_proxies", "a list of IP addresses and networks"),
        ('user_header = "X User"', "user_header", "the name of a header"),
        ('user_header = "X-User\\n"', "user_header", "the name of a header"),
        ('new_user_role = "owner"', "new_user_role", "admin, member, observer or guest"),
        ('session_access = "public"', "session_access", "private or team"),
        ('jwt_secret = "short"', "jwt_secret", "32 characters or more"),
        ('public_url = "hub.example"', "public_url", "an http or https address without a path"),
        ('public_url = "ftp://hub.example"', "public_url", "an http or https address without a path"),
        ('public_url = "https://hub.example/"', "public_url", "an http or https address without a path"),
        ('public_url = "https://hub.example?a"', "public_url", "an http or https address without a path"),
        ('public_url = "https://ann@hub.example"', "public_url", "an http or https address without a path"),
        ('public_url = "https://hub.example:http"', "public_url", "an http or https address without a path"),
        ('public_url = "https://:443"', "public_url", "an http or https address without a path"),
    ],
)
def test_the_error_about_a_wrong_value_in_the_file_names_its_setting(
    tmp_path: Path, line: str, key: str, wanted: str
) -> None:
    """The error contains the location, the setting and the allowed values."""
    message = refusal(tmp_path, f"[hubbub]\n{line}")
    assert message.startswith(f"hubbub.toml: {key} must be ") and wanted in message


@pytest.mark.parametrize(
    ("name", "text", "wanted"),
    [
        ("HUBBUB_PORT", "http", "a whole number"),
        ("HUBBUB_RELOAD", "maybe", "true or false"),
        ("HUBBUB_HOST", "", "not empty"),
        ("HUBBUB_DATA", "", "the path of a folder"),
        ("HUBBUB_FRAMES_PER_SECOND", "inf", "a number"),
        ("HUBBUB_TRUSTED_PROXIES", "10.0.0.0/8, 1234", "a list of IP addresses and networks"),
    ],
)
def test_the_error_about_a_wrong_value_in_the_environment_names_its_variable(
    tmp_path: Path, name: str, text: str, wanted: str
) -> None:
    """The error contains the variable and the allowed values."""
    message = refusal(tmp_path, environ={name: text})
    assert message.startswith(f"{name} in the environment must be ") and wanted in message


def test_origins_and_hosts_have_all_forms_that_browsers_send(tmp_path: Path) -> None:
    """Origins of other schemes and ports and the origin null; names and IP addresses of hosts."""
    origins = ("https://chat.example", "http://10.0.0.1:8080", "https://[::1]:1", "chrome-extension://abcd", "null")
    hosts = ("hub", "hub.example", "10.0.0.1", "::1", "[fe80::1]")
    environ = {"HUBBUB_ORIGINS": ",".join(origins), "HUBBUB_HOSTS": ",".join(hosts)}
    settings = load_settings({}, environ, tmp_path)
    assert (settings.origins, settings.hosts) == (origins, hosts)


def test_the_error_about_a_wrong_flag_names_the_flag(tmp_path: Path) -> None:
    """The error contains the flag and the allowed values."""
    assert refusal(tmp_path, port="http").startswith("--port must be a whole number")


def test_a_mistake_is_refused_although_a_flag_overrides_it(tmp_path: Path) -> None:
    """Otherwise the error would appear only in a start without the flag."""
    assert "hubbub.toml: port" in refusal(tmp_path, '[hubbub]\nport = "x"', port="1")


def test_an_error_does_not_repeat_the_wrong_value(tmp_path: Path) -> None:
    """The value may contain a password."""
    assert "secret" not in refusal(tmp_path, '[hubbub]\nlog = ["redis://:secret@one.example"]')


@pytest.mark.parametrize(
    ("lines", "line_to_set"),
    [
        ({"user_header": "X-User"}, 'trusted_proxies = ["ADDRESS"]'),
        ({"jwt_issuer": "i", "jwt_keys": "keys.json"}, 'jwt_audience = "NAME"'),
        ({"jwt_issuer": "i", "jwt_audience": "a"}, 'jwt_keys = "URL or file"'),
        ({"jwt_issuer": "i", "jwt_audience": "a", "jwt_keys": "k", "jwt_secret": "s" * 32}, "remove the one"),
        ({"jwt_audience": "a"}, 'jwt_issuer = "NAME"'),
        ({"jwt_keys": "keys.json"}, 'jwt_issuer = "NAME"'),
        ({"jwt_secret": "s" * 32}, 'jwt_issuer = "NAME"'),
    ],
)
def test_a_setting_of_sign_in_without_those_that_it_needs_is_refused(
    tmp_path: Path, lines: dict[str, str], line_to_set: str
) -> None:
    """The error has the line to set. Each of these hubs would accept false users, or seem to have sign-in."""
    toml = "\n".join(f'{name} = "{value}"' for name, value in lines.items())
    assert line_to_set in refusal(tmp_path, f"[hubbub]\n{toml}")
    with pytest.raises(ConfigError):
        Settings(**lines)  # type: ignore[arg-type]


def test_sign_in_is_on_if_a_setting_names_a_source_of_users() -> None:
    """A proxy and an issuer of tokens turn it on, like the setting itself."""
    assert not Settings().is_sign_in_on and not Settings(trusted_proxies=("127.0.0.1",)).is_sign_in_on
    assert Settings(sign_in=True).is_sign_in_on
    assert Settings(user_header="X-User", trusted_proxies=("127.0.0.1",)).is_sign_in_on
    assert Settings(jwt_issuer="i", jwt_audience="a", jwt_secret="s" * 32).is_sign_in_on


def test_the_secret_of_an_issuer_is_not_in_the_text_of_the_settings() -> None:
    """This text may get into a log."""
    assert "s" * 32 not in repr(Settings(jwt_issuer="i", jwt_audience="a", jwt_secret="s" * 32))


def test_the_error_about_a_setting_of_an_earlier_version_says_what_replaced_it(tmp_path: Path) -> None:
    """A hub that was open to the network must not start as if the line were a typing mistake."""
    message = refusal(tmp_path, "[hubbub]\nopen_to_network = true")
    assert message.startswith("hubbub.toml: open_to_network is gone: ") and "sign_in = true" in message
    message = refusal(tmp_path, environ={"HUBBUB_OPEN_TO_NETWORK": "true"})
    assert message.startswith("HUBBUB_OPEN_TO_NETWORK in the environment is gone: ") and "sign_in = true" in message


def test_a_file_that_is_not_toml_is_refused(tmp_path: Path) -> None:
    """The error contains the file and the position of the mistake."""
    assert refusal(tmp_path, "[hubbub]\nport = \n").startswith("hubbub.toml cannot be read: ")
    (tmp_path / "hubbub.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="hubbub.toml cannot be read"):
        load_settings({}, {}, tmp_path)


def test_a_folder_with_the_name_of_the_file_is_refused(tmp_path: Path) -> None:
    """A hubbub.toml that exists and cannot be opened is not ignored."""
    (tmp_path / "hubbub.toml").mkdir()
    with pytest.raises(ConfigError, match="hubbub.toml cannot be read: Is a directory"):
        load_settings({}, {}, tmp_path)


def test_the_default_log_is_in_the_data_folder() -> None:
    """Three slashes start a relative path, four an absolute one; a configured log stays unchanged."""
    assert Settings().log_url == "sqlite:///data/hub.db"
    assert Settings(data=Path("/var/hub")).log_url == "sqlite:////var/hub/hub.db"
    assert Settings(log="sqlite:///other.db").log_url == "sqlite:///other.db"


def test_the_settings_need_no_extra() -> None:
    """Programs that embed the hub need neither click nor rich."""
    program = """if True:
        import sys
        from pathlib import Path
        for name in ("click", "rich", "typed_settings"):
            sys.modules[name] = None
        from hub.setting_sources import load_settings
        print(load_settings({}, {"HUBBUB_PORT": "1"}, Path("nowhere")).port)
    """
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("1\n", "")


def test_the_variable_of_the_terminal_commands_is_not_a_setting(tmp_path: Path) -> None:
    """A hub starts although HUBBUB_URL is set for `hubbub chat`."""
    assert load_settings({}, {"HUBBUB_URL": "http://a.example"}, tmp_path) == Settings()


def test_a_limit_comes_from_its_table_or_its_variable(tmp_path: Path) -> None:
    """The environment overrides the file; other limits keep their defaults."""
    (tmp_path / "hubbub.toml").write_text("[limits]\nqueued_runs = 5\nrun_seconds = 0.5\n")
    limits = load_settings({}, {"HUBBUB_LIMITS_QUEUED_RUNS": "6", "HUBBUB_LIMITS_FILE_BYTES": "7"}, tmp_path).limits
    assert limits == Limits(queued_runs=6, run_seconds=0.5, file_bytes=7)


def test_an_unknown_limit_is_refused(tmp_path: Path) -> None:
    """The error contains its location and the nearest limit."""
    assert refusal(tmp_path, "[limits]\nqueued_run = 5") == (
        "hubbub.toml: unknown limit 'queued_run': did you mean queued_runs?"
    )
    assert "limits.queued_runs must be a whole number, 0 or more" in refusal(tmp_path, "[limits]\nqueued_runs = -1")
    assert "limits.page_rows must be a whole number, 1 or more" in refusal(tmp_path, "[limits]\npage_rows = 0")
    assert "must be a number of seconds, more than 0" in refusal(tmp_path, "[limits]\nrun_seconds = 0")
    assert "must be a whole number" in refusal(tmp_path, "[limits]\nframe_bytes = 1.5")
    assert "limits is not a table" in refusal(tmp_path, "limits = 1")
    (tmp_path / "hubbub.toml").unlink()
    with pytest.raises(ConfigError, match="did you mean HUBBUB_LIMITS_QUEUED_RUNS"):
        load_settings({}, {"HUBBUB_LIMITS_QUEUED_RUN": "5"}, tmp_path)
    with pytest.raises(ConfigError, match="HUBBUB_LIMITS_RUN_SECONDS in the environment must be a number of seconds"):
        load_settings({}, {"HUBBUB_LIMITS_RUN_SECONDS": "soon"}, tmp_path)


def test_the_error_about_a_limit_among_the_settings_names_its_table(tmp_path: Path) -> None:
    """A table with a typing mistake in its name has an error, too."""
    assert refusal(tmp_path, "[hubbub]\nqueued_runs = 2") == (
        "hubbub.toml: queued_runs is a limit: move it to [limits]"
    )
    assert refusal(tmp_path, "[limit]\nqueued_runs = 2").endswith("limits into the second: did you mean limits?")
