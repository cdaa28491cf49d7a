"""Requests that wait for an answer which fails, is stopped, or asks a question, on the routes of the hub and OpenAI."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from support.hub import Hub
from support.sse import get, post
from support.waiting import PATIENCE

from hub.node.draining import finish_runs

ASKS = """
async def asks(run):
    yield "Well. "
    reply = await run.ask(run.message, schema={"type": "boolean"})
    yield f"{reply.payload}"
    await run.ask("Again?") if run.message == "Twice?" else None
"""
FAILS = """
from hub import AgentError

async def fails(message: str):
    yield "one "
    if message:
        raise AgentError("no more today", message, retryable=message != "quota")
    raise ValueError("secret")
"""
ENDLESS = """
import asyncio

async def endless(message: str):
    yield "one "
    await asyncio.sleep(3600)
"""
WAIT = "sessions/s1/chat?wait=true"
KEY = {"Idempotency-Key": "k1"}


async def begin(hub: Hub, **limits: Any) -> aiohttp.ClientSession:
    for name, code in {"asks": ASKS, "fails": FAILS, "endless": ENDLESS}.items():
        hub.agent(f"{name}.py", code)
    await hub.start(**limits)
    return aiohttp.ClientSession(f"{hub.url}/api/v1/", timeout=aiohttp.ClientTimeout(PATIENCE))


@pytest.fixture
async def http(hub: Hub) -> AsyncIterator[aiohttp.ClientSession]:
    async with await begin(hub) as http:
        yield http


async def reply(http: aiohttp.ClientSession, question: dict[str, Any], payload: Any = True) -> None:
    body = {"interruptId": question["id"], "status": "resolved", "payload": payload}
    assert await post(http, "sessions/s1/resume", body) == (200, {"type": "ok"})


async def complete(
    http: aiohttp.ClientSession, message: str, stream: bool, key: dict[str, str] = KEY
) -> tuple[aiohttp.ClientResponse, list[Any]]:
    """Ask with OpenAI's route in the session. Return the response, and its body or the data of its events."""
    body = {"model": "asks", "sessionId": "s1", "stream": stream, "messages": [{"role": "user", "content": message}]}
    async with http.post("/v1/chat/completions", json=body, headers=key) as response:
        text = await response.text()
    if not stream:
        return response, [json.loads(text)]
    events = [line.removeprefix("data: ") for line in text.split("\n") if line.startswith("data: ")]
    assert events.pop() == "[DONE]"
    return response, [json.loads(event) for event in events]


# --- questions --------------------------------------------------------------------------------------------------------


async def test_a_request_that_waits_gets_the_question_of_its_run(http: aiohttp.ClientSession) -> None:
    """The run goes on waiting. After the reply, the same request gets the complete answer."""
    chat = {"agentId": "asks", "message": "Sure?"}
    status, error = await post(http, WAIT, chat, **KEY)
    (question,) = error["interrupts"]
    assert (status, error["code"], error["content"]) == (409, "requires_action", "Well. ")
    assert question["message"] == "Sure?" and question["responseSchema"] == {"type": "boolean"}
    assert question["reason"] and question["runId"] == error["runId"] and error["sessionId"] == "s1"
    assert "Sure?" in error["error"] and "stopReason" not in error
    assert (await get(http, "sessions/s1"))[1]["interrupts"] == [question]
    assert await post(http, WAIT, chat, **KEY) == (409, error)
    await reply(http, question, 7)
    status, answer = await post(http, WAIT, chat, **KEY)
    assert (status, answer["content"], answer["messageId"]) == (200, "Well. 7", error["messageId"])
    assert "interrupts" not in answer


async def test_a_request_that_joins_after_a_reply_waits_for_the_next_question(http: aiohttp.ClientSession) -> None:
    chat = {"agentId": "asks", "message": "Twice?"}
    _, error = await post(http, WAIT, chat, **KEY)
    await reply(http, error["interrupts"][0])
    status, again = await post(http, WAIT, chat, **KEY)
    assert (status, again["content"]) == (409, "Well. True")
    assert [question["message"] for question in again["interrupts"]] == ["Again?"]


async def test_a_request_that_waits_in_the_queue_gets_its_own_question(hub: Hub, http: aiohttp.ClientSession) -> None:
    """Not the one of the run before it."""
    chat = {"agentId": "asks", "message": "First?"}
    _, error = await post(http, WAIT, chat)
    watcher = await hub.connect("?sessionId=s1", extended=True)
    second = asyncio.create_task(post(http, WAIT, chat | {"message": "Second?"}))
    await watcher.until(lambda frame: frame["type"] == "state" and frame["queue"])
    await reply(http, error["interrupts"][0])
    status, error = await second
    assert (status, [question["message"] for question in error["interrupts"]]) == (409, ["Second?"])


async def test_a_whole_answer_for_openais_clients_is_an_error_while_a_question_is_open(
    http: aiohttp.ClientSession,
) -> None:
    """Not with 409: clients repeat a request after it."""
    response, (body,) = await complete(http, "Sure?", False)
    error = body["error"]
    assert (response.status, error["code"], response.headers["x-should-retry"]) == (422, "requires_action", "false")
    assert "Sure?" in error["message"] and (error["sessionId"], error["content"]) == ("s1", "Well. ")
    await reply(http, error["interrupts"][0])
    response, (body,) = await complete(http, "Sure?", False)
    assert (response.status, body["choices"][0]["message"]["content"]) == (200, "Well. True")


async def test_a_stream_for_openais_clients_ends_with_an_open_question(http: aiohttp.ClientSession) -> None:
    """A stream that joins after the reply passes the question, and has the complete text."""
    _, events = await complete(http, "Twice?", True)
    error = events.pop()["error"]
    assert error["code"] == "requires_action" and "Twice?" in error["message"]
    assert "".join(event["choices"][0]["delta"]["content"] for event in events) == "Well. "
    assert (await get(http, "sessions/s1"))[1]["interrupts"] == error["interrupts"]
    await reply(http, error["interrupts"][0])
    _, events = await complete(http, "Twice?", True)
    error = events.pop()["error"]
    assert [question["message"] for question in error["interrupts"]] == ["Again?"]
    assert "".join(event["choices"][0]["delta"]["content"] for event in events) == "Well. True"


@pytest.mark.parametrize("stream", [False, True])
async def test_openais_clients_hear_no_question_of_another_run(
    hub: Hub, http: aiohttp.ClientSession, stream: bool
) -> None:
    """Another agent of the session asks during the answer."""
    gate, watcher = hub.folder / "gate", await hub.connect("?sessionId=s1", extended=True)
    body = {"model": "gated", "sessionId": "s1", "stream": stream, "messages": [{"role": "user", "content": str(gate)}]}

    async def read() -> str:
        async with http.post("/v1/chat/completions", json=body) as response:
            return await response.text()

    reading = asyncio.create_task(read())
    await watcher.until_type("stream")
    assert (await post(http, WAIT, {"agentId": "asks", "message": "Sure?"}))[0] == 409
    gate.touch()
    text = await reading
    assert "requires_action" not in text and "two" in text and '"stop"' in text


# --- failures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "status"),
    [("quota", 422), ("", 422), ("model_aborted", 502), ("model_timeout", 504), ("model_rate_limited", 429)],
)
async def test_a_run_that_fails_has_the_status_of_its_code(http: aiohttp.ClientSession, code: str, status: int) -> None:
    """The body has the text so far. A repeated key gets the same response."""
    chat = {"agentId": "fails", "message": code}
    result, error = await post(http, WAIT, chat, **KEY)
    assert (result, error["code"], error["stopReason"]) == (status, code or "agent_error", "error")
    assert (error["content"], error["sessionId"]) == ("one ", "s1") and "secret" not in error["error"]
    assert error["runId"] and error["messageId"]
    assert await post(http, WAIT, chat, **KEY) == (result, error)


@pytest.mark.parametrize(("reason", "status"), [("timeout", 504), ("cancelled", 499), ("aborted", 503)])
async def test_a_run_that_is_stopped_has_the_status_of_its_reason(hub: Hub, reason: str, status: int) -> None:
    async with await begin(hub, run_seconds=0.5 if reason == "timeout" else 3600) as http:
        watcher = await hub.connect("?sessionId=s1", extended=True)
        waiting = asyncio.create_task(post(http, WAIT, {"agentId": "endless", "message": "x"}))
        await watcher.until_type("stream")
        if reason == "cancelled":
            await post(http, "sessions/s1/cancel")
        elif reason == "aborted":
            hub.node.drain()
            await finish_runs(hub.node, 0, asyncio.Event())
        result, error = await waiting
        assert (result, error["code"], error["stopReason"]) == (status, reason, reason)
        assert error["content"] == "one " and error["error"] and error["runId"] and error["messageId"]
