"""The OpenAI-compatible endpoint as HTTP: the form of errors, the headers about retries, and the bytes of streams."""

import asyncio
import json
from typing import Any

import aiohttp
import openai
import pytest
from openai import AsyncOpenAI
from support.hub import Hub
from support.waiting import PATIENCE, eventually

from hub.ids import Key
from hub.node.draining import finish_runs
from hub.node.history import read_history

HELLO: list[Any] = [{"role": "user", "content": "hello there"}]
PATH = "/v1/chat/completions"
FAILING = """
from hub import AgentError

RUNS = []

async def failing(message: str):
    RUNS.append(message)
    if message == "count":
        yield str(len(RUNS) - 1)
        return
    code, _, options = message.partition(" ")
    raise AgentError("no more today", code, retryable=bool(options), retry_after_ms=int(options or 0) or None)
"""
LONELY = """
import asyncio
from hub import agent

@agent(max_runs=1)
async def lonely(message: str):
    yield "so "
    await asyncio.sleep(3600)
"""


async def post(hub: Hub, body: dict[str, Any], **headers: str) -> tuple[int, dict[str, str], Any]:
    """Return the status of a response, its headers about retries, and its JSON."""
    async with aiohttp.ClientSession() as http, asyncio.timeout(PATIENCE):
        async with http.post(hub.url + PATH, json={"model": "failing"} | body, headers=headers) as answer:
            retries = {name: value for name, value in answer.headers.items() if "retry" in name.lower()}
            return answer.status, retries, await answer.json()


def user(text: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}]}


@pytest.fixture
async def served(hub: Hub) -> Hub:
    hub.agent("failing.py", FAILING)
    hub.agent("lonely.py", LONELY)
    return await hub.start()


# --- retries ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (user("out_of_luck"), 422, "out_of_luck"),
        (user("model_unavailable"), 422, "model_unavailable"),
        (user("timeout 1000"), 504, "timeout"),
        ({"model": "nobody", **user("x")}, 404, "model_not_found"),
        ({"messages": 3}, 400, None),
        ({"n": 2, **user("x")}, 400, "unsupported_parameter"),
    ],
)
async def test_a_final_error_forbids_retries(served: Hub, body: dict[str, Any], status: int, code: str) -> None:
    """Clients repeat a request after many statuses, unless `x-should-retry` is false."""
    result, retries, error = await post(served, body)
    assert (result, retries, error["error"]["code"]) == (status, {"x-should-retry": "false"}, code)


@pytest.mark.parametrize(
    ("message", "status", "retries"),
    [
        ("model_unavailable 2500", 503, {"Retry-After": "3", "retry-after-ms": "2500"}),
        ("model_rate_limited 0", 429, {"Retry-After": "1", "retry-after-ms": "1000"}),
        ("model_unreachable 0", 502, {}),
        ("my_code 2500", 503, {"Retry-After": "3", "retry-after-ms": "2500"}),
    ],
)
async def test_an_error_that_may_pass_says_when_to_retry(
    served: Hub, message: str, status: int, retries: dict[str, str]
) -> None:
    result, headers, _ = await post(served, user(message))
    assert (result, headers) == (status, retries)


async def test_a_full_agent_says_when_to_retry(served: Hub) -> None:
    """Its slot is in use; the refused request was not answered."""
    agent = served.node.agents.get_working("lonely")
    async with aiohttp.ClientSession() as http:
        first = asyncio.create_task(http.post(served.url + PATH, json={"model": "lonely", **user("hello")}))
        await eventually(lambda: agent.running_answers)
        status, retries, error = await post(served, {"model": "lonely", **user("hello")})
        assert (status, error["error"]["type"]) == (429, "rate_limit_error")
        assert retries == {"Retry-After": "1", "retry-after-ms": "1000"}
        first.cancel()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("session", [{}, {"sessionId": "s1"}])
@pytest.mark.parametrize("message", ["out_of_luck", "model_unavailable", "timeout", "agent_error"])
async def test_openais_client_calls_a_failing_agent_once(
    served: Hub, message: str, session: dict[str, str], stream: bool
) -> None:
    """With its default of two retries. In a session, the message is there once."""
    async with AsyncOpenAI(base_url=f"{served.url}/v1", api_key="any", timeout=PATIENCE) as client:
        assert client.max_retries == 2
        request: Any = {"model": "failing", "extra_body": session, "stream": stream}
        with pytest.raises(openai.APIError) as error:
            answer: Any = await client.chat.completions.create(**request, **user(message))
            async for _ in answer:
                pass
        assert error.value.code == message
        count = await client.chat.completions.create(model="failing", **user("count"))
    assert count.choices[0].message.content == "1"
    if session:
        assert [past["role"] for past in await read_history(served.node, Key("s1"), 9)] == ["user", "assistant"]


@pytest.mark.parametrize(
    "code", ["model_unavailable", "model_rate_limited", "model_aborted", "model_timeout", "timeout"]
)
async def test_an_error_in_a_session_is_final(served: Hub, code: str) -> None:
    """A retry would add the message to the session a second time. Some clients decide by the status alone."""
    body = {"sessionId": "s1", **user(f"{code} 1000")}
    status, retries, error = await post(served, body)
    assert (status, retries, error["error"]["code"]) == (422, {"x-should-retry": "false"}, code)


@pytest.mark.parametrize(
    ("key", "status", "retries"),
    [
        ({}, 422, {"x-should-retry": "false"}),
        ({"Idempotency-Key": "k1"}, 503, {"Retry-After": "2", "retry-after-ms": "2000"}),
    ],
)
async def test_a_hub_that_goes_down_has_the_message_already(
    served: Hub, key: dict[str, str], status: int, retries: dict[str, str]
) -> None:
    """Only a client with an idempotency key may repeat the request: it then gets the answer to the stored message."""
    client = await served.connect("?sessionId=s1", extended=True)
    await client.send(type="chat", agentId="lonely", message="hello", sessionId="s1")
    await client.until_type("stream")
    asking = asyncio.create_task(post(served, {"model": "lonely", "sessionId": "s1", **user("next")}, **key))
    await client.until(lambda frame: frame["type"] == "user_message" and frame["content"] == "next")
    served.node.drain()
    await finish_runs(served.node, 0, asyncio.Event())
    answer_status, headers, error = await asking
    assert (answer_status, error["error"]["code"], headers) == (status, "draining", retries)


async def test_a_key_of_another_message_is_refused_for_good(served: Hub) -> None:
    """Not with 409: clients repeat a request after it."""
    request = {"model": "echo", "sessionId": "s1"}
    for text, status in (("one", 200), ("two", 422)):
        result, retries, body = await post(served, request | user(text), **{"Idempotency-Key": "k1"})
        assert result == status
    assert (retries, body["error"]["code"]) == ({"x-should-retry": "false"}, "id_reused")


@pytest.mark.parametrize("stream", [False, True])
async def test_a_repeated_request_joins_the_answer_that_grows(hub: Hub, stream: bool) -> None:
    """It gets the answer from its start, and the agent is called once."""
    await hub.start()
    gate = hub.folder / "gate"
    client = await hub.connect("?sessionId=s1", extended=True)
    body = {"model": "gated", "sessionId": "s1", "clientMsgId": "k1", **user(str(gate))}
    async with aiohttp.ClientSession() as http, asyncio.timeout(PATIENCE):
        first = await http.post(hub.url + PATH, json=body | {"stream": True})
        await client.until_type("stream")
        second = asyncio.create_task(http.post(hub.url + PATH, json=body | {"stream": stream}))
        if stream:
            second.add_done_callback(lambda _: gate.touch())
        else:  # its head comes with the answer
            await eventually(lambda: len(hub.node.sessions[Key("s1")].schedule.active_runs) == 1)
            gate.touch()
        answers = [text_of(await response.text()) for response in (first, await second)]
    assert answers == ["one two"] * 2
    assert len(await read_history(hub.node, Key("s1"), 9)) == 2


def text_of(body: str) -> str:
    """Return the text of an answer, from the body of a stream or of a complete answer."""
    if body.startswith("{"):
        return str(json.loads(body)["choices"][0]["message"]["content"])
    events = [json.loads(line[6:]) for line in body.split("\n") if line.startswith("data: {")]
    return "".join(event["choices"][0]["delta"].get("content", "") for event in events)


# --- the form of errors -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "data", "headers", "status"),
    [
        ("GET", "/v1", b"", {}, 404),
        ("POST", "/v1/embeddings", b"{}", {}, 404),
        ("GET", "/v1/chat/completions", b"", {}, 405),
        ("GET", "/api/v1/chat/completions", b"", {}, 405),
        ("DELETE", "/api/v1/models", b"", {}, 405),
        ("POST", PATH, b"{no", {}, 400),
        ("POST", PATH, b"[]", {}, 400),
        ("POST", PATH, b'{"model": NaN}', {}, 400),
        ("POST", PATH, b" " * 5000, {}, 413),
        ("GET", "/v1/models", b"", {"Authorization": "Bearer wrong"}, 401),
        ("GET", "/v1/nothing", b"", {"Host": "example.org"}, 403),
        ("GET", "/v1/models", b"", {"Origin": "https://example.org"}, 403),
        ("GET", "/v1/models/nobody", b"", {}, 404),
    ],
)
async def test_every_error_has_openais_form(
    hub: Hub, method: str, path: str, data: bytes, headers: dict[str, str], status: int
) -> None:
    """Under /v1, and on OpenAI's routes under /api/v1: also where the server itself refuses the request."""
    hub.options["sign_in"] = True
    await hub.start(conversation_bytes=4000)
    headers = {"Authorization": f"Bearer {await hub.key('ann')}"} | headers
    async with aiohttp.ClientSession() as http:
        async with http.request(method, hub.url + path, data=data or None, headers=headers) as answer:
            assert answer.status == status
            assert answer.headers["x-should-retry"] == "false"
            body = await answer.json()
            assert ("Allow" in answer.headers) == (status == 405)
    assert body.keys() == {"error"} and body["error"].keys() == {"message", "type", "param", "code"}
    assert body["error"]["type"] == "invalid_request_error" and body["error"]["message"] and body["error"]["code"]


async def test_a_client_of_another_openai_route_learns_which_routes_there_are(served: Hub) -> None:
    """Newer clients use the Responses API by default, which the hub does not have."""
    async with AsyncOpenAI(base_url=f"{served.url}/v1", api_key="any", timeout=PATIENCE) as client:
        with pytest.raises(openai.NotFoundError, match="OpenAI's clients use /v1/chat/completions and /v1/models"):
            await client.responses.create(model="echo", input="hello")


async def test_other_paths_keep_the_form_of_the_hub(hub: Hub) -> None:
    await hub.start()
    async with aiohttp.ClientSession() as http:
        for path in ("/v2/models", "/api/v1/nothing", "/api/v1/modelsx"):
            async with http.get(hub.url + path) as answer:
                assert (await answer.json()).keys() == {"error", "code"}


# --- what clients send ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [
        {"seed": 2**53 + 1},
        {"seed": 2**63 - 1},
        {"seed": 2**64 - 1, "temperature": 0.5},
        {"logit_bias": {str(number): -100 for number in range(300)}},
    ],
    ids=["53 bits", "63 bits", "64 bits", "300 keys"],
)
async def test_large_values_are_taken(served: Hub, fields: dict[str, Any]) -> None:
    status, _, body = await post(served, {"model": "echo", **user("hello"), **fields})
    assert status == 200 and body["choices"][0]["message"]["content"] == "hello "


async def test_a_path_may_end_with_a_slash(served: Hub) -> None:
    """Some clients add one to their base URL or to their path."""
    async with aiohttp.ClientSession() as http:
        async with http.post(f"{served.url}{PATH}/", json={"model": "echo", **user("hello")}) as answer:
            assert answer.status == 200
        for path in ("/v1/models/", "/v1/models/echo/", "/api/v1/models/"):
            async with http.get(served.url + path) as answer:
                assert answer.status == 200, path


# --- streams ----------------------------------------------------------------------------------------------------------


async def test_a_stream_begins_at_once_and_has_pings(hub: Hub) -> None:
    """The agent has said nothing yet: Node.js would give up after 300 seconds without a byte."""
    hub.agent(
        "patient.py",
        """
        import asyncio, pathlib

        async def patient(message: str):
            while not pathlib.Path(message).exists():
                await asyncio.sleep(0.01)
            yield "done"
        """,
    )
    await hub.start(ping_seconds=0.05)
    gate = hub.folder / "gate"
    async with aiohttp.ClientSession() as http, asyncio.timeout(PATIENCE):
        body = {"model": "patient", "stream": True, **user(str(gate))}
        async with http.post(hub.url + PATH, json=body) as answer:
            assert answer.status == 200 and answer.headers["X-Accel-Buffering"] == "no"
            assert answer.headers["Content-Type"].startswith("text/event-stream")
            lines: list[str] = []
            while lines.count(": ping") < 3:
                lines.append((await answer.content.readline()).decode().strip())
            gate.touch()
            text = "\n".join(lines) + (await answer.content.read()).decode()
    assert text_of(text) == "done" and text.endswith("data: [DONE]\n\n")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (PATH, {"stream": True, "model": "separate", **user("hello")}),
        (PATH, {"stream": True, "model": "separate", **user("hello"), "sessionId": "s1"}),
        ("/api/v1/agents/separate/agui", {"threadId": "s1", "runId": "r1", **user("hello")}),
        ("/api/v1/sessions/s1/chat", {"agentId": "separate", "message": "hello"}),
    ],
    ids=["openai", "openai in a session", "agui", "session"],
)
async def test_no_character_of_a_text_ends_a_line_of_a_stream(hub: Hub, path: str, body: dict[str, Any]) -> None:
    """Many clients split a stream with str.splitlines(), or a function like it."""
    text = "a\u2028b\u2029c\x85d\x0be\x0cf\x1cg\rh\ni"
    hub.agent("separate.py", f"async def separate(message: str):\n    yield {text!a}\n")
    await hub.start()
    async with aiohttp.ClientSession() as http, asyncio.timeout(PATIENCE):
        async with http.post(hub.url + path, json=body, headers={"Accept": "text/event-stream"}) as answer:
            lines = (await answer.read()).decode().splitlines()
    assert all(line.partition(":")[0] in ("", "data", "event", "id") for line in lines), lines
    data = [line.removeprefix("data: ") for line in lines if line.startswith("data: {")]
    assert any(repr(text)[1:-1] in repr(json.loads(line)) for line in data)
