"""Sessions over HTTP, and listening by server-sent events."""

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
    await hub.start()
    async with aiohttp.ClientSession(f"{hub.url}/api/v1/", timeout=aiohttp.ClientTimeout(PATIENCE)) as http:
        yield http


async def test_a_chat_is_accepted_and_heard_by_all(hub: Hub, http: aiohttp.ClientSession) -> None:
    """One run, over every way in and out."""
    socket = await hub.connect("?sessionId=s1")
    async with open_stream(http, "sessions/s1/events") as stream:
        status, accepted = await post(http, "sessions/s1/chat", {"agentId": "echo", "message": "hello there"})
        assert status == 202 and accepted["status"] == "started" and accepted["sessionId"] == "s1"
        await stream.until_kind("run_finished")
        await socket.until_done()
    assert stream.text() == socket.text() == "hello there "
    assert {said.data["runId"] for said in stream.events if said.kind == "stream"} == {accepted["runId"]}
    await socket.close()
    await wait_until_all_left(hub)


async def test_an_idempotency_key_runs_once(http: aiohttp.ClientSession) -> None:
    """It is the clientMsgId; other content under it is refused."""
    body = {"agentId": "echo", "message": "hello"}
    first = await post(http, "sessions/s1/chat", body, **{"Idempotency-Key": "k1"})
    again = await post(http, "sessions/s1/chat", body, **{"Idempotency-Key": "k1"})
    other = await post(http, "sessions/s1/chat", body | {"message": "other"}, **{"Idempotency-Key": "k1"})
    assert (first[0], again[0], again[1]["status"]) == (202, 202, "duplicate")
    assert first[1]["runId"] == again[1]["runId"]
    assert other[0] == 409 and other[1]["code"] == "id_reused"


async def test_wait_gives_the_whole_answer(http: aiohttp.ClientSession) -> None:
    """With how it ended; a duplicate of an ended run gets the same."""
    body = {"agentId": "echo", "message": "hello there", "clientMsgId": "k1"}
    status, answer = await post(http, "sessions/s1/chat?wait=true", body)
    assert (status, answer["content"], answer["stopReason"]) == (200, "hello there ", "end_turn")
    assert (await post(http, "sessions/s1/chat?wait=true", body)) == (200, answer)
    _, failed = await post(http, "sessions/s1/chat?wait=true", {"agentId": "failing", "message": "secret"})
    assert (failed["content"], failed["stopReason"], failed["error"]["code"]) == ("one ", "error", "agent_error")
    assert "secret" not in failed["error"]["message"]


async def test_an_answer_that_began_anew_has_no_text_that_was_taken_back(hub: Hub) -> None:
    """Who asks for it again after a restart gets it as it is at the end."""
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


async def test_a_chat_may_be_a_stream_that_ends_with_its_answer(hub: Hub, http: aiohttp.ClientSession) -> None:
    """From `accepted` to `run_finished`; then the response is over, and nothing is left behind."""
    headers = {"Accept": "text/event-stream"}
    async with http.post("sessions/s1/chat", json={"agentId": "echo", "message": "a b"}, headers=headers) as response:
        stream = Stream(response)
        await stream.rest()
    kinds = [said.kind for said in stream.events if said.kind != "state"]
    assert kinds[0] == "accepted" and kinds[-1] == "run_finished" and stream.text() == "a b "
    await wait_until_all_left(hub)


async def test_a_refresh_in_mid_answer_ends_with_the_same_text(
    hub: Hub, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    """Over SSE by Last-Event-ID, the WebSocket by its cursor, and REST from the log."""
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
    """With the history, then as for a new listener."""
    await post(http, "sessions/s1/chat?wait=true", {"agentId": "echo", "message": "hello"})
    async with open_stream(http, "sessions/s1/events", **{"Last-Event-ID": "other:1"}) as stream:
        reset = await stream.until_kind("reset")
    assert reset.data["reason"] == "epoch_changed" and reset.id is None
    assert [message["content"] for message in reset.data["messages"]] == ["hello", "hello "]


async def test_messages_come_by_the_slice(http: aiohttp.ClientSession) -> None:
    """The oldest first, or the newest; a slice that is not the last says so, and where the list goes on."""
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


async def test_agents_come_by_the_slice(http: aiohttp.ClientSession) -> None:
    """In the order of their ids, or backwards."""
    _, everything = await get(http, "agents")
    names = [one["agentId"] for one in everything["data"]]
    assert names == sorted(names) and everything["more"] is False
    for order, expected in (("asc", names), ("desc", names[::-1])):
        listed: list[str] = []
        place: str | None = ""
        while place is not None:
            _, some = await get(http, f"agents?limit=2&order={order}{place}")
            listed += [one["agentId"] for one in some["data"]]
            place = f"&after={some['next']}" if some["more"] else None
        assert listed == expected


async def test_sessions_are_listed_the_newest_first(http: aiohttp.ClientSession) -> None:
    """Page by page, by agent, by the time of their last message."""
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


async def test_a_session_is_made_and_shown(hub: Hub, http: aiohttp.ClientSession, tmp_path: Path) -> None:
    """Under an id of its own, or the one that is named; twice is once."""
    status, made = await post(http, "sessions")
    assert status == 201 and made["seq"] == 0 and made["state"] == "idle"
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
async def test_what_is_wrong_is_said(http: aiohttp.ClientSession, path: str, status: int, code: str) -> None:
    """In one form, with a status that fits."""
    await post(http, "sessions/s1/chat?wait=true", {"agentId": "echo", "message": "hello"})
    found, body = await get(http, path)
    assert (found, body["code"]) == (status, code) and set(body) == {"error", "code"}


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
    """And makes no session."""
    found, said = await post(http, "sessions/s1/chat", body)
    assert (found, said["code"]) == (status, code)
    assert (await get(http, "sessions/s1/messages"))[0] == 404


async def test_a_bad_last_event_id_is_refused(http: aiohttp.ClientSession) -> None:
    """Before the stream begins."""
    async with http.get("sessions/s1/events", headers={"Accept": "text/event-stream", "Last-Event-ID": "7"}) as answer:
        assert answer.status == 400 and (await answer.json())["code"] == "bad_id"


async def test_cancel_stops_what_is_answered(http: aiohttp.ClientSession, tmp_path: Path) -> None:
    """Its end is heard as everywhere; where nothing is answered, that is said."""
    assert (await post(http, "sessions/s1/cancel"))[0] == 409
    async with open_stream(http, "sessions/s1/events") as stream:
        _, accepted = await post(http, "sessions/s1/chat", {"agentId": "gated", "message": str(tmp_path / "never")})
        await stream.until_kind("stream")
        status, said = await post(http, "sessions/s1/cancel", {"runId": accepted["runId"]})
        assert status == 200 and said["runIds"] == [accepted["runId"]]
        assert (await stream.until_kind("run_finished")).data["stopReason"] == "cancelled"


async def test_a_silent_stream_is_pinged_and_lives(hub: Hub) -> None:
    """By a comment, which no client shows; no pong is waited for."""
    await hub.start(ping_seconds=0.05, pong_seconds=0.05)
    async with aiohttp.ClientSession(f"{hub.url}/api/v1/") as http:
        async with open_stream(http, "sessions/s1/events") as stream:
            comments = 0
            while comments < 3:
                comments += await stream.next() is None


async def test_a_listener_that_goes_leaves_nothing(hub: Hub, http: aiohttp.ClientSession) -> None:
    """Also one that never read."""
    for _ in range(3):
        async with open_stream(http, "sessions/s1/events"):
            pass
    await wait_until_all_left(hub)


async def test_streams_end_when_the_hub_does(hub: Hub, http: aiohttp.ClientSession) -> None:
    """The listener hears that it goes down, and the end of the response."""
    async with open_stream(http, "sessions/s1/events") as stream:
        hub.node.drain()
        await stream.until_kind("draining")
        stopping = asyncio.create_task(hub.stop())
        await stream.rest()
        await stopping


async def test_a_session_is_called_something(hub: Hub, http: aiohttp.ClientSession) -> None:
    """Title and metadata are replaced one by one, shown with the session and in the list, and outlive the hub."""
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
    """With what to send, and nothing changes."""
    await post(http, "sessions", {"sessionId": "s1"})
    await call(http, "PATCH", "sessions/s1", {"title": "a", "metadata": {"a": "x" * (16 * 1024 - 8)}})
    found, said = await call(http, "PATCH", "sessions/s1", body)
    assert (found, said["code"]) == (status, code) and ("title" in said["error"] or status == 413)
    _, shown = await get(http, "sessions/s1")
    assert shown["title"] == "a" and len(shown["metadata"]["a"]) == 16 * 1024 - 8


async def test_a_label_makes_the_session(http: aiohttp.ClientSession) -> None:
    """As anything does that is kept; one that is refused makes none."""
    assert (await call(http, "PATCH", "sessions/s1", {"title": "x" * 201}))[0] == 400
    assert (await get(http, "sessions/s1"))[0] == 404
    assert (await call(http, "PATCH", "sessions/s1", {"title": "a"}))[0] == 200
    assert (await get(http, "sessions/s1"))[1]["title"] == "a"


async def test_of_two_who_make_a_session_one_is_told_that_it_is_new(http: aiohttp.ClientSession) -> None:
    """201 for one, 200 for the others, with one epoch."""
    answers = await asyncio.gather(*(post(http, "sessions", {"sessionId": "s1"}) for _ in range(8)))
    assert sorted(status for status, _ in answers) == [200] * 7 + [201]
    assert len({shown["epoch"] for _, shown in answers}) == 1


async def test_a_page_of_another_origin_may_patch_and_delete(hub: Hub, http: aiohttp.ClientSession) -> None:
    """Its browser asks first."""
    for method in ("PATCH", "DELETE"):
        asked = {"Origin": "http://localhost:5173", "Access-Control-Request-Method": method}
        async with http.options("sessions/s1", headers=asked) as answer:
            assert answer.status == 200 and method in answer.headers["Access-Control-Allow-Methods"]


async def test_a_page_of_events_has_no_seam(hub: Hub) -> None:
    """What was compacted and what was just said come in one page; a page that is not all says that there is more."""
    await hub.start(page_rows=7)
    async with aiohttp.ClientSession(base_url=f"{hub.url}/api/v1/") as http:
        await _read_all_pages(hub, http)


async def _read_all_pages(hub: Hub, http: aiohttp.ClientSession) -> None:
    for words in ("a b", "c d"):
        await post(http, "sessions/s1/chat?wait=true", {"agentId": "echo", "message": words})
        await hub.node.log.events.expire(0, 2**60)  # which compacts what lies loose
    await post(http, "sessions/s1/chat?wait=true", {"agentId": "echo", "message": "e"})
    seen: list[int] = []
    while True:
        _, page = await get(http, f"sessions/s1/events?afterSeq={seen[-1] if seen else 0}")
        seen += [event["seq"] for event in page["data"]]
        if not page["more"]:
            break
        assert len(page["data"]) >= 4
    assert seen == list(range(1, page["seq"] + 1))


async def test_a_page_right_after_an_answer_is_whole(hub: Hub, http: aiohttp.ClientSession) -> None:
    """Though its beginning is compacted already, and its end is not."""
    await post(http, "sessions/s1/chat?wait=true", {"agentId": "echo", "message": "a b"})
    await hub.node.log.events.expire(0, 2**60)
    await post(http, "sessions/s1/chat?wait=true", {"agentId": "echo", "message": "c"})
    _, page = await get(http, "sessions/s1/events?afterSeq=0")
    assert [event["seq"] for event in page["data"]] == list(range(1, page["seq"] + 1)) and page["more"] is False
