"""Invite links of sessions: for people who have signed in, and for guests."""

from pathlib import Path
from typing import Any

import aiohttp
from support.hub import Hub

from hub.access.principal import OPERATOR
from hub.commands import table as commands


async def call(hub: Hub, method: str, path: str, key: str | None = None, **options: Any) -> tuple[int, Any, Any]:
    """Return the status, the body and the cookies of a request by a page of the hub."""
    headers = {"Origin": hub.url} | ({"Authorization": f"Bearer {key}"} if key is not None else {})
    headers |= options.pop("headers", {})
    async with aiohttp.ClientSession() as http:
        async with http.request(method, f"{hub.url}/api/v1{path}", headers=headers, **options) as response:
            text = await response.text()
            return response.status, (await response.json() if text else None), response.cookies


async def make_invite(hub: Hub, key: str, **fields: Any) -> dict[str, Any]:
    status, invite, _ = await call(hub, "POST", "/sessions/s1/invites", key, json={"role": "member", **fields})
    assert status == 201
    return {**invite, "token": invite["link"].rpartition("#")[2]}


async def use(hub: Hub, token: str, key: str | None = None, **fields: Any) -> tuple[int, Any, Any]:
    return await call(hub, "POST", "/sign-in", key, json={"token": token, **fields})


async def test_an_invite_makes_a_signed_in_person_a_member(signed: Hub) -> None:
    """It sets no cookie, works for many people, and never lowers a role."""
    ann, bob, eve = [await signed.key(name) for name in ("ann", "bob", "eve")]
    invite = await make_invite(signed, ann, role="viewer")
    for key, name in ((bob, "bob"), (eve, "eve"), (ann, "ann")):
        status, me, cookies = await use(signed, invite["token"], key)
        assert (status, me["name"], me["sessionId"]) == (200, name, "s1") and not cookies
    members = await commands.list_members(signed.door, OPERATOR, "s1")
    assert [(member.name, member.role) for member in members] == [
        ("ann", "owner"),
        ("bob", "viewer"),
        ("eve", "viewer"),
    ]


async def test_an_invite_makes_a_guest_of_a_stranger(signed: Hub) -> None:
    """The guest has the role of this session alone: no other session, no session of its own."""
    ann = await signed.key("ann")
    invite = await make_invite(signed, ann)
    await call(signed, "POST", "/sessions", ann, json={"sessionId": "s2"})
    status, me, cookies = await use(signed, invite["token"], name="Zoë")
    assert (status, me["name"], me["role"], me["sessionId"]) == (200, "Zoë", "guest", "s1")
    (cookie,) = cookies.values()
    headers = {"Cookie": f"{cookie.key}={cookie.value}"}
    chat = {"agentId": "echo", "message": "hello"}
    assert (await call(signed, "POST", "/sessions/s1/chat", headers=headers, json=chat))[0] == 202
    assert (await call(signed, "GET", "/sessions/s2", headers=headers))[0] == 404
    assert (await call(signed, "POST", "/sessions/s3/chat", headers=headers, json=chat))[0] == 404
    assert (await call(signed, "POST", "/sessions/s1/invites", headers=headers, json={}))[0] == 403
    listed = (await call(signed, "GET", "/sessions", headers=headers))[1]["data"]
    assert [row["sessionId"] for row in listed] == ["s1"]


async def test_the_setting_guests_turns_guests_off(tmp_path: Path) -> None:
    """Those who have signed in can still use the invite."""
    hub = await Hub(tmp_path, options={"sign_in": True, "guests": False}).start()
    invite = await make_invite(hub, await hub.key("ann"))
    assert (await use(hub, invite["token"]))[0] == 401
    assert (await use(hub, invite["token"], await hub.key("bob")))[0] == 200
    await hub.stop()


async def test_a_revoked_expired_or_wrong_invite_is_a_bad_link(signed: Hub) -> None:
    """So is one of a deleted session, also after a new session has the id. Members stay members."""
    ann, bob = await signed.key("ann"), await signed.key("bob")
    revoked = await make_invite(signed, ann)
    assert (await use(signed, revoked["token"], bob))[0] == 200
    path = f"/sessions/s1/invites/{revoked['inviteId']}"
    assert (await call(signed, "DELETE", path, ann))[0] == 204
    assert (await call(signed, "DELETE", path, ann))[1]["code"] == "unknown_invite"
    expired = await make_invite(signed, ann, days=1e-9)
    valid = await make_invite(signed, ann)
    wrong = valid["token"][:-1] + ("0" if valid["token"][-1] != "0" else "1")
    for token in (revoked["token"], expired["token"], wrong, "hs_x"):
        status, body, _ = await use(signed, token, bob)
        assert (status, body["code"]) == (404, "bad_link")
    invites = (await call(signed, "GET", "/sessions/s1/invites", ann))[1]["data"]
    assert [invite["inviteId"] for invite in invites] == [valid["inviteId"]] and "link" not in invites[0]
    assert (await call(signed, "GET", "/sessions/s1", bob))[0] == 200
    assert (await call(signed, "DELETE", "/sessions/s1", ann))[0] == 204
    await call(signed, "POST", "/sessions", ann, json={"sessionId": "s1"})
    assert (await use(signed, valid["token"], bob))[1]["code"] == "bad_link"


async def test_a_plain_http_address_signs_no_browser_in(tmp_path: Path) -> None:
    """Except on a loopback name, or with `allow_http`. The link is not used up."""
    hub = await Hub(tmp_path, options={"sign_in": True, "hosts": ("hub.example",)}).start()
    token = (await commands.invite_person(hub.door, OPERATOR, "Ann")).rpartition("#")[2]
    elsewhere = {"Host": f"hub.example:{hub.port}", "Origin": f"http://hub.example:{hub.port}"}
    status, body, _ = await call(hub, "POST", "/sign-in", json={"token": token}, headers=elsewhere)
    assert (status, body["code"]) == (403, "refused") and "allow_http" in body["error"]
    await hub.stop()
    hub.options["allow_http"] = True
    await hub.start()
    elsewhere = {"Host": f"hub.example:{hub.port}", "Origin": f"http://hub.example:{hub.port}"}
    status, _, cookies = await call(hub, "POST", "/sign-in", json={"token": token}, headers=elsewhere)
    (cookie,) = cookies.values()
    assert status == 200 and not cookie["secure"] and cookie["httponly"]
    await hub.stop()


async def test_behind_https_the_cookie_is_secure_and_of_this_host_only(tmp_path: Path) -> None:
    """Its name begins with `__Host-`, which browsers take only over https, for the path /, without a domain."""
    options = {"sign_in": True, "trusted_proxies": ("127.0.0.1",), "hosts": ("hub.example",)}
    hub = await Hub(tmp_path, options=options).start()
    token = (await commands.invite_person(hub.door, OPERATOR, "Ann")).rpartition("#")[2]
    proxied = {"Host": "hub.example", "X-Forwarded-For": "192.0.2.7", "X-Forwarded-Proto": "https"}
    own = {"Origin": "https://hub.example"}
    status, _, cookies = await call(hub, "POST", "/sign-in", json={"token": token}, headers=proxied | own)
    cookie = cookies["__Host-hubbub"]
    assert status == 200 and cookie["secure"] and cookie["httponly"] and cookie["samesite"] == "Lax"
    assert (cookie["path"], cookie["domain"]) == ("/", "")
    headers = proxied | own | {"Cookie": f"__Host-hubbub={cookie.value}"}
    assert (await call(hub, "GET", "/me", headers=headers))[0] == 200
    assert (await call(hub, "POST", "/sessions", headers=headers | {"Origin": "http://hub.example"}, json={}))[0] != 201
    await hub.stop()
