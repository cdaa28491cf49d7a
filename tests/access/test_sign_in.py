"""Sign-in: keys, frames, links, cookies and tickets, against a real hub over real sockets."""

import time
from pathlib import Path
from typing import Any

import aiohttp
import jwt
import pytest
from playwright.async_api import Browser
from support.browser import needs_browser
from support.hub import Client, Hub
from support.people import bearer

from hub.access.principal import OPERATOR
from hub.commands import table as commands
from hub.seams import Seams

# Make a session and a ticket with a key, and open an EventSource with the ticket.
OPEN_EVENT_SOURCE = """async (key) => {
  const options = { method: 'POST', body: '{"sessionId": "s1"}', headers: { Authorization: `Bearer ${key}` } }
  const session = await fetch('/api/v1/sessions', options)
  const answer = await fetch('/api/v1/tickets', options)
  const source = new EventSource(`/api/v1/sessions/s1/events?ticket=${(await answer.json()).ticket}`)
  const state = await new Promise((resolve) => {
    source.onopen = () => resolve('open')
    source.onerror = () => resolve('error')
  })
  source.close()
  return [session.status, answer.status, state]
}"""


async def call(
    hub: Hub, http: aiohttp.ClientSession, method: str, path: str, key: str | None = None, **options: Any
) -> tuple[int, Any]:
    headers = options.pop("headers", {}) | (bearer(key) if key is not None else {})
    async with http.request(method, f"{hub.url}/api/v1{path}", headers=headers, **options) as response:
        text = await response.text()
        return response.status, (await response.json() if text.startswith("{") else text)


def set_clock(hub: Hub) -> list[int]:
    """Return a list of times, in milliseconds. Its last item is always the time of the hub."""
    times = [int(time.time()) * 1000]
    hub.seams = Seams(now=lambda: times[-1])
    return times


async def connect_with(hub: Hub, key: str, query: str = "", **options: Any) -> Client:
    return await hub.connect(query, headers=bearer(key), **options)


async def test_a_request_without_a_credential_is_refused(signed: Hub, http: aiohttp.ClientSession) -> None:
    """With 401, the header WWW-Authenticate and the way to sign in. Health, documents and the console stay open."""
    status, body = await call(signed, http, "GET", "/sessions")
    assert (status, body["code"]) == (401, "unauthenticated") and "Bearer" in body["error"]
    async with http.get(f"{signed.url}/api/v1/sessions") as response:
        assert response.headers["WWW-Authenticate"] == "Bearer"
    for path in ("/health", "/ready", "/openapi.json", "/", "/client.js"):
        async with http.get(f"{signed.url}{path}") as response:
            assert response.status == 200, path


async def test_wrong_credentials_get_the_same_answer_as_none(signed: Hub, http: aiohttp.ClientSession) -> None:
    """Also a right id with a wrong secret, a revoked key and an expired key."""
    key = await signed.key("ann")
    revoked = await signed.key("bob")
    await commands.revoke_credential(signed.door, OPERATOR, revoked.split("_")[1])
    expired = await signed.key("eve", days=-1)
    answers = [await call(signed, http, "GET", "/sessions")]
    for text in (key[:-1] + ("0" if key[-1] != "0" else "1"), revoked, expired, "x", "hk_" + "0" * 16 + "_" + "0" * 40):
        answers.append(await call(signed, http, "GET", "/sessions", text))
    assert len({str(answer) for answer in answers}) == 1 and answers[0][0] == 401
    assert (await call(signed, http, "GET", "/me", key))[1]["name"] == "ann"


async def test_a_socket_with_a_wrong_key_is_refused_before_the_upgrade(signed: Hub) -> None:
    with pytest.raises(aiohttp.WSServerHandshakeError) as refusal:
        await connect_with(signed, "hk_wrong")
    assert refusal.value.status == 401


async def test_a_plain_client_signs_in_with_auth_and_stays_plain(signed: Hub) -> None:
    client = await signed.connect()
    await client.send(type="chat", agentId="echo", message="hello")
    assert (await client.next())["code"] == "unauthenticated"
    await client.send(type="auth", token=await signed.key("ann"), ref=1)
    assert await client.next() == {"type": "ok", "ref": 1}
    await client.send(type="chat", agentId="echo", message="hello")
    await client.until_done()
    assert client.text() == "hello "


async def test_an_extended_client_signs_in_with_hello(signed: Hub) -> None:
    """Its welcome comes once, with its principal. So does that of a client with the subprotocol that sends auth."""
    key = await signed.key("ann")
    client = await signed.connect()
    await client.send(type="hello", token=key)
    assert (await client.next())["principal"]["name"] == "ann"
    other = await signed.connect(protocols=("hubbub.v1",))
    await other.send(type="auth", token=key)
    assert [(await other.next())["type"] for _ in range(2)] == ["ok", "welcome"]
    await client.send(type="ping")
    assert (await client.next())["type"] == "pong"


async def test_the_socket_of_an_agent_takes_auth_as_its_first_frame(signed: Hub) -> None:
    """As the other socket does. Its chats go to that agent."""
    client = await signed.connect(path="/agents/echo/ws")
    await client.send(type="chat", message="hello", sessionId="s1")
    assert (await client.next())["payload"]["code"] == "unauthenticated"
    await client.send(type="auth", token=await signed.key("ann"), ref=1)
    assert (await client.next())["payload"] == {"event": "ok", "ref": 1}
    await client.send(type="chat", message="hello", sessionId="s1")
    assert (await client.find(lambda frame: frame["type"] == "text"))["payload"]["content"] == "hello "


async def test_the_socket_of_an_agent_tells_nothing_before_the_sign_in(signed: Hub) -> None:
    """A missing agent looks as any other one. After the sign-in, the client gets an error, and stays connected."""
    client = await signed.connect(path="/agents/missing/ws")
    await client.send(type="auth", token=await signed.key("ann", agents=["echo"]), ref=1)
    payloads = [(await client.next())["payload"] for _ in range(2)]
    assert payloads[0] == {"event": "ok", "ref": 1} and payloads[1]["code"] == "unknown_agent", payloads
    await client.send(type="ping")
    assert (await client.find(lambda frame: frame["payload"].get("event") == "pong"))["type"] == "status"
    with pytest.raises(aiohttp.WSServerHandshakeError, match="404"):
        await signed.connect(path="/agents/missing/ws", headers=bearer(await signed.key("ann")))


async def test_a_wrong_token_closes_the_socket_with_4500(signed: Hub) -> None:
    client = await signed.connect()
    await client.send(type="auth", token="hk_wrong")
    assert (await client.next())["code"] == "unauthenticated"
    assert await client.wait_closed() == 4500


async def test_a_key_of_another_principal_cannot_renew_a_connection(signed: Hub) -> None:
    """A second key of the same principal can."""
    ann, second, bob = await signed.key("ann"), await signed.key("ann"), await signed.key("bob")
    client = await connect_with(signed, ann)
    await client.send(type="auth", token=bob, ref=1)
    assert (await client.next())["code"] == "unauthenticated"
    await client.send(type="auth", token=second, ref=2)
    assert await client.next() == {"type": "ok", "ref": 2}


async def test_a_revoked_key_closes_its_connections_with_4503(signed: Hub) -> None:
    """Those of another key of the same principal stay."""
    first, second = await signed.key("ann"), await signed.key("ann")
    client, other = await connect_with(signed, first), await connect_with(signed, second)
    await commands.revoke_credential(signed.door, OPERATOR, first.split("_")[1])
    assert await client.wait_closed() == 4503
    await other.send(type="ping")
    assert (await other.next())["type"] == "pong"


async def test_an_expired_credential_closes_its_connections_with_4001(hub: Hub) -> None:
    hub.options["sign_in"] = True
    times = set_clock(hub)
    await hub.start()
    client = await connect_with(hub, await hub.key("ann", days=1))
    times.append(times[0] + 24 * 3600 * 1000)
    assert await client.wait_closed() == 4001


async def test_a_one_time_link_signs_a_browser_in_once(signed: Hub, http: aiohttp.ClientSession) -> None:
    """The cookie cannot be read by scripts, and works for requests and sockets of the hub's own pages only."""
    link = await commands.invite_person(signed.door, OPERATOR, "Ann", role="admin")
    token = link.rpartition("#")[2]
    own = {"Origin": signed.url}
    status, body = await call(signed, http, "POST", "/sign-in", json={"token": token}, headers=own)
    assert (status, body["name"], body["role"]) == (200, "Ann", "admin")
    (cookie,) = http.cookie_jar
    assert (cookie.key, cookie["httponly"], cookie["samesite"]) == (f"hubbub-{signed.port}", True, "Lax")
    assert (await call(signed, http, "GET", "/me"))[1]["name"] == "Ann"
    assert (await call(signed, http, "POST", "/sessions", json={}, headers=own))[0] == 201
    for headers in ({}, {"Origin": "http://localhost:1"}):
        assert (await call(signed, http, "POST", "/sessions", json={}, headers=headers))[0] == 401
    async with aiohttp.ClientSession() as other:
        again = await call(signed, other, "POST", "/sign-in", json={"token": token}, headers=own)
    assert (again[0], again[1]["code"]) == (404, "bad_link")


async def test_signing_out_ends_the_cookie_and_its_connections(signed: Hub, http: aiohttp.ClientSession) -> None:
    token = (await commands.invite_person(signed.door, OPERATOR, "Ann")).rpartition("#")[2]
    own = {"Origin": signed.url}
    await call(signed, http, "POST", "/sign-in", json={"token": token}, headers=own)
    ws = await http.ws_connect(f"{signed.url}/api/v1/ws", headers=own)
    (cookie,) = http.cookie_jar
    assert (await call(signed, http, "POST", "/sign-out", headers=own))[0] == 204
    while (message := await ws.receive()).type is aiohttp.WSMsgType.TEXT:
        pass
    assert ws.close_code == 4503, message
    stolen = {"Cookie": f"{cookie.key}={cookie.value}"}
    assert (await call(signed, http, "GET", "/me", headers=stolen))[0] == 401


async def test_a_ticket_opens_one_socket(signed: Hub, http: aiohttp.ClientSession) -> None:
    key = await signed.key("ann")
    ticket = (await call(signed, http, "POST", "/tickets", key, json={}))[1]["ticket"]
    client = await signed.connect(f"?ticket={ticket}")
    await client.send(type="ping")
    assert (await client.next())["type"] == "pong"
    with pytest.raises(aiohttp.WSServerHandshakeError) as refusal:
        await signed.connect(f"?ticket={ticket}")
    assert refusal.value.status == 401


async def test_a_ticket_is_bound_to_its_origin_session_and_principal(signed: Hub, http: aiohttp.ClientSession) -> None:
    """It is dead as soon as its key is revoked."""
    key = await signed.key("ann")
    await call(signed, http, "POST", "/sessions", key, json={"sessionId": "s1"})
    await call(signed, http, "POST", "/sessions", key, json={"sessionId": "s2"})

    async def ticket(**headers: str) -> str:
        answer = await call(signed, http, "POST", "/tickets", key, json={"sessionId": "s1"}, headers=headers)
        return str(answer[1]["ticket"])

    assert (await call(signed, http, "GET", f"/sessions/s1/events?ticket={await ticket()}"))[0] == 200
    assert (await call(signed, http, "GET", f"/sessions/s2/events?ticket={await ticket()}"))[0] == 401
    page = "http://localhost:1"
    assert (await call(signed, http, "GET", f"/sessions/s1/events?ticket={await ticket(Origin=page)}"))[0] == 401
    path = f"/sessions/s1/events?ticket={await ticket()}"
    assert (await call(signed, http, "GET", path, headers={"Origin": page}))[0] == 401
    text = await ticket()
    await commands.revoke_credential(signed.door, OPERATOR, key.split("_")[1])
    assert (await call(signed, http, "GET", f"/sessions/s1/events?ticket={text}"))[0] == 401


async def test_an_event_source_of_the_hubs_own_page_uses_a_ticket(signed: Hub, http: aiohttp.ClientSession) -> None:
    """A browser sends the Origin with the POST for the ticket, and none with the GET of an EventSource."""
    key, own = await signed.key("ann"), {"Origin": signed.url}
    await call(signed, http, "POST", "/sessions", key, json={"sessionId": "s1"})
    answer = await call(signed, http, "POST", "/tickets", key, json={"sessionId": "s1"}, headers=own)
    path = f"/sessions/s1/events?ticket={answer[1]['ticket']}"
    for headers, status in (({}, 200), (own, 200), ({"Origin": "http://localhost:1"}, 401)):
        assert (await call(signed, http, "GET", path, headers=headers))[0] == status


@needs_browser
async def test_a_browser_opens_an_event_source_with_a_ticket(signed: Hub, browser: Browser) -> None:
    """A page of the hub itself, which has a key and no cookie."""
    page = await browser.new_page()
    await page.goto(f"{signed.url}/health")
    states = await page.evaluate(OPEN_EVENT_SOURCE, await signed.key("ann"))
    assert states == [201, 201, "open"]


async def test_a_jwt_signs_in_the_same_principal_each_time(tmp_path: Path, http: aiohttp.ClientSession) -> None:
    """Its first token makes the principal. Its connections are closed with 4001 when the token expires."""
    secret = "s" * 32
    options = {"jwt_issuer": "https://id.example", "jwt_audience": "hub", "jwt_secret": secret}
    hub = Hub(tmp_path, options=options)
    times = set_clock(hub)
    await hub.start()

    def token(subject: str) -> str:
        claims = {"iss": "https://id.example", "aud": "hub", "sub": subject, "name": subject.title()}
        return jwt.encode(claims | {"exp": times[0] // 1000 + 60}, secret, algorithm="HS256")

    first, again, other = [(await call(hub, http, "GET", "/me", token(name)))[1] for name in ("ann", "ann", "bob")]
    assert first == again and (first["name"], first["role"]) == ("Ann", "member") and other["id"] != first["id"]
    assert (await call(hub, http, "GET", "/me", token("ann") + "x"))[0] == 401
    client = await connect_with(hub, token("ann"))
    times.append(times[0] + 60_000)
    assert await client.wait_closed() == 4001
    await hub.stop()


async def test_a_trusted_proxy_names_the_user(tmp_path: Path, http: aiohttp.ClientSession) -> None:
    """The header of any other peer does not count, nor that of a request by a page that is not the hub's own."""
    options = {"user_header": "X-User", "trusted_proxies": ("127.0.0.1",)}
    hub = await Hub(tmp_path, options=options).start()
    first, again = [(await call(hub, http, "GET", "/me", headers={"X-User": "ann"}))[1] for _ in range(2)]
    assert first == again and (first["name"], first["role"]) == ("ann", "member")
    assert (await call(hub, http, "GET", "/me"))[0] == 401
    for origin, expected in ((hub.url, 201), ("http://localhost:1", 401)):
        headers = {"X-User": "ann", "Origin": origin}
        assert (await call(hub, http, "POST", "/sessions", json={}, headers=headers))[0] == expected
    await hub.stop()
    hub.options["trusted_proxies"] = ("192.0.2.1",)
    await hub.start()
    assert (await call(hub, http, "GET", "/me", headers={"X-User": "ann"}))[0] == 401
    await hub.stop()
