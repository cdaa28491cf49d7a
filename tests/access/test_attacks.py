"""Attacks on sign-in: credentials in the wrong place, and requests that pages of other origins send."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from support.hub import Hub

from hub.access.principal import OPERATOR
from hub.commands import table as commands


@pytest.fixture
async def signed(tmp_path: Path) -> AsyncIterator[Hub]:
    """A started hub with sign-in."""
    hub = await Hub(tmp_path, options={"sign_in": True}).start()
    yield hub
    await hub.stop()


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session:
        yield session


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


async def call(
    hub: Hub, http: aiohttp.ClientSession, method: str, path: str, headers: dict[str, str] | None = None, **body: Any
) -> tuple[int, Any]:
    async with http.request(method, f"{hub.url}/api/v1{path}", headers=headers, json=body or None) as response:
        text = await response.text()
        return response.status, (await response.json() if text.startswith("{") else text)


TICKET_THIEVES = (
    ("GET", "/sessions/s1/members"),
    ("GET", "/sessions/s1"),
    ("DELETE", "/sessions/s1"),
    ("POST", "/sessions/s1/invites"),
    ("POST", "/sessions/s1/chat"),
    ("POST", "/tickets"),
    ("OPTIONS", "/sessions/s1/events"),
)


async def test_an_event_ticket_opens_nothing_but_the_events(signed: Hub, http: aiohttp.ClientSession) -> None:
    """The address of a stream is in the logs of proxies: with it, no one must delete the session or make an invite."""
    key = bearer(await signed.key("ann"))
    await call(signed, http, "POST", "/sessions", key, sessionId="s1")
    ticket = (await call(signed, http, "POST", "/tickets", key, sessionId="s1"))[1]["ticket"]
    for method, path in TICKET_THIEVES:
        status, _ = await call(signed, http, method, f"{path}?ticket={ticket}", agentId="echo", message="x")
        assert status in (401, 403), (method, path)  # 403 is for the incomplete preflight
    for _ in range(2):
        assert (await call(signed, http, "GET", f"/sessions/s1/events?ticket={ticket}"))[0] == 200


async def test_a_socket_ticket_opens_no_session_with_the_id_ws(signed: Hub, http: aiohttp.ClientSession) -> None:
    key = bearer(await signed.key("ann"))
    await call(signed, http, "POST", "/sessions", key, sessionId="ws")
    ticket = (await call(signed, http, "POST", "/tickets", key))[1]["ticket"]
    for method in ("GET", "DELETE"):
        assert (await call(signed, http, method, f"/sessions/ws?ticket={ticket}"))[0] == 401
    await signed.connect(f"?ticket={ticket}")
