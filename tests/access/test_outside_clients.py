"""The clients of other projects on a hub with sign-in: OpenAI's, AG-UI's, curl, and plain WebSockets.

tests/client and tests/client_js test the clients of the hub.
"""

import asyncio
import json
import subprocess
import sys
from typing import Any

import aiohttp
import openai
import pytest
from openai import AsyncOpenAI
from playwright.async_api import Browser
from support import agui
from support.browser import Tab, needs_browser, serve_other_origin
from support.hub import Hub
from support.process import needs_curl
from support.waiting import PATIENCE

from hub.access.principal import OPERATOR
from hub.commands import table as commands

WHO = """
from hub import Run

async def who(run: Run):
    return f"{run.principal.id} {run.principal.name}"
"""
SINGLE = """
import asyncio
from hub import agent

@agent(max_runs=1)
async def single(message: str):
    yield "one "
    await asyncio.sleep(3600)
"""
HELLO: list[Any] = [{"role": "user", "content": "hello there"}]


@pytest.fixture(autouse=True)
def own_agents(hub: Hub) -> None:
    hub.agent("who.py", WHO)
    hub.agent("single.py", SINGLE)


# --- OpenAI's client --------------------------------------------------------------------------------------------------


def openai_client(hub: Hub, key: str) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=f"{hub.url}/v1", api_key=key, max_retries=0, timeout=PATIENCE)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("session", [{}, {"sessionId": "s1"}])
async def test_a_key_is_the_api_key_of_openais_client(signed: Hub, stream: bool, session: dict[str, str]) -> None:
    """With and without a session; the agent sees whose key it is."""
    async with openai_client(signed, await signed.key("ann")) as client:
        request: Any = {"model": "who", "messages": HELLO, "stream": stream, "extra_body": session}
        answer: Any = await client.chat.completions.create(**request)
        if stream:
            text = "".join([chunk.choices[0].delta.content or "" async for chunk in answer])
        else:
            text = answer.choices[0].message.content
    assert text.startswith("p_") and text.endswith(" ann")


async def test_a_wrong_api_key_is_an_authentication_error(signed: Hub) -> None:
    """For models and completions, in OpenAI's form and with OpenAI's code."""
    async with openai_client(signed, "none") as client:
        for call in (
            lambda: client.models.list(),
            lambda: client.chat.completions.create(model="echo", messages=HELLO),
        ):
            with pytest.raises(openai.AuthenticationError) as refusal:
                await call()
            assert refusal.value.code == "invalid_api_key" and refusal.value.response.headers["WWW-Authenticate"]


async def test_a_principal_without_the_permission_gets_a_permission_error(signed: Hub) -> None:
    """An observer may use no agent."""
    async with openai_client(signed, await signed.key("olga", role="observer")) as client:
        with pytest.raises(openai.PermissionDeniedError) as refusal:
            await client.chat.completions.create(model="echo", messages=HELLO)
    assert refusal.value.code == "denied" and "needs the role member" in refusal.value.message


async def test_a_reached_quota_and_a_busy_agent_are_rate_limit_errors(signed: Hub) -> None:
    """Only after the second, the client may try again soon: the types differ, and a header has the time."""
    async with openai_client(signed, await signed.key("ann")) as client:
        async with await client.chat.completions.create(model="single", messages=HELLO, stream=True) as answer:
            await anext(aiter(answer))
            with pytest.raises(openai.RateLimitError) as busy:
                await client.chat.completions.create(model="single", messages=HELLO)
        await commands.set_quota(signed.door, OPERATOR, "default", {"messages": 0})
        with pytest.raises(openai.RateLimitError) as full:
            await client.chat.completions.create(model="echo", messages=HELLO)
    assert (busy.value.code, busy.value.type) == ("busy", "rate_limit_error")
    assert busy.value.response.headers["Retry-After"] == "1"
    assert (full.value.code, full.value.type) == ("quota_exceeded", "insufficient_quota")
    assert "Retry-After" not in full.value.response.headers


async def test_a_key_limited_to_an_agent_has_no_other_models(signed: Hub) -> None:
    """Another agent gets the same error as one that does not exist."""
    async with openai_client(signed, await signed.key("bot", agents=["echo"])) as client:
        assert [model.id async for model in await client.models.list()] == ["echo"]
        assert (await client.chat.completions.create(model="echo", messages=HELLO)).choices[0].message.content
        texts = []
        for model in ("who", "none"):
            with pytest.raises(openai.NotFoundError) as refusal:
                await client.chat.completions.create(model=model, messages=HELLO)
            assert refusal.value.code == "model_not_found"
            texts.append(refusal.value.response.text.replace(model, "X"))
        assert texts[0] == texts[1]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_session_of_another_principal_is_not_found(signed: Hub, stream: bool) -> None:
    """The owner can chat in it."""
    async with openai_client(signed, await signed.key("ann")) as ann, openai_client(
        signed, await signed.key("bob")
    ) as bob:
        request: Any = {"model": "echo", "messages": HELLO, "stream": stream, "extra_body": {"sessionId": "s1"}}
        await ann.chat.completions.create(**request)
        with pytest.raises(openai.NotFoundError) as refusal:
            await bob.chat.completions.create(**request)
    assert refusal.value.code == "unknown_session"


async def test_a_request_that_is_refused_before_the_sign_in_has_openais_form(signed: Hub) -> None:
    """Such as one for a wrong Host. Other routes have the form of the hub."""
    errors = []
    async with aiohttp.ClientSession(headers={"Host": "evil.example"}) as http:
        for path in ("/v1/models", "/api/v1/agents"):
            async with http.get(signed.url + path) as response:
                assert response.status == 403
                errors.append(await response.json())
    assert errors[0]["error"]["code"] == errors[1]["code"] == "refused"
    assert errors[0]["error"]["message"] == errors[1]["error"]


# --- AG-UI and curl ---------------------------------------------------------------------------------------------------


async def test_agui_requests_have_the_key_in_a_header(signed: Hub) -> None:
    """The thread is a session of the key's principal."""
    key = await signed.key("ann")
    events = await agui.events(signed, "who", agui.run_request("hello"), Authorization=f"Bearer {key}")
    assert events[-1]["type"] == "RUN_FINISHED"
    assert "".join(event.get("delta", "") for event in events).endswith(" ann")
    other = {"Authorization": f"Bearer {await signed.key('bob')}"}
    async with aiohttp.ClientSession() as http:
        url = f"{signed.url}/api/v1/agents/who/agui"
        for headers, status in ((other, 404), ({}, 401)):
            async with http.post(url, json=agui.run_request("hello", "run-2"), headers=headers) as response:
                assert response.status == status


@needs_curl
async def test_curl_has_the_key_in_a_header(signed: Hub) -> None:
    url = f"{signed.url}/api/v1/sessions/s1/chat?wait=true"
    body = json.dumps({"agentId": "who", "message": "hello"})
    for key, text in ((await signed.key("ann"), " ann"), ("wrong", "unauthenticated")):
        command = ("curl", "-s", "-H", f"Authorization: Bearer {key}", "-d", body, url)
        process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
        out, _ = await asyncio.wait_for(process.communicate(), PATIENCE)
        assert text in out.decode()


# --- plain WebSockets: the clients of the README, with one line more --------------------------------------------------

PYTHON_CLIENT = """
import json
import sys

import websocket

url, key, way = sys.argv[1:]


def on_open(ws):
    if way == "frame":
        ws.send(json.dumps({"type": "auth", "token": key}))
    ws.send(json.dumps({"type": "chat", "agentId": "who", "sessionId": "session-002", "message": "Hello there"}))


def on_message(ws, message):
    print(message, flush=True)
    if json.loads(message).get("done"):
        ws.close()


def on_error(ws, error):
    print("error", error)


def on_close(ws, code, reason):
    print("closed")


header = [f"Authorization: Bearer {key}"] if way == "header" else []
websocket.WebSocketApp(
    url, header=header, on_open=on_open, on_message=on_message, on_error=on_error, on_close=on_close
).run_forever()
"""


def ws_url(hub: Hub) -> str:
    return f"ws://127.0.0.1:{hub.port}/api/v1/ws"


async def run_python_client(hub: Hub, key: str, way: str) -> list[str]:
    command = (sys.executable, "-c", PYTHON_CLIENT, ws_url(hub), key, way)
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    out, _ = await asyncio.wait_for(process.communicate(), PATIENCE)
    return out.decode().splitlines()


@pytest.mark.parametrize("way", ["header", "frame"])
async def test_websocket_client_signs_in(signed: Hub, way: str) -> None:
    """With a header, or with `auth` as its first frame, to which the answer is `ok`. The rest is unchanged."""
    lines = await run_python_client(signed, await signed.key("ann"), way)
    assert lines[-1] == "closed"
    frames = [json.loads(line) for line in lines[:-1]]
    if way == "frame":
        assert frames.pop(0) == {"type": "ok"}
    assert {frame["type"] for frame in frames} <= {"message", "stream"} and frames[-1]["done"]
    assert "".join(frame["content"] for frame in frames).endswith(" ann")


async def test_websocket_client_with_a_wrong_key_is_refused(signed: Hub) -> None:
    """In the handshake, or with an error and the close of the socket."""
    assert "401" in (await run_python_client(signed, "wrong", "header"))[0]
    lines = await run_python_client(signed, "wrong", "frame")
    assert json.loads(lines[0])["code"] == "unauthenticated" and lines[-1] == "closed" and "who" not in "".join(lines)


BROWSER_CLIENT = """
const ws = new WebSocket("%s");
ws.onopen = () => {
  ws.send(JSON.stringify({ type: "auth", token: "%s" }));
  ws.send(JSON.stringify({ type: "chat", agentId: "who", sessionId: "session-003", message: "Hello there" }));
};
ws.onmessage = (event) => console.log(event.data);
ws.onclose = (event) => console.log("closed " + event.code);
setInterval(() => ws.send(JSON.stringify({ type: "ping" })), 30000);
"""


@needs_browser
async def test_a_browser_signs_in_with_its_first_frame(signed: Hub, browser: Browser) -> None:
    """From a page of another loopback origin. With a wrong key, its socket is closed with 4500."""
    async with serve_other_origin(BROWSER_CLIENT % (ws_url(signed), await signed.key("ann"))) as url:
        tab = Tab(await browser.new_page())
        await tab.page.goto(url)
        lines = await tab.until("}")
        while not json.loads(lines[-1]).get("done"):
            lines += await tab.until("}")
        frames = [json.loads(line) for line in lines]
        assert frames[0] == {"type": "ok"} and not tab.errors
        assert "".join(frame["content"] for frame in frames[1:]).endswith(" ann")
    async with serve_other_origin(BROWSER_CLIENT % (ws_url(signed), "wrong")) as url:
        tab = Tab(await browser.new_page())
        await tab.page.goto(url)
        assert await tab.until("closed 4500")
