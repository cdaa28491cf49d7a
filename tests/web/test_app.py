"""Health, readiness, agents and errors over HTTP, the CORS headers, and the log output."""

from typing import Any

import aiohttp
import pytest
import structlog
from support.hub import Hub
from support.waiting import PATIENCE

from hub.access.doors import check_bind
from hub.ids import Key
from hub.node import log_probe
from hub.observe.logging import log_to_stderr
from hub.settings import ConfigError, Settings

HANDSHAKE = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"}


async def get(hub: Hub, path: str, method: str = "GET", **headers: str) -> tuple[int, Any, Any]:
    async with aiohttp.ClientSession() as http:
        async with http.request(method, hub.url + path, headers=headers) as answer:
            body = await answer.read()
            is_json = answer.content_type == "application/json"
            return answer.status, await answer.json() if is_json else body.decode(), answer.headers


@pytest.mark.parametrize("base", ["", "/api/v1"])
async def test_health_and_ready_say_ok(hub: Hub, monkeypatch: pytest.MonkeyPatch, base: str) -> None:
    """The routes exist at the root and under the base path. A draining hub is healthy, but not ready."""
    monkeypatch.setattr(log_probe, "WAIT_SECONDS", PATIENCE)  # on a slow disk, a commit may take longer
    await hub.start()
    assert (await get(hub, base + "/health"))[:2] == (200, "OK")
    assert (await get(hub, base + "/ready"))[:2] == (200, "OK")
    hub.node.drain()
    assert (await get(hub, base + "/ready"))[0] == 503
    assert (await get(hub, base + "/health"))[0] == 200


async def test_agents_are_listed_with_their_state(hub: Hub) -> None:
    """A broken agent is listed with its error, and an agent that takes tools says so. `welcome` has the same list."""
    hub.agent("broken.py", "def broken(x, y, z): pass")
    hub.agent("good.py", '"""Is good."""\nasync def good(message: str):\n    yield "x"')
    hub.agent("handy.py", "from hub import agent\n@agent(tools=True)\nasync def handy(run):\n    yield 'x'")
    await hub.start()
    status, page, _ = await get(hub, "/api/v1/agents")
    assert status == 200 and len(page["data"]) == 5 and page["more"] is False
    agents = {agent["agentId"]: agent for agent in page["data"]}
    assert agents["handy"] == {"agentId": "handy", "description": "", "status": "ok", "tools": True}
    assert (await get(hub, "/api/v1/agents/handy"))[1] == agents["handy"]
    client = await hub.connect(extended=True)
    assert client.frames[0]["agents"] == page["data"]
    assert agents["good"] == {"agentId": "good", "description": "Is good.", "status": "ok"}
    assert agents["broken"]["status"] == "broken" and "broken.py" in agents["broken"]["error"]


async def test_all_errors_have_one_form_and_do_not_echo_input(hub: Hub) -> None:
    """All have `error` and `code`: an unknown path, a wrong method, a refused Host or Origin, a bad query."""
    await hub.start()
    for path, method, headers, status, code in (
        ("/<script>", "GET", {}, 404, "not_found"),
        ("/health", "POST", {}, 405, "method_not_allowed"),
        ("/health", "GET", {"Host": "evil<x>.example"}, 403, "refused"),
        ("/health", "GET", {"Origin": "https://evil<x>.example"}, 403, "refused"),
        ("/api/v1/ws?sessionId=<evil>", "GET", {}, 426, "upgrade_required"),
        ("/api/v1/ws?sessionId=a%20b", "GET", HANDSHAKE, 400, "bad_id"),
        ("/api/v1/ws?sessionId=a&afterSeq=-1", "GET", HANDSHAKE, 400, "bad_query"),
    ):
        actual_status, body, _ = await get(hub, path, method, **headers)
        assert (actual_status, body["code"]) == (status, code)
        assert set(body) == {"error", "code"} and "evil" not in body["error"] and "<" not in body["error"]


async def test_a_wrong_method_gets_the_methods_of_the_path(hub: Hub) -> None:
    await hub.start()
    _, body, headers = await get(hub, "/api/v1/files", "PUT")
    assert body["error"].endswith(": use POST") and "POST" in headers["Allow"]


async def test_an_allowed_origin_gets_cors_headers_and_every_response_varies_by_origin(hub: Hub) -> None:
    """Pages on loopback are allowed, and the origins in the settings. Every response has `Vary: Origin`."""
    hub.options = {"origins": ("https://app.example",)}
    await hub.start()
    for origin in ("http://localhost:5173", "https://app.example"):
        _, _, headers = await get(hub, "/api/v1/agents", Origin=origin)
        assert headers["Access-Control-Allow-Origin"] == origin and "Origin" in headers["Vary"]
        request_headers = {"Origin": origin, "Access-Control-Request-Method": "GET"}
        status, _, headers = await get(hub, "/api/v1/agents", "OPTIONS", **request_headers)
        assert status == 200 and headers["Access-Control-Allow-Origin"] == origin
    _, _, headers = await get(hub, "/api/v1/agents")
    assert "Access-Control-Allow-Origin" not in headers and "Origin" in headers["Vary"]


@pytest.mark.parametrize(
    "host, sign_in, refused",
    [
        ("localhost", False, False),
        ("0.0.0.0", False, True),
        ("192.0.2.1", False, True),
        ("0.0.0.0", True, False),
        ("::1", False, False),
    ],
)
def test_a_bind_to_the_network_needs_sign_in(host: str, sign_in: bool, refused: bool) -> None:
    """Without sign-in, any address but loopback is refused. The error has the line to set."""
    settings = Settings(host=host, sign_in=sign_in)
    if refused:
        with pytest.raises(ConfigError, match="set sign_in = true in hubbub.toml"):
            check_bind(settings)
    else:
        check_bind(settings)


def test_a_failure_is_logged_without_the_values_of_variables(
    capsys: pytest.CaptureFixture[str], restored_logging: None
) -> None:
    """Variables may contain messages of users, and the repr of a complete node would take minutes."""
    log_to_stderr()
    try:
        secret = " ".join(("what", "people", "wrote"))
        structlog.get_logger().info(secret.upper())
        raise LookupError("no such thing")
    except LookupError:
        structlog.get_logger().exception("a request failed")
    output = capsys.readouterr().err
    assert (
        "LookupError: no such thing" in output and "WHAT PEOPLE WROTE" in output and "what people wrote" not in output
    )


def test_control_characters_in_log_values_are_escaped(
    capsys: pytest.CaptureFixture[str], restored_logging: None
) -> None:
    """A client chooses a path, and an agent the name of a logger: neither may forge a line or control a terminal."""
    log_to_stderr()
    structlog.get_logger().warning("refused", path="/\x1b]0;title\x07", logger="main\n2026-01-01 forged")
    output = capsys.readouterr().err
    assert output.count("\n") == 1 and "path=/\\x1b]0;title\\x07" in output and "[main\\n2026-01-01 forged]" in output


async def test_objects_that_refer_to_the_node_have_a_short_repr(hub: Hub) -> None:
    """asyncio and tracebacks print the repr of objects, and each of these objects refers to all others."""
    await hub.start()
    client, node = await hub.connect("?sessionId=s1"), hub.node
    await client.send(type="ping")
    await client.until_type("pong")
    (connection,) = node.registry.connections
    session = node.sessions[Key("s1")]
    for item in (node, node.registry, connection, session, session.outbox, session.channel, node.pages, node.files):
        assert len(repr(item)) < 100
