"""The routes beside the WebSocket, and who may call them."""

from typing import Any

import aiohttp
import pytest
import structlog
from support.hub import Hub

from hub.access.doors import check_bind
from hub.ids import Key
from hub.observe.logging import log_to_stderr
from hub.settings import ConfigError, Settings


async def get(hub: Hub, path: str, method: str = "GET", **headers: str) -> tuple[int, Any, Any]:
    async with aiohttp.ClientSession() as http:
        async with http.request(method, hub.url + path, headers=headers) as answer:
            body = await answer.read()
            is_json = answer.content_type == "application/json"
            return answer.status, await answer.json() if is_json else body.decode(), answer.headers


@pytest.mark.parametrize("base", ["", "/api/v1"])
async def test_health_and_ready_say_ok(hub: Hub, base: str) -> None:
    """At the root and under the base; a hub that goes down is not ready, but still healthy."""
    await hub.start()
    assert (await get(hub, base + "/health"))[:2] == (200, "OK")
    assert (await get(hub, base + "/ready"))[:2] == (200, "OK")
    hub.node.drain()
    assert (await get(hub, base + "/ready"))[0] == 503
    assert (await get(hub, base + "/health"))[0] == 200


async def test_agents_are_listed_with_their_state(hub: Hub) -> None:
    """A broken one with its error."""
    hub.agent("broken.py", "def broken(x, y, z): pass")
    hub.agent("good.py", '"""Is good."""\nasync def good(message: str):\n    yield "x"')
    await hub.start()
    status, page, _ = await get(hub, "/api/v1/agents")
    assert status == 200 and len(page["data"]) == 4 and page["more"] is False
    agents = {agent["agentId"]: agent for agent in page["data"]}
    assert agents["good"] == {"agentId": "good", "description": "Is good.", "status": "ok"}
    assert agents["broken"]["status"] == "broken" and "broken.py" in agents["broken"]["error"]


async def test_errors_have_one_form_and_echo_nothing(hub: Hub) -> None:
    """A missing page, a wrong method, a Host or Origin that is not allowed, a bad query."""
    await hub.start()
    for path, method, headers, status, code in (
        ("/<script>", "GET", {}, 404, "not_found"),
        ("/health", "POST", {}, 405, "method_not_allowed"),
        ("/health", "GET", {"Host": "evil<x>.example"}, 403, "refused"),
        ("/health", "GET", {"Origin": "https://evil.example"}, 403, "refused"),
        ("/api/v1/ws?sessionId=a%20b", "GET", {}, 400, "bad_id"),
        ("/api/v1/ws?sessionId=a&afterSeq=-1", "GET", {}, 400, "bad_query"),
    ):
        found, body, _ = await get(hub, path, method, **headers)
        assert (found, body["code"]) == (status, code)
        assert set(body) == {"error", "code"} and "evil" not in body["error"] and "<" not in body["error"]


async def test_an_allowed_origin_may_read_and_caches_are_told(hub: Hub) -> None:
    """CORS for loopback pages and those of the settings, with Vary: Origin on every answer."""
    hub.options = {"origins": ("https://app.example",)}
    await hub.start()
    for origin in ("http://localhost:5173", "https://app.example"):
        _, _, headers = await get(hub, "/api/v1/agents", Origin=origin)
        assert headers["Access-Control-Allow-Origin"] == origin and "Origin" in headers["Vary"]
        asked = {"Origin": origin, "Access-Control-Request-Method": "GET"}
        status, _, headers = await get(hub, "/api/v1/agents", "OPTIONS", **asked)
        assert status == 200 and headers["Access-Control-Allow-Origin"] == origin
    _, _, headers = await get(hub, "/api/v1/agents")
    assert "Access-Control-Allow-Origin" not in headers and "Origin" in headers["Vary"]


@pytest.mark.parametrize(
    "host, opened, refused",
    [
        ("localhost", False, False),
        ("0.0.0.0", False, True),
        ("192.0.2.1", False, True),
        ("0.0.0.0", True, False),
        ("::1", False, False),
    ],
)
def test_the_network_is_not_opened_by_mistake(host: str, opened: bool, refused: bool) -> None:
    """A bind past loopback needs the setting that the message names."""
    settings = Settings(host=host, open_to_network=opened)
    if refused:
        with pytest.raises(ConfigError, match="open_to_network"):
            check_bind(settings)
    else:
        check_bind(settings)


def test_a_failure_is_logged_without_the_values_of_variables(capsys: pytest.CaptureFixture[str]) -> None:
    """They may hold what people wrote, and a node takes minutes to be written out."""
    log_to_stderr()
    try:
        secret = " ".join(("what", "people", "wrote"))
        structlog.get_logger().info(secret.upper())
        raise LookupError("no such thing")
    except LookupError:
        structlog.get_logger().exception("a request failed")
    finally:
        structlog.reset_defaults()
    said = capsys.readouterr().err
    assert "LookupError: no such thing" in said and "WHAT PEOPLE WROTE" in said and "what people wrote" not in said


def test_no_value_in_the_output_ends_a_line_or_is_obeyed_by_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """A path is a client's, the name of a logger an agent's."""
    log_to_stderr()
    try:
        structlog.get_logger().warning("refused", path="/\x1b]0;title\x07", logger="main\n2026-01-01 forged")
    finally:
        structlog.reset_defaults()
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "path=/\\x1b]0;title\\x07" in said and "[main\\n2026-01-01 forged]" in said


async def test_what_holds_the_whole_node_is_named_in_a_line(hub: Hub) -> None:
    """asyncio and tracebacks name objects; each of these leads to all others."""
    await hub.start()
    client, node = await hub.connect("?sessionId=s1"), hub.node
    await client.send(type="ping")
    await client.until_type("pong")
    (connection,) = node.registry.connections
    session = node.sessions[Key("s1")]
    for one in (node, node.registry, connection, session, session.outbox, session.channel, node.pages, node.files):
        assert len(repr(one)) < 100
