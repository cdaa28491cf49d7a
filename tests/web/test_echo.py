"""The route `echo` tests the way to the hub, for whoever has a token of the operator."""

import asyncio
from typing import Any

import aiohttp
import pytest
from support.hub import Hub
from support.use_cases import PROBE_REPORT
from support.waiting import PATIENCE

from hub.access.principal import OPERATOR
from hub.access.probes import MAX_PROBES, PROBE_MS, ProbeReport, Probes
from hub.commands import table

FOREIGN = "192.0.2.1"


@pytest.fixture(params=[False, True], ids=["open", "sign-in"])
async def served(hub: Hub, request: pytest.FixtureRequest) -> Hub:
    """A hub without and with sign-in."""
    hub.options["sign_in"] = request.param
    return await hub.start()


async def make_token(hub: Hub) -> str:
    return await table.create_probe(hub.door, OPERATOR)


def make_url(hub: Hub, token: str) -> str:
    return f"{hub.url}/api/v1/echo?token={token}"


async def get(url: str, **options: Any) -> tuple[int, str]:
    async with aiohttp.ClientSession() as http, http.get(url, **options) as response:
        return response.status, await response.text()


async def find_report(hub: Hub, token: str) -> ProbeReport | None:
    return await table.find_probe(hub.door, OPERATOR, token.split("_")[1])


async def require_report(hub: Hub, token: str) -> ProbeReport:
    report = await find_report(hub, token)
    assert report is not None
    return report


async def test_the_operator_gets_the_report(served: Hub) -> None:
    """It has the headers, and the client as the hub understands it. The answer has only the size of the body."""
    token = await make_token(served)
    assert await find_report(served, token) is None
    headers = {"Origin": "http://localhost:1", "Authorization": "Bearer canary-1", "Cookie": "a=canary-2"}
    async with aiohttp.ClientSession() as http:
        async with http.post(make_url(served, token), headers=headers, data=b"x" * 100_000) as response:
            answer = await response.json()
            assert (response.status, response.headers["X-Hubbub-Echo"], answer["bytes"]) == (200, "1", 100_000)
            assert "canary" not in str(answer) + str(response.headers)
    report = await require_report(served, token)
    assert (report.method, report.version, report.path, report.refusal) == ("POST", "1.1", "/api/v1/echo", None)
    assert report.peer == report.address == "127.0.0.1" and report.scheme == "http"
    assert headers.items() <= dict(report.headers).items()


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({"Host": "hub.example"}, "the Host hub.example of this request"),
        ({"Origin": "https://evil.example"}, "the Origin https://evil.example of this"),
    ],
)
async def test_a_probe_is_refused_as_every_other_request(served: Hub, headers: dict[str, str], reason: str) -> None:
    """The operator gets its report nevertheless, and its token is used up."""
    token = await make_token(served)
    status, body = await get(make_url(served, token), headers=headers)
    assert (status, body) == await get(f"{served.url}/health", headers=headers) and status == 403
    report = await require_report(served, token)
    assert reason in str(report.refusal) and headers.items() <= dict(report.headers).items()
    assert (await get(make_url(served, token)))[0] == 401


async def test_a_probe_through_a_proxy_is_refused_without_sign_in(hub: Hub) -> None:
    await hub.start()
    token = await make_token(hub)
    status, _ = await get(make_url(hub, token), headers={"X-Forwarded-For": FOREIGN})
    assert status == 403 and "a proxy passed this request on" in str((await require_report(hub, token)).refusal)


async def test_a_refused_probe_without_a_token_leaves_nothing(served: Hub) -> None:
    token = await make_token(served)
    for query in ("", "?token=", f"?token={token[:-1]}", f"?token={token[:-1]}{'1' if token[-1] == '0' else '0'}"):
        status, _ = await get(f"{served.url}/api/v1/echo{query}", headers={"Host": "hub.example"})
        assert status == 403
    assert await find_report(served, token) is None


async def test_a_probe_makes_no_principal(hub: Hub) -> None:
    """Although it has a header of a trusted proxy with a user."""
    hub.options.update(user_header="X-User", trusted_proxies=("127.0.0.1",))
    await hub.start()
    before = await table.list_principals(hub.door, OPERATOR)
    token = await make_token(hub)
    headers = {"X-User": "eve", "X-Forwarded-For": FOREIGN}
    assert (await get(make_url(hub, token), headers=headers))[0] == 200
    assert (await require_report(hub, token)).address == FOREIGN
    assert await table.list_principals(hub.door, OPERATOR) == before


async def test_a_report_has_the_scheme_of_the_public_url_if_the_proxy_names_none(hub: Hub) -> None:
    """As for every other request. So browsers can sign in behind this proxy, and the doctor finds nothing wrong."""
    hub.options.update(sign_in=True, trusted_proxies=("127.0.0.1",), public_url="https://hub.example.com")
    await hub.start()
    token = await make_token(hub)
    headers = {"Origin": "https://hub.example.com", "X-Forwarded-For": FOREIGN}
    assert (await get(make_url(hub, token), headers=headers))[0] == 200
    report = await require_report(hub, token)
    assert (report.address, report.scheme, report.host) == (FOREIGN, "https", "hub.example.com")


async def test_a_token_works_once(served: Hub) -> None:
    """Also if two requests come at the same time."""
    url = make_url(served, await make_token(served))
    answers = await asyncio.gather(get(url), get(url))
    assert sorted(status for status, _ in answers) == [200, 401] and (await get(url))[0] == 401


@pytest.mark.parametrize("query", ["", "?token=", "?token=hp_0123456789abcdef_" + "0" * 40, "?token=wrong"])
async def test_without_a_token_there_is_no_answer(served: Hub, query: str) -> None:
    status, body = await get(f"{served.url}/api/v1/echo{query}", headers={"X-Secret": "canary"})
    assert status in (400, 401) and "canary" not in body


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
    token = await make_token(hub)
    assert (await get(f"{hub.url}/api/v1/sessions", headers={"Authorization": f"Bearer {token}"}))[0] == 401
    assert (await get(f"{hub.url}/api/v1/sessions/s1/events?ticket={token}"))[0] == 401
    assert await find_report(hub, token) is None


async def test_a_body_above_the_largest_limit_is_refused(hub: Hub) -> None:
    await hub.start(file_bytes=1000, conversation_bytes=2000)
    async with aiohttp.ClientSession() as http:
        for size, status in ((2000, 200), (2001, 413)):
            async with http.post(make_url(hub, await make_token(hub)), data=b"x" * size) as response:
                assert response.status == status


async def test_a_socket_gets_its_message_back(served: Hub) -> None:
    token = await make_token(served)
    async with aiohttp.ClientSession() as http:
        async with http.ws_connect(make_url(served, token), protocols=("hubbub.v1",)) as socket:
            assert socket.protocol == "hubbub.v1"
            await socket.send_str("hello")
            assert await socket.receive_str() == "hello"
            async with asyncio.timeout(PATIENCE):
                assert (await socket.receive()).type is aiohttp.WSMsgType.CLOSE
    assert (await require_report(served, token)).get_header("upgrade") == "websocket"


async def test_a_stream_has_its_first_event_at_once(served: Hub) -> None:
    """The second one ends it, for a proxy that passes on nothing before."""
    async with aiohttp.ClientSession() as http:
        url = make_url(served, await make_token(served))
        async with http.get(url, headers={"Accept": "text/event-stream"}) as response:
            assert await response.content.readuntil(b"\n\n") == b"data: first\n\n"
            async with asyncio.timeout(PATIENCE):
                assert await response.content.read() == b"data: last\n\n"


def test_a_token_ends_after_a_minute() -> None:
    """The report of a probe stays, also after that."""
    now = 0
    probes = Probes(now=lambda: now, new_secret=lambda size: "0" * 2 * size)
    text = probes.issue()
    now = PROBE_MS
    assert not probes.receive(text, PROBE_REPORT)
    text = probes.issue()
    now += PROBE_MS - 1
    assert probes.receive(text, PROBE_REPORT) and not probes.receive(text, PROBE_REPORT)
    now += PROBE_MS
    assert probes.find_report("0" * 16) == PROBE_REPORT


def test_the_oldest_probes_go_first() -> None:
    """The operator cannot fill the memory."""
    numbers = iter(range(10**6))
    probes = Probes(now=lambda: 0, new_secret=lambda size: f"{next(numbers):0{2 * size}x}")
    first, *others = [probes.issue() for _ in range(MAX_PROBES + 1)]
    assert not probes.receive(first, PROBE_REPORT)
    assert all(probes.receive(text, PROBE_REPORT) for text in others)
