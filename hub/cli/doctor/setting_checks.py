"""Check the settings: what is unsafe, and what does not fit together."""

from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path

from dotenv import dotenv_values

from hub.access.doors import check_bind, is_loopback
from hub.cli.doctor.findings import Finding
from hub.setting_sources import ENV_FILE, LoadedSettings
from hub.settings import ConfigError, Settings

MIN_PREFIX_LENGTHS = {4: 8, 6: 32}  # a larger network is not one of proxies alone
MIN_SECRET_SIGNS = 10  # different characters; 32 random hex digits nearly always have more
SECRET_WORDS = ("SECRET", "KEY", "TOKEN", "PASSWORD")


def check_settings(loaded_settings: LoadedSettings) -> Iterator[Finding]:
    """Check settings that the hub accepts. Those that it refuses raise ConfigError when they are loaded."""
    settings = loaded_settings.settings
    yield from _check_door(settings)
    yield from _check_names(settings)
    yield from _check_proxies(settings)
    yield from _check_people(settings)
    yield from _check_secrets(loaded_settings)
    yield from _check_metrics(settings)
    yield from _check_rest(loaded_settings)


def _check_door(settings: Settings) -> Iterator[Finding]:
    try:
        check_bind(settings)
    except ConfigError as error:
        yield Finding("wrong", str(error), "sign_in = true")
    if not settings.is_sign_in_on:
        if settings.public_url is not None or settings.trusted_proxies:
            text = "sign-in is off, so every request through a proxy is refused, but the settings name a proxy"
            yield Finding("wrong", text, "sign_in = true")
        else:
            yield Finding("ok", "sign-in is off: the hub serves this machine only, and its users have all rights")
    if settings.allow_http:
        text = "allow_http: everyone in the network can read messages, and copy the cookies of browsers"
        yield Finding("advice", text, 'use a proxy with https, public_url = "https://...", and allow_http = false')


def _check_names(settings: Settings) -> Iterator[Finding]:
    """Check the names and the address by which people reach the hub."""
    is_open = not is_loopback(settings.host)
    if not settings.is_sign_in_on:
        return
    if settings.public_url is None and (is_open or settings.trusted_proxies):
        text = "public_url is not set: links for people lead to this machine, and the hub refuses its name in `Host`"
        yield Finding("wrong", text, 'public_url = "https://hub.example.com"')
    if settings.public_url is not None and settings.public_url.startswith("http://") and not settings.allow_http:
        if not is_loopback(settings.public_url.partition("://")[2].partition(":")[0]):
            text = f"public_url is {settings.public_url}, and browsers sign in over https only"
            yield Finding("wrong", text, f'public_url = "{settings.public_url.replace("http", "https", 1)}"')


def _check_proxies(settings: Settings) -> Iterator[Finding]:
    is_https = (settings.public_url or "").startswith("https://")
    if not settings.is_sign_in_on:
        return
    if settings.tls_certificate is not None and not is_https and settings.public_url is not None:
        text = f"public_url is {settings.public_url}, but the hub speaks https (tls_certificate)"
        yield Finding("wrong", text, f'public_url = "{settings.public_url.replace("http", "https", 1)}"')
    if is_https and not settings.trusted_proxies and settings.tls_certificate is None:
        text = (
            "public_url is https, but no proxy is trusted: the hub gets requests over http, and browsers cannot sign in"
        )
        yield Finding("wrong", text, 'trusted_proxies = ["127.0.0.1", "::1"]')
    if settings.trusted_proxies and not is_https and not settings.allow_http:
        text = "trusted_proxies is set, but public_url is no https address: browsers cannot sign in"
        yield Finding("wrong", text, 'public_url = "https://hub.example.com"')
    for address in settings.trusted_proxies:
        network = ip_network(address)
        if network.prefixlen < MIN_PREFIX_LENGTHS[network.version]:
            claim = "client address, and to be any user" if settings.user_header else "client address"
            text = f"trusted_proxies has {address}: everyone in this network can claim any {claim}"
            yield Finding("wrong", text, 'trusted_proxies = ["ADDRESS"], with the address of the proxy alone')


def _check_people(settings: Settings) -> Iterator[Finding]:
    if settings.new_user_role == "admin" and (settings.user_header or settings.jwt_issuer):
        text = "new_user_role is admin: everyone who comes from the proxy or the issuer may do everything"
        yield Finding("wrong", text, 'new_user_role = "member"')
    if settings.user_header and not is_loopback(settings.host):
        text = f"the hub believes {settings.user_header} from {', '.join(settings.trusted_proxies)}"
        yield Finding(
            "advice", f"{text}: the proxy must drop this header of clients", "hubbub doctor --url URL tests it"
        )
    if "null" in settings.origins:
        text = 'origins has "null": pages of any site can get this origin, and connect from browsers'
        yield Finding("advice", text, "serve the page with python3 -m http.server, and remove null")


def _check_secrets(loaded_settings: LoadedSettings) -> Iterator[Finding]:
    """Check the secrets: how good they are, and who can read them."""
    settings = loaded_settings.settings
    if settings.jwt_secret is not None and len(set(settings.jwt_secret)) < MIN_SECRET_SIGNS:
        text = "jwt_secret is weak: whoever guesses it can sign in as anybody"
        yield Finding("wrong", text, "set a new one at the issuer and here: openssl rand -hex 32")
    origin = loaded_settings.get_origin("hubbub", "jwt_secret")
    if origin.kind == "flag":
        text = "jwt_secret is in a flag: other accounts of this machine can read the flags of a process"
        yield Finding("wrong", text, f"write HUBBUB_JWT_SECRET=... into {ENV_FILE}, with chmod 600 {ENV_FILE}")
    files = [Path(origin.name)] if origin.kind == "file" else []
    secrets = _read_variables(env_file := Path(ENV_FILE))
    if any(secrets.values()):
        files.append(env_file)
    for name in (name for name, text in secrets.items() if not text):
        yield Finding("advice", f"{name} in {ENV_FILE} has no value", f"write {name}=..., or remove the line")
    for file in files:
        if file.is_file() and file.stat().st_mode & 0o007:
            yield Finding("wrong", f"other accounts can read {file}, which has a secret", f"chmod 600 {file}")


def _read_variables(env_file: Path) -> dict[str, str]:
    """Return the variables of .env whose names are those of secrets."""
    variables = dotenv_values(env_file) if env_file.is_file() else {}
    return {name: text or "" for name, text in variables.items() if any(word in name for word in SECRET_WORDS)}


def _check_metrics(settings: Settings) -> Iterator[Finding]:
    if settings.metrics_port is not None and not is_loopback(settings.metrics_host):
        text = f"everyone who reaches {settings.metrics_host} port {settings.metrics_port} can read the metrics"
        yield Finding("advice", text, "let a firewall admit the address of Prometheus alone")


def _check_rest(loaded_settings: LoadedSettings) -> Iterator[Finding]:
    settings = loaded_settings.settings
    if settings.reload and settings.is_sign_in_on:
        text = "reload is on: whoever can write the agents folder changes the running hub"
        yield Finding("advice", text, "reload = false")
    if settings.log_level == "debug":
        text = "log_level is debug: the output may contain what people write"
        yield Finding("advice", text, 'log_level = "info"')
    if loaded_settings.service_variables:
        names = ", ".join(loaded_settings.service_variables)
        yield Finding("ok", f"variables of Kubernetes are ignored: {names}")
