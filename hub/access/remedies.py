"""The lines of hubbub.toml that let refused requests in, for the answers and the log lines of refusals.

A log line names the complete line. An answer goes to strangers, so it has only the value that they sent.
"""

import json
import re
from collections.abc import Iterable

import msgspec

from hub.access.doors import read_host_name
from hub.settings import BaseAddress, BasePath, HostName, Origin, Settings
from hub.text import cut

MAX_VALUE_LENGTH = 200
PLAIN_VALUE = re.compile(r"[A-Za-z0-9._~:/\[\]+-]{1,200}")


def show_value(value: str) -> str:
    """Return a value that a client sent for a log line: in quotes, with escapes, and cut."""
    return ascii(cut(value, MAX_VALUE_LENGTH))


def describe_refused_header(header: str, value: str, hint: str) -> str:
    """Return the answer to a request with a refused header. It repeats no value that could be more than a name."""
    name = f"{header} {value}" if PLAIN_VALUE.fullmatch(value) else header
    return f"the {name} of this request is not allowed: {hint}"


def add_client(answer: str, address: str) -> str:
    """Return an answer with the address of its client, as the hub knows it. A unix socket has none."""
    return f"{answer} (the client is {address})" if address else answer


def list_line(name: str, values: Iterable[str]) -> str:
    """Return a line for a setting that is a list."""
    return f"{name} = [{', '.join(json.dumps(value) for value in values)}]"


def host_hint(host: str, known_hosts: tuple[str, ...] = ()) -> str:
    """Return what to do after the hub has refused a Host."""
    name = read_host_name(host)
    if name is None or not _is_valid(name, HostName):
        return "it is not a host name with an optional port: correct the client, or the proxy"
    return f"if it is a name of this hub, write {list_line('hosts', (*known_hosts, name))} in hubbub.toml"


def origin_hint(settings: Settings, origin: str, known_origins: tuple[str, ...] = ()) -> str:
    """Return what to do after the hub has refused an Origin."""
    if not _is_valid(origin, Origin):
        return "it is not an origin that a browser sends: correct the client, or the proxy"
    hint = f"if you trust its pages, write {list_line('origins', (*known_origins, origin))} in hubbub.toml"
    if origin == "null":
        return f"a page opened from disk has this origin: serve it with python3 -m http.server; {hint}"
    if settings.public_url is None and _is_valid(origin, BaseAddress):
        return f'{hint}, or public_url = "{origin}" if that is the address of this hub'
    return hint


def proxy_hint(peer: str, trusted_proxies: tuple[str, ...] = ()) -> str:
    """Return what to do if a proxy at *peer* names the Host that its client used."""
    line = list_line("trusted_proxies", (*trusted_proxies, peer))
    return f"if {peer} is the proxy of this hub, write {line} in hubbub.toml"


def base_path_hint(base_path: str, path: str, api_path: str) -> str | None:
    """Return what to do about a path that the hub does not know, if a proxy may have changed it, or None."""
    if path.startswith("//"):
        return "the path begins with //: in nginx, let both `location` and `proxy_pass` end with /, or neither"
    before, is_api, _ = path.partition(f"{api_path}/")
    if (
        not base_path
        and before
        and (is_api or path.endswith("/"))
        and _is_valid(before := before.rstrip("/"), BasePath)
    ):
        return f'if a proxy offers the hub under {before}, write base_path = "{before}" in hubbub.toml'
    return None


def _is_valid(value: str, kind: object) -> bool:
    """Return whether a value can be written into the settings."""
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError:
        return False
    return PLAIN_VALUE.fullmatch(value) is not None
