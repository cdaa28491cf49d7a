"""Attacks on sign-in: credentials in the wrong place, and requests that pages of other origins send."""

from pathlib import Path
from typing import Any

import aiohttp
import pytest
from support.hub import Hub
from support.people import bearer
from support.sockets import read_response

from hub.access.principal import OPERATOR
from hub.commands import table as commands
from hub.errors import BadFrame


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


async def test_a_page_of_another_origin_cannot_sign_a_browser_in(signed: Hub, http: aiohttp.ClientSession) -> None:
    """It would sign the browser in as its own author, who then reads what people write. The link stays valid."""
    token = (await commands.invite_person(signed.door, OPERATOR, "Mallory")).rpartition("#")[2]
    other = {"Origin": "http://localhost:3000"}  # may connect without a cookie
    assert (await call(signed, http, "GET", "/agents", bearer(await signed.key("ann")) | other))[0] == 200
    status, body = await call(signed, http, "POST", "/sign-in", other, token=token)
    assert (status, body["code"], list(http.cookie_jar)) == (403, "refused", [])
    assert (await call(signed, http, "POST", "/sign-in", {"Origin": signed.url}, token=token))[0] == 200


async def invite_to(hub: Hub, session_id: str) -> str:
    """Return the token of an invite link to a session."""
    invite = await commands.create_invite(hub.door, OPERATOR, session_id, "member")
    return str(invite.link).rpartition("#")[2]


@pytest.mark.parametrize(
    "name, shown",
    [
        ("\x1b]0;owned\x07Eve\r\n", r"\x1b]0;owned\x07Eve"),
        ("\u202eeve", r"\u202eeve"),
        ("x" * 500, "x" * 100),
        (" \t ", "Guest"),
    ],
)
async def test_the_name_of_a_guest_is_one_printable_line(
    signed: Hub, http: aiohttp.ClientSession, name: str, shown: str
) -> None:
    """A name is shown to others, also in terminals."""
    body = {"token": await invite_to(signed, "s1"), "name": name}
    status, me = await call(signed, http, "POST", "/sign-in", {"Origin": signed.url}, **body)
    assert (status, me["name"]) == (200, shown)


async def test_the_operator_cannot_give_such_a_name_either(signed: Hub) -> None:
    for name in ("\x1b[2Jann", "ann\n", "", "x" * 101):
        with pytest.raises(BadFrame):
            await signed.key(name)
    await signed.key("ann")
    with pytest.raises(BadFrame):
        await commands.change_principal(signed.door, OPERATOR, "ann", new_name="\x1b[2Jann")


async def test_the_user_of_a_proxy_has_one_printable_name(tmp_path: Path, http: aiohttp.ClientSession) -> None:
    """Of two headers, the client may have sent the first. A name that is no UTF-8 could be stored nowhere."""
    options = {"user_header": "X-User", "trusted_proxies": ("127.0.0.1",)}
    hub = await Hub(tmp_path, options=options).start()
    bad = ([("X-User", "admin"), ("X-User", "eve")], [("X-User", "x" * 256)], [("X-User", "x\ty")])
    for headers in bad:
        async with http.get(f"{hub.url}/api/v1/me", headers=headers) as response:
            assert response.status == 401, headers
    raw = "GET /api/v1/me HTTP/1.1\r\nHost: 127.0.0.1\r\nX-User: \xff\r\nConnection: close\r\n\r\n"
    assert (await read_response(hub.port, raw.encode("latin-1"))).startswith(b"HTTP/1.1 401")
    await hub.stop()


async def test_strangers_do_not_keep_others_from_signing_in(tmp_path: Path) -> None:
    """Sockets without a credential do not count as those of one principal."""
    hub = await Hub(tmp_path, options={"sign_in": True}).start(principal_connections=2)
    try:
        for _ in range(3):
            await hub.connect()
        client = await hub.connect()
        await client.send(type="auth", token=await hub.key("ann"))
        assert await client.next() == {"type": "ok"}
    finally:
        await hub.stop()


async def test_a_stream_past_the_limit_is_refused_before_its_chat(tmp_path: Path, http: aiohttp.ClientSession) -> None:
    """The client would repeat the chat otherwise."""
    hub = await Hub(tmp_path, options={"sign_in": True}).start(principal_connections=1)
    headers = bearer(await hub.key("ann"))
    await hub.connect(headers=headers)
    stream = headers | {"Accept": "text/event-stream"}
    assert (await call(hub, http, "POST", "/sessions/s1/chat", stream, agentId="echo", message="x"))[0] == 429
    assert (await call(hub, http, "GET", "/sessions/s1", headers))[0] == 404
    await hub.stop()
