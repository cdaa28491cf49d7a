"""What a hub with sign-in prints at its start: how the first admin signs in, and warnings."""

import re
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from support.process import HubProcess, run_hubbub


@pytest.fixture
async def process(tmp_path: Path) -> AsyncIterator[HubProcess]:
    """A hub that is not started; killed after the test."""
    running = HubProcess(tmp_path)
    yield running
    await running.kill()


async def read_banner(process: HubProcess, **settings: Any) -> str:
    """Start the hub, stop it, and return its output."""
    process.output_lines.clear()
    await process.start(**settings)
    process.signal(signal.SIGTERM)
    await process.wait_until_ended()
    return process.log


async def test_the_first_start_prints_a_link_for_the_first_admin(process: HubProcess) -> None:
    """The link signs a browser in. The next start prints none, because the admin is known."""
    await process.start(sign_in=True)
    (link,) = re.findall(r"http://\S+/sign-in#\S+", process.log)
    assert "hubbub invite admin" in process.log and link.startswith(process.url)
    body, origin = {"token": link.rpartition("#")[2]}, {"Origin": process.url}
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as http:
        async with http.post(f"{process.url}/api/v1/sign-in", json=body, headers=origin) as response:
            assert response.status == 200, await response.text()
        async with http.get(f"{process.url}/api/v1/me") as response:
            me = await response.json()
    assert (me["name"], me["role"], me["kind"]) == ("admin", "admin", "person")
    await process.kill()
    assert "/sign-in#" not in await read_banner(process, sign_in=True)


async def test_a_hub_that_knows_somebody_prints_no_link(process: HubProcess, tmp_path: Path) -> None:
    """For example the owner of a key that was made before the first start. Nor does a hub without sign-in."""
    assert "/sign-in#" not in await read_banner(process)
    await run_hubbub(tmp_path, "key", "create", "ci")
    assert "/sign-in#" not in await read_banner(process, sign_in=True)


async def test_behind_a_proxy_the_first_start_says_how_to_make_an_admin(process: HubProcess, tmp_path: Path) -> None:
    """The proxy names the people, so a link would make another person."""
    settings: dict[str, Any] = {"trusted_proxies": "127.0.0.1", "user_header": "X-User"}
    await process.start(**settings)
    assert "hubbub principal set NAME --role admin" in process.log and "/sign-in#" not in process.log
    async with aiohttp.ClientSession(headers={"X-User": "ann"}) as http:
        await (await http.get(f"{process.url}/api/v1/me")).read()
        assert (await run_hubbub(tmp_path, "principal", "set", "ann", "--role", "admin")).code == 0
        async with http.get(f"{process.url}/api/v1/me") as response:
            assert (await response.json())["role"] == "admin"
    await process.kill()
    assert "principal set" not in await read_banner(process, **settings)


async def test_each_start_with_allow_http_warns(process: HubProcess) -> None:
    """In one line."""
    for _ in range(2):
        banner = await read_banner(process, sign_in=True, allow_http=True)
        assert len([line for line in banner.splitlines() if "allow_http = true" in line]) == 1
    assert "allow_http" not in await read_banner(process, sign_in=True)
