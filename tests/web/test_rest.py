"""Sessions over HTTP, and their events as server-sent events."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from support.hub import Hub
from support.sse import Stream, call, get, open_stream, post, wait_until_all_left
from support.waiting import PATIENCE

FAILING = """
async def failing(message: str):
    yield "one "
    raise ValueError(message)
"""

CALLING = """
from hub import Finish, ToolCallArgs, ToolCallEnd, ToolCallStart

async def calling(message: str):
    yield ToolCallStart("c1", "search")
    yield ToolCallArgs("c1", message)
    yield ToolCallEnd("c1")
    yield Finish("tool_calls")
"""

AGAIN = """
import asyncio, pathlib
from hub import agent

@agent(restartable=True)
async def again(message: str):
    yield "one "
    while not pathlib.Path(message).exists():
        await asyncio.sleep(0.01)
    yield "two"
"""


@pytest.fixture
async def http(hub: Hub) -> AsyncIterator[aiohttp.ClientSession]:
    hub.agent("failing.py", FAILING)
    hub.agent("calling.py", CALLING)
    await hub.start()
    async with aiohttp.ClientSession(f"{hub.url}/api/v1/", timeout=aiohttp.ClientTimeout(PATIENCE)) as http:
        yield http


async def test_a_chat_over_http_reaches_event_streams_and_websockets(hub: Hub, http: aiohttp.ClientSession) -> None:
    socket = await hub.connect("?sessionId=s1")
    async with open_stream(http, "sessions/s1/events") as stream:
        status, accepted = await post(http, "sessions/s1/chat", {"agentId": "echo", "message": "hello there"})
        assert status == 202 and accepted["status"] == "started" and accepted["sessionId"] == "s1"
        await stream.until_kind("run_finished")
        await socket.until_done()
    assert stream.text() == socket.text() == "hello there "
    assert {event.data["runId"] for event in stream.events if event.kind == "stream"} == {accepted["runId"]}
    await socket.close()
    await wait_until_all_left(hub)


async def test_a_repeated_idempotency_key_starts_no_second_run(http: aiohttp.ClientSession) -> None:
    """The key is the clientMsgId of the chat. The same key with another content is refused."""
    body = {"agentId": "echo", "message": "hello"}
    first = await post(http, "sessions/s1/chat", body, **{"Idempotency-Key": "k1"})
    again = await post(http, "sessions/s1/chat", body, **{"Idempotency-Key": "k1"})
    other = await post(http, "sessions/s1/chat", body | {"message": "other"}, **{"Idempotency-Key": "k1"})
    assert (first[0], again[0], again[1]["status"]) == (202, 202, "duplicate")
    assert first[1]["runId"] == again[1]["runId"]
    assert other[0] == 409 and other[1]["code"] == "id_reused"


async def test_wait_returns_the_complete_answer(http: aiohttp.ClientSession) -> None:
    """With its stop reason. A duplicate of a chat whose run has ended gets the same response."""
    body = {"agentId": "echo", "message": "hello there", "clientMsgId": "k1"}
    status, answer = await post(http, "sessions/s1/chat?wait=true", body)
    assert (status, answer["content"], answer["stopReason"]) == (200, "hello there ", "end_turn")
    assert (await post(http, "sessions/s1/chat?wait=true", body)) == (200, answer)


async def test_wait_returns_the_tool_calls_for_the_client(http: aiohttp.ClientSession) -> None:
    status, answer = await post(http, "sessions/s1/chat?wait=true", {"agentId": "calling", "message": "{}"})
    assert (status, answer["stopReason"]) == (200, "tool_calls")
    call = {"type": "tool_call", "toolCallId": "c1", "toolCallName": "search", "arguments": "{}"}
    assert answer["toolCalls"] == [call]


async def test_a_restarted_answer_has_no_text_of_its_first_attempt(hub: Hub) -> None:
    """A duplicate of the chat after a restart of the hub waits for the second attempt, and gets its text only."""
    hub.agent("again.py", AGAIN)
    await hub.start()
    gate = hub.folder / "gate"
    body = {"agentId": "again", "message": str(gate), "clientMsgId": "k"}
    client = await hub.connect("?sessionId=s1", extended=True)
    await client.send(type="chat", sessionId="s1", **body)
    await client.until_type("stream")
    await hub.stop()
    await hub.start()
    gate.touch()
    async with aiohttp.ClientSession(f"{hub.url}/api/v1/", timeout=aiohttp.ClientTimeout(PATIENCE)) as http:
        assert (await post(http, "sessions/s1/chat?wait=true", body))[1]["content"] == "one two"


async def test_a_chat_with_accept_event_stream_returns_the_events_of_its_run(
    hub: Hub, http: aiohttp.ClientSession
) -> None:
    """From `accepted` to `run_finished`. Then the response ends, and the hub has no connection left."""
    headers = {"Accept": "text/event-stream"}
    async with http.post("sessions/s1/chat", json={"agentId": "echo", "message": "a b"}, headers=headers) as response:
        stream = Stream(response)
        await stream.rest()
    kinds = [event.kind for event in stream.events if event.kind != "state"]
    assert kinds[0] == "accepted" and kinds[-1] == "run_finished" and stream.text() == "a b "
    await wait_until_all_left(hub)


async def test_a_client_that_reconnects_during_an_answer_gets_the_same_text(
    hub: Hub, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    """SSE by Last-Event-ID, the WebSocket by afterSeq and epoch, and a page of events by afterSeq."""
    gate = tmp_path / "gate"
    async with open_stream(http, "sessions/s1/events") as stream:
        await post(http, "sessions/s1/chat", {"agentId": "gated", "message": str(gate)})
        last = await stream.until_kind("stream")
    assert last.id is not None and stream.text() == "one "
    async with open_stream(http, "sessions/s1/events", **{"Last-Event-ID": last.id}) as again:
        epoch, _, seq = last.id.partition(":")
        socket = await hub.connect(f"?sessionId=s1&afterSeq={seq}&epoch={epoch}")
        gate.touch()
        await again.until_kind("run_finished")
        await socket.until_done()
    assert stream.text() + again.text() == stream.text() + socket.text() == "one two"
    _, page = await get(http, "sessions/s1/events")
    assert "".join(event["content"] for event in page["data"] if event["type"] == "stream") == "one two"
    assert [event["seq"] for event in page["data"]] == list(range(1, page["seq"] + 1))
    _, rest = await get(http, f"sessions/s1/events?afterSeq={seq}")
    assert [event["seq"] for event in rest["data"]] == list(range(int(seq) + 1, page["seq"] + 1))


async def test_a_cursor_of_another_epoch_is_reset(http: aiohttp.ClientSession) -> None:
    """The `reset` has the history."""
    await post(http, "sessions/s1/chat?wait=true", {"agentId": "echo", "message": "hello"})
    async with open_stream(http, "sessions/s1/events", **{"Last-Event-ID": "other:1"}) as stream:
        reset = await stream.until_kind("reset")
    assert reset.data["reason"] == "epoch_changed" and reset.id is None
    assert [message["content"] for message in reset.data["messages"]] == ["hello", "hello "]


async def test_messages_are_listed_in_pages(http: aiohttp.ClientSession) -> None:
    """In ascending or descending order. A page that is not the last has `more` and the cursor `next`."""
    for word in ("a", "b", "c"):
        await post(http, "sessions/s1/chat?wait=true", {"agentId": "echo", "message": word})
    status, first = await get(http, "sessions/s1/messages?limit=4")
    assert status == 200 and set(first) == {"data", "more", "next"} and first["more"] is True
    assert [one["content"] for one in first["data"]] == ["a", "a ", "b", "b "]
    status, page = await get(http, f"sessions/s1/messages?limit=4&after={first['next']}")
    assert status == 200 and set(page) == {"data", "more"} and page["more"] is False
    assert [(one["role"], one["content"]) for one in page["data"]] == [("user", "c"), ("assistant", "c ")]
    assert page["data"][1]["agentId"] == "echo" and page["data"][0]["seq"] < page["data"][1]["seq"]
    _, newest = await get(http, "sessions/s1/messages?order=desc&limit=2")
    assert [one["content"] for one in newest["data"]] == ["c ", "c"]
    _, before = await get(http, f"sessions/s1/messages?order=desc&after={newest['next']}")
    assert [one["content"] for one in before["data"]] == ["b ", "b", "a ", "a"] and before["more"] is False


async def test_agents_are_listed_in_pages(http: aiohttp.ClientSession) -> None:
    """In ascending or descending order of their ids."""
    _, everything = await get(http, "agents")
    names = [one["agentId"] for one in everything["data"]]
    assert names == sorted(names) and everything["more"] is False
    for order, expected in (("asc", names), ("desc", names[::-1])):
        listed: list[str] = []
        cursor: str | None = ""
        while cursor is not None:
            _, some = await get(http, f"agents?limit=2&order={order}{cursor}")
            listed += [one["agentId"] for one in some["data"]]
            cursor = f"&after={some['next']}" if some["more"] else None
        assert listed == expected


async def test_sessions_are_listed_from_the_newest(http: aiohttp.ClientSession) -> None:
    """In pages, and filtered by agent and by the time of their last message."""
    for name, agent in (("s1", "echo"), ("s2", "failing"), ("s3", "echo")):
        await post(http, f"sessions/{name}/chat?wait=true", {"agentId": agent, "message": "hello"})
    status, page = await get(http, "sessions?limit=2")
    assert status == 200 and page["more"] is True and len(page["data"]) == 2
    newest = page["data"][0]
    _, everything = await get(http, "sessions")
    assert [one["ts"] for one in everything["data"]] == sorted((one["ts"] for one in everything["data"]), reverse=True)
    assert {one["sessionId"] for one in everything["data"]} == {"s1", "s2", "s3"} and newest["messages"] == 2
    _, rest = await get(http, f"sessions?after={page['next']}")
    assert page["data"] + rest["data"] == everything["data"] and rest["more"] is False
    assert (await get(http, "sessions?order=asc"))[1]["data"] == everything["data"][::-1]
    _, echoed = await get(http, "sessions?agentId=echo")
    assert {one["sessionId"] for one in echoed["data"]} == {"s1", "s3"}
    _, later = await get(http, f"sessions?since={newest['ts'] + 1}")
    assert later == {"data": [], "more": False}
    _, earlier = await get(http, f"sessions?until={newest['ts'] + 1}")
    assert len(earlier["data"]) == 3


async def test_a_session_is_created_and_shown(hub: Hub, http: aiohttp.ClientSession, tmp_path: Path) -> None:
    """With the id in the body or a new one. A second request with the same id returns the same session."""
    status, created = await post(http, "sessions")
    assert status == 201 and created["seq"] == 0 and created["state"] == "idle"
    status, named = await post(http, "sessions", {"sessionId": "s1"})
    assert status == 201 and named["sessionId"] == "s1"
    assert await post(http, "sessions", {"sessionId": "s1"}) == (200, named)
    assert (await post(http, "sessions", {"sessionId": "a b"}))[0] == 400
    _, accepted = await post(http, "sessions/s1/chat", {"agentId": "gated", "message": str(tmp_path / "never")})
    _, shown = await get(http, "sessions/s1")
    assert shown["state"] == "running" and shown["active"][0]["runId"] == accepted["runId"]
    await post(http, "sessions/s1/cancel")
    await wait_until_all_left(hub)
    _, shown = await get(http, "sessions/s1")
    assert shown["state"] == "idle" and shown["seq"] > 0 and shown["epoch"] == named["epoch"]


@pytest.mark.parametrize(
    "path, status, code",
    [
        ("sessions/nothing/messages", 404, "unknown_session"),
        ("sessions/nothing/events", 404, "unknown_session"),
        ("sessions/a%20b/messages", 400, "bad_id"),
        ("sessions/s1/messages?limit=0", 400, "bad_query"),
        ("sessions/s1/messages?limit=101", 400, "bad_query"),
        ("sessions/s1/messages?limit=x", 400, "bad_query"),
        ("sessions/s1/messages?after=x", 400, "bad_query"),
        ("sessions/s1/messages?order=up", 400, "bad_query"),
        ("sessions?page=2", 400, "bad_query"),
        ("agents?size=2", 400, "bad_query"),
        ("agents?after=x", 400, "bad_query"),
        ("sessions/s1/events?afterSeq=-1", 400, "bad_query"),
    ],
)
async def test_a_bad_request_has_an_error_code(http: aiohttp.ClientSession, path: str, status: int, code: str) -> None:
    """All errors have one form, and a status that fits."""
    await post(http, "sessions/s1/chat?wait=true", {"agentId": "echo", "message": "hello"})
    actual_status, body = await get(http, path)
    assert (actual_status, body["code"]) == (status, code) and set(body) == {"error", "code"}


@pytest.mark.parametrize(
    "body, status, code",
    [
        ({"agentId": "nobody", "message": "x"}, 404, "unknown_agent"),
        ({"agentId": "echo"}, 400, "bad_frame"),
        ([], 400, "bad_frame"),
        ({"agentId": "echo", "message": 7}, 400, "bad_frame"),
    ],
)
async def test_a_bad_chat_is_refused(http: aiohttp.ClientSession, body: Any, status: int, code: str) -> None:
    """And creates no session."""
    actual_status, result = await post(http, "sessions/s1/chat", body)
    assert (actual_status, result["code"]) == (status, code)
    assert (await get(http, "sessions/s1/messages"))[0] == 404


async def test_a_bad_last_event_id_is_refused(http: aiohttp.ClientSession) -> None:
    """With an error instead of a stream."""
    async with http.get("sessions/s1/events", headers={"Accept": "text/event-stream", "Last-Event-ID": "7"}) as answer:
        assert answer.status == 400 and (await answer.json())["code"] == "bad_id"


async def test_cancel_stops_the_running_answer(http: aiohttp.ClientSession, tmp_path: Path) -> None:
    """Clients receive its end. Without a running answer, cancel gets 409."""
    assert (await post(http, "sessions/s1/cancel"))[0] == 409
    async with open_stream(http, "sessions/s1/events") as stream:
        _, accepted = await post(http, "sessions/s1/chat", {"agentId": "gated", "message": str(tmp_path / "never")})
        await stream.until_kind("stream")
        status, result = await post(http, "sessions/s1/cancel", {"runId": accepted["runId"]})
        assert status == 200 and result["runIds"] == [accepted["runId"]]
        assert (await stream.until_kind("run_finished")).data["stopReason"] == "cancelled"


async def test_a_silent_stream_gets_heartbeats_and_stays_open(hub: Hub) -> None:
    """A heartbeat is an SSE comment, which clients ignore. The hub expects no pong."""
    await hub.start(ping_seconds=0.05, pong_seconds=0.05)
    async with aiohttp.ClientSession(f"{hub.url}/api/v1/") as http:
        async with open_stream(http, "sessions/s1/events") as stream:
            comments = 0
            while comments < 3:
                comments += await stream.next() is None


async def test_an_event_stream_that_is_closed_leaves_no_connection(hub: Hub, http: aiohttp.ClientSession) -> None:
    """Also if the client never read."""
    for _ in range(3):
        async with open_stream(http, "sessions/s1/events"):
            pass
    await wait_until_all_left(hub)


async def test_event_streams_end_when_the_hub_stops(hub: Hub, http: aiohttp.ClientSession) -> None:
    """The client receives `draining`, and then the end of the response."""
    async with open_stream(http, "sessions/s1/events") as stream:
        hub.node.drain()
        await stream.until_kind("draining")
        stopping = asyncio.create_task(hub.stop())
        await stream.rest()
        await stopping


async def test_a_session_has_a_title_and_metadata(hub: Hub, http: aiohttp.ClientSession) -> None:
    """PATCH replaces each of them alone. The session and the list show both, also after a restart of the hub."""
    await post(http, "sessions", {"sessionId": "s1"})
    listener = await hub.connect("?sessionId=s1", extended=True)
    status, shown = await call(http, "PATCH", "sessions/s1", {"title": "Plans", "metadata": {"a": [1, None]}})
    assert status == 200 and (shown["title"], shown["metadata"]) == ("Plans", {"a": [1, None]})
    assert (await get(http, "sessions/s1"))[1] == shown
    _, page = await get(http, "sessions")
    assert (page["data"][0]["title"], page["data"][0]["metadata"]) == ("Plans", {"a": [1, None]})
    assert (await call(http, "PATCH", "sessions/s1", {"title": None}))[1]["metadata"] == {"a": [1, None]}
    await call(http, "PATCH", "sessions/s1", {"title": "\U0001f600" * 200})
    await listener.send(type="ping")
    await listener.until_type("pong")
    assert not [frame for frame in listener.frames if "title" in str(frame)]
    await hub.stop()
    await hub.start()
    async with aiohttp.ClientSession(f"{hub.url}/api/v1/") as again:
        assert (await get(again, "sessions/s1"))[1]["title"] == "\U0001f600" * 200
        assert (await call(again, "PATCH", "sessions/s1", {"metadata": None}))[1].get("metadata") is None


@pytest.mark.parametrize(
    "body, status, code",
    [
        ({}, 400, "bad_frame"),
        ({"title": "x" * 201}, 400, "bad_frame"),
        ({"title": 7}, 400, "bad_frame"),
        ({"metadata": [1]}, 400, "bad_frame"),
        ([], 400, "bad_frame"),
        ({"metadata": {"a": "x" * (16 * 1024 - 7)}}, 413, "too_large"),
    ],
)
async def test_a_bad_label_is_refused(http: aiohttp.ClientSession, body: Any, status: int, code: str) -> None:
    """The error says what to send, and the label stays as it was."""
    await post(http, "sessions", {"sessionId": "s1"})
    await call(http, "PATCH", "sessions/s1", {"title": "a", "metadata": {"a": "x" * (16 * 1024 - 8)}})
    actual_status, result = await call(http, "PATCH", "sessions/s1", body)
    assert (actual_status, result["code"]) == (status, code) and ("title" in result["error"] or status == 413)
    _, shown = await get(http, "sessions/s1")
    assert shown["title"] == "a" and len(shown["metadata"]["a"]) == 16 * 1024 - 8


async def test_a_label_creates_the_session(http: aiohttp.ClientSession) -> None:
    """A refused label creates none."""
    assert (await call(http, "PATCH", "sessions/s1", {"title": "x" * 201}))[0] == 400
    assert (await get(http, "sessions/s1"))[0] == 404
    assert (await call(http, "PATCH", "sessions/s1", {"title": "a"}))[0] == 200
    assert (await get(http, "sessions/s1"))[1]["title"] == "a"


async def test_concurrent_requests_create_a_session_once(http: aiohttp.ClientSession) -> None:
    """One request gets 201, and the others get 200, all with the same epoch."""
    answers = await asyncio.gather(*(post(http, "sessions", {"sessionId": "s1"}) for _ in range(8)))
    assert sorted(status for status, _ in answers) == [200] * 7 + [201]
    assert len({shown["epoch"] for _, shown in answers}) == 1


async def test_a_page_of_another_origin_may_patch_and_delete(hub: Hub, http: aiohttp.ClientSession) -> None:
    """The preflight allows both methods."""
    for method in ("PATCH", "DELETE"):
        headers = {"Origin": "http://localhost:5173", "Access-Control-Request-Method": method}
        async with http.options("sessions/s1", headers=headers) as answer:
            assert answer.status == 200 and method in answer.headers["Access-Control-Allow-Methods"]


async def test_pages_of_events_have_no_gap_between_strips_and_loose_events(hub: Hub) -> None:
    """A page contains compacted and new events, and a page that is not the last has `more`."""
    await hub.start(page_rows=7)
    async with aiohttp.ClientSession(base_url=f"{hub.url}/api/v1/") as http:
        await _read_all_pages(hub, http)


async def _read_all_pages(hub: Hub, http: aiohttp.ClientSession) -> None:
    for words in ("a b", "c d"):
        await post(http, "sessions/s1/chat?wait=true", {"agentId": "echo", "message": words})
        await hub.node.log.events.expire(0, 2**60)  # which compacts all events
    await post(http, "sessions/s1/chat?wait=true", {"agentId": "echo", "message": "e"})
    seqs: list[int] = []
    while True:
        _, page = await get(http, f"sessions/s1/events?afterSeq={seqs[-1] if seqs else 0}")
        seqs += [event["seq"] for event in page["data"]]
        if not page["more"]:
            break
        assert len(page["data"]) >= 4
    assert seqs == list(range(1, page["seq"] + 1))


async def test_a_page_right_after_an_answer_is_complete(hub: Hub, http: aiohttp.ClientSession) -> None:
    """Even if the first events are compacted, and the last ones are not."""
    await post(http, "sessions/s1/chat?wait=true", {"agentId": "echo", "message": "a b"})
    await hub.node.log.events.expire(0, 2**60)
    await post(http, "sessions/s1/chat?wait=true", {"agentId": "echo", "message": "c"})
    _, page = await get(http, "sessions/s1/events?afterSeq=0")
    assert [event["seq"] for event in page["data"]] == list(range(1, page["seq"] + 1)) and page["more"] is False
