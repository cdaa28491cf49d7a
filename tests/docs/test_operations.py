"""The chapter Operations: its first link, its proxy and its roles are those of the hub."""

import re
import tomllib
from typing import Any, get_args

import aiohttp
from support.documents import DOCS, ROOT, Block, of_kind
from support.hub import Hub

from hub.access.doors import make_base_url
from hub.access.principal import OPERATOR
from hub.access.records import SessionRole, TenantRole
from hub.commands import table as commands
from hub.web.banner import announce_hub

PAGE = DOCS["operations"]
# The values of nginx's variables for a request of ann.
NGINX_VARIABLES = {
    "$http_host": "hub.example.com",
    "$remote_addr": "203.0.113.7",
    "$remote_user": "ann",
    "$scheme": "https",
    "$http_upgrade": "",
    "$hubbub_connection": "",
}


def read_options(block: Block) -> dict[str, Any]:
    """Return the settings of a block."""
    values = tomllib.loads(block.text)["hubbub"]
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


async def test_the_first_start_prints_the_link_of_the_page(hub: Hub) -> None:
    """Only the token differs."""
    hub.options = {"sign_in": True, "public_url": "https://hub.example.com"}
    await hub.start()
    hub.door.base_url = make_base_url(hub.door.settings)
    (block,) = of_kind(PAGE, "text", "banner")
    printed_lines: list[str] = []
    await announce_hub(hub.door, hub.port, printed_lines.append, None, has_terminal=True)
    text = re.sub(r"hi_\w+", "hi_TOKEN", "\n".join(printed_lines))
    assert re.sub(r"hi_\w+", "hi_TOKEN", block.text) in text and printed_lines[-1] == "Press Ctrl-C to stop."
    await announce_hub(hub.door, hub.port, printed_lines.append, None, has_terminal=False)
    assert printed_lines[-1] == "The hub is ready."


def read_nginx_headers(with_users: bool) -> dict[str, str]:
    """Return the headers that nginx sends for ann with deploy/nginx/hubbub.conf, by their names."""
    (users,) = of_kind(PAGE, "text", "nginx")
    text = (ROOT / "deploy" / "nginx" / "hubbub.conf").read_text() + (users.text if with_users else "")
    return dict(re.findall(r'proxy_set_header (\S+) "?([^";]*)"?;', text))


def fill_in(set_headers: dict[str, str]) -> dict[str, str]:
    """Replace nginx's variables. nginx does not send a header without a value."""
    values = {name: NGINX_VARIABLES.get(value, value) for name, value in set_headers.items()}
    return {name: value for name, value in values.items() if value and name != "Connection"}


async def test_nginx_names_the_user_with_the_lines_of_the_page(hub: Hub) -> None:
    """Each header that the lines do not name could come from the client, so they name all that the hub believes."""
    (settings,) = of_kind(PAGE, "toml", "settings", "proxy")
    hub.options = read_options(settings)
    await hub.start()
    set_headers = read_nginx_headers(with_users=True)
    believed = {hub.options["user_header"], "Forwarded", "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host"}
    assert believed <= set_headers.keys()
    headers = fill_in(set_headers)
    async with aiohttp.ClientSession(headers=headers) as http, http.get(f"{hub.url}/api/v1/me") as response:
        body = await response.json()
    assert (response.status, body["name"], body["role"]) == (200, "ann", "member")


async def test_a_browser_signs_in_behind_nginx_with_its_file(hub: Hub) -> None:
    """Over https: the cookie is for https only."""
    block = next(block for block in of_kind(PAGE, "toml", "settings") if "public_url" in block.text)
    hub.options = read_options(block)
    await hub.start()
    link = await commands.invite_person(hub.door, OPERATOR, "ann")
    headers = fill_in(read_nginx_headers(with_users=False)) | {"Origin": hub.options["public_url"]}
    token = link.partition("#")[2]
    async with aiohttp.ClientSession(headers=headers) as http:
        async with http.post(f"{hub.url}/api/v1/sign-in", json={"token": token}) as response:
            assert response.status == 200, await response.text()
    cookie = response.headers["Set-Cookie"]
    assert cookie.startswith("__Host-hubbub=") and "Secure" in cookie


def test_the_page_names_every_role() -> None:
    """Those of the hub and those of a session."""
    text = PAGE.read_text(encoding="utf-8")
    section = text[text.index("### Who may do what") : text.index("### Share sessions")]
    for role in (*get_args(TenantRole), *get_args(SessionRole)):
        assert f"| `{role}` |" in section
