"""The route `echo` reports how a request arrived, to whoever has a token of the operator."""

import asyncio
import json
from typing import Any

import aiohttp
import pytest
from support.hub import Hub
from support.waiting import PATIENCE

from hub.access.principal import OPERATOR
from hub.access.probe_tokens import MAX_PROBE_TOKENS, PROBE_MS, ProbeTokens
from hub.commands import table


@pytest.fixture(params=[False, True], ids=["open", "sign-in"])
async def served(hub: Hub, request: pytest.FixtureRequest) -> Hub:
    """A hub without and with sign-in."""
    hub.options["sign_in"] = request.param
    return await hub.start()


async def make_url(hub: Hub) -> str:
    token = await table.make_probe_token(hub.door, OPERATOR)
    return f"{hub.url}/api/v1/echo?token={token}"


async def get(url: str, **options: Any) -> tuple[int, dict[str, Any]]:
    async with aiohttp.ClientSession() as http, http.get(url, **options) as response:
        return response.status, json.loads(await response.read())


async def test_it_reports_the_request(served: Hub) -> None:
    """Its headers in their order, its body, and the client as the hub understands it."""
    headers = {"X-Forwarded-For": "192.0.2.1", "Origin": "https://evil.example", "Cookie": "a=1"}
    async with aiohttp.ClientSession() as http:
        async with http.post(await make_url(served), headers=headers, data=b"x" * 100_000) as response:
            report = await response.json()
            assert (response.status, response.headers["X-Hubbub-Echo"]) == (200, "1")
    assert (report["method"], report["version"], report["path"]) == ("POST", "1.1", "/api/v1/echo")
    assert report["bytes"] == 100_000 and report["peer"] == report["address"] == "127.0.0.1"
    assert headers.items() <= {name: value for name, value in report["headers"]}.items()


async def test_it_says_why_such_a_request_is_refused(served: Hub) -> None:
    """Elsewhere it is refused for its Host; here it is answered, so that the doctor can tell what arrived."""
    status, report = await get(await make_url(served), headers={"Host": "hub.example"})
    assert status == 200 and report["host"] == "hub.example" and "add it to `hosts`" in report["refusal"]
    status, error = await get(f"{served.url}/health", headers={"Host": "hub.example"})
    assert (status, error["code"]) == (403, "refused")


async def test_a_token_works_once(served: Hub) -> None:
    url = await make_url(served)
    assert [(await get(url))[0] for _ in range(2)] == [200, 401]


@pytest.mark.parametrize("query", ["", "?token=", "?token=hp_0123456789abcdef_" + "0" * 40, "?token=wrong"])
async def test_without_a_token_nothing_is_reported(served: Hub, query: str) -> None:
    status, error = await get(f"{served.url}/api/v1/echo{query}", headers={"X-Secret": "canary"})
    assert status in (400, 401) and "canary" not in str(error)


async def test_a_key_or_a_ticket_is_no_token(hub: Hub) -> None:
    """And a token opens nothing else."""
    hub.options["sign_in"] = True
    await hub.start()
    key = await hub.key("ann", "admin")
    bearer = {"Authorization": f"Bearer {key}"}
    assert (await get(f"{hub.url}/api/v1/echo?token={key}", headers=bearer))[0] == 401
    async with aiohttp.ClientSession() as http:
        async with http.post(f"{hub.url}/api/v1/tickets", headers=bearer, json={}) as response:
            ticket = (await response.json())["ticket"]
    assert (await get(f"{hub.url}/api/v1/echo?token={ticket}"))[0] == 401
    token = await table.make_probe_token(hub.door, OPERATOR)
    assert (await get(f"{hub.url}/api/v1/sessions", headers={"Authorization": f"Bearer {token}"}))[0] == 401
    assert (await get(f"{hub.url}/api/v1/sessions/s1/events?ticket={token}"))[0] == 401


async def test_a_body_above_the_largest_limit_is_refused(hub: Hub) -> None:
    await hub.start(file_bytes=1000, conversation_bytes=2000)
    async with aiohttp.ClientSession() as http:
        for size, status in ((2000, 200), (2001, 413)):
            async with http.post(await make_url(hub), data=b"x" * size) as response:
                assert response.status == status


async def test_a_socket_gets_the_report_and_its_message(served: Hub) -> None:
    async with aiohttp.ClientSession() as http:
        async with http.ws_connect(await make_url(served), protocols=("hubbub.v1",)) as socket:
            report = json.loads(await socket.receive_str())
            assert socket.protocol == "hubbub.v1" and ["Upgrade", "websocket"] in report["headers"]
            await socket.send_str("hello")
            assert await socket.receive_str() == "hello"
            async with asyncio.timeout(PATIENCE):
                assert (await socket.receive()).type is aiohttp.WSMsgType.CLOSE


async def test_a_stream_has_its_first_event_at_once(served: Hub) -> None:
    """The second one ends it, for a proxy that passes on nothing before."""
    async with aiohttp.ClientSession() as http:
        async with http.get(await make_url(served), headers={"Accept": "text/event-stream"}) as response:
            first = await response.content.readuntil(b"\n\n")
            assert json.loads(first.removeprefix(b"data: "))["path"] == "/api/v1/echo"
            async with asyncio.timeout(PATIENCE):
                assert await response.content.read() == b"data: end\n\n"


def test_a_token_ends_after_a_minute() -> None:
    now = 0
    tokens = ProbeTokens(now=lambda: now, new_secret=lambda size: "0" * 2 * size)
    text = tokens.issue()
    now = PROBE_MS
    assert not tokens.redeem(text)
    text = tokens.issue()
    now += PROBE_MS - 1
    assert tokens.redeem(text) and not tokens.redeem(text)


def test_the_oldest_tokens_go_first() -> None:
    """The operator cannot fill the memory."""
    numbers = iter(range(10**6))
    tokens = ProbeTokens(now=lambda: 0, new_secret=lambda size: f"{next(numbers):0{2 * size}x}")
    first, *others = [tokens.issue() for _ in range(MAX_PROBE_TOKENS + 1)]
    assert not tokens.redeem(first) and all(map(tokens.redeem, others))
