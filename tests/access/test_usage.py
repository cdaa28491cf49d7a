"""Usage: what each principal used of each agent on each day, counted once, in the commit of the end of its run."""

import asyncio
from typing import Any

import aiohttp
import pytest
from support.hub import Hub
from support.people import People, start_people
from support.tools import HELPER
from support.waiting import eventually

from hub.access.records import UsageRecord
from hub.days import to_day
from hub.seams import Seams

DAY = 24 * 3600 * 1000
NOON = 20_000 * DAY + DAY // 2


def row(agent: str, messages: int, tokens: tuple[int, int], estimated: int = 0, name: str = "ann") -> dict[str, Any]:
    return {
        "day": "2024-10-04",
        "principal": name,
        "agent": agent,
        "messages": messages,
        "inputTokens": tokens[0],
        "outputTokens": tokens[1],
        "estimated": estimated,
    }


async def start_at_noon(hub: Hub, *names: str) -> People:
    hub.seams = Seams(now=lambda: NOON)
    return await start_people(hub, *names)


async def test_a_run_counts_the_tokens_that_its_agent_reports(hub: Hub) -> None:
    people = await start_at_noon(hub, "ann")
    ann = await people.connect("ann")
    for _ in range(2):
        await people.chat(ann, "metered", "hello", "s1")
    assert await people.usage("ann") == [row("metered", 2, (14, 10))]


async def test_tokens_are_estimated_from_the_bytes_if_the_agent_reports_none(hub: Hub) -> None:
    """Four bytes of UTF-8 are a token, rounded up. The estimate is marked."""
    people = await start_at_noon(hub, "ann")
    ann = await people.connect("ann")
    await people.chat(ann, "plain", "四个汉字é", "s1")  # 14 bytes
    assert await people.usage("ann") == [row("plain", 1, (4, 2), 6)]


async def test_an_unknown_count_of_a_report_is_estimated_alone(hub: Hub) -> None:
    hub.agent(
        "half.py",
        """
        from hub import Finish, Usage

        async def half(message: str):
            yield "abcde"
            yield Finish(usage=Usage(outputTokens=50))
        """,
    )
    people = await start_at_noon(hub, "ann")
    await people.chat(await people.connect("ann"), "half", "hello", "s1")
    assert await people.usage("ann") == [row("half", 1, (2, 50), 2)]


async def test_failed_and_cancelled_runs_count(hub: Hub) -> None:
    """A run that was cancelled in the queue counts its message, and no tokens: its agent was not called."""
    people = await start_at_noon(hub, "ann")
    ann = await people.connect("ann")
    assert (await people.chat(ann, "raises", "hello", "s1"))["stopReason"] == "error"
    gate = str(hub.folder / "gate")
    running = await people.send_chat(ann, "gated", gate, "s1")
    await ann.find(lambda frame: frame["type"] == "stream" and frame["runId"] == running["runId"])
    queued = await people.send_chat(ann, "gated", gate, "s1")
    await ann.send(type="cancel", sessionId="s1", queued=True)
    for _ in (running, queued):
        assert (await ann.until_done())["stopReason"] == "cancelled"
    tokens = -(-len(gate) // 4)
    assert await people.usage("ann") == [row("gated", 2, (tokens, 1), tokens + 1), row("raises", 1, (2, 2), 4)]


async def test_called_agents_count_for_the_principal_of_the_message(hub: Hub) -> None:
    """Their tokens count, but no message: the principal has sent only one."""
    people = await start_at_noon(hub, "ann")
    await people.chat(await people.connect("ann"), "caller", "plain metered metered", "s1")
    assert await people.usage("ann") == [
        row("caller", 1, (6, 1), 7),
        row("metered", 0, (14, 10)),
        row("plain", 0, (2, 2), 4),
    ]


async def test_a_called_agent_that_still_runs_when_the_run_is_cancelled_counts(hub: Hub) -> None:
    people = await start_at_noon(hub, "ann")
    hub.agent(
        "waits.py",
        """
        import asyncio, pathlib

        async def waits(message: str):
            yield "abcde"
            pathlib.Path(__file__).with_name("waiting").touch()
            await asyncio.Event().wait()
        """,
    )
    await hub.node.agents.reload("waits")
    ann = await people.connect("ann")
    await people.send_chat(ann, "caller", "waits", "s1")
    await eventually((hub.folder / "agents" / "waiting").exists)
    await ann.send(type="cancel", sessionId="s1")
    await ann.until_done()
    assert await people.usage("ann") == [row("caller", 1, (2, 0), 2), row("waits", 0, (2, 2), 4)]


async def test_usage_is_in_the_commit_of_the_end_of_the_run(hub: Hub) -> None:
    """A client that has heard the end finds the usage in the log: also in the middle of other commits."""
    people = await start_at_noon(hub, "ann")

    async def talk(number: int) -> int:
        ann = await people.connect("ann")
        for _ in range(10):
            await people.chat(ann, "metered", "hello", f"s{number}")
            # Count the ends first: other clients hear more of them while the log is read.
            ends = [frame for client in hub.clients for frame in client.frames if frame["type"] == "run_finished"]
            records = await hub.node.log.access.list_usage("default", "2024-10-04", "2024-10-04")
            assert sum(record.messages for record in records) >= len(ends)
        return 10

    counts = await asyncio.gather(*map(talk, range(4)))
    assert await people.usage("ann") == [row("metered", sum(counts), (280, 200))]


async def test_an_answer_outside_a_session_counts(hub: Hub) -> None:
    """It has no run in the log, so it is saved by itself."""
    people = await start_at_noon(hub, "ann")
    for agent in ("metered", "caller"):
        body = {"model": agent, "messages": [{"role": "user", "content": "plain"}]}
        for stream in (False, True):
            status, _ = await people.request("ann", "POST", "/chat/completions", json=body | {"stream": stream})
            assert status == 200
    await hub.door.quotas.wait_for_saves()
    assert await people.usage("ann") == [
        row("caller", 2, (4, 2), 6),
        row("metered", 2, (14, 10)),
        row("plain", 0, (4, 4), 8),
    ]


async def test_an_answer_in_a_session_over_openai_counts_as_a_run(hub: Hub) -> None:
    people = await start_at_noon(hub, "ann")
    body = {"model": "metered", "messages": [{"role": "user", "content": "hello"}], "sessionId": "s1"}
    assert (await people.request("ann", "POST", "/chat/completions", json=body))[0] == 200
    assert await people.usage("ann") == [row("metered", 1, (7, 5))]


@pytest.mark.parametrize("session", [{}, {"sessionId": "s1"}], ids=["no session", "session"])
async def test_calls_and_results_of_tools_count(hub: Hub, session: dict[str, str]) -> None:
    """The answer has the name and the arguments of a call, and the next message has its result."""
    hub.agent("helper.py", HELPER)
    people = await start_at_noon(hub, "ann")
    body = {"model": "helper", "tools": [{"type": "function", "function": {"name": "get_weather"}}]} | session
    question = {"role": "user", "content": "c1"}
    status, answer = await people.request("ann", "POST", "/chat/completions", json=body | {"messages": [question]})
    message = answer["choices"][0]["message"]
    assert status == 200 and message["tool_calls"][0]["function"]["arguments"] == '{"city":"Rome"}'
    await hub.door.quotas.wait_for_saves()
    assert await people.usage("ann") == [row("helper", 1, (1, 7), 8)]  # get_weather{"city":"Rome"}
    result = {"role": "tool", "tool_call_id": "c1", "content": "sunny and warm"}
    messages = [question, message, result]
    status, answer = await people.request("ann", "POST", "/chat/completions", json=body | {"messages": messages})
    words = -(-len(answer["choices"][0]["message"]["content"]) // 4)
    await hub.door.quotas.wait_for_saves()
    assert await people.usage("ann") == [row("helper", 2, (1 + 4, 7 + words), 12 + words)]


async def test_a_run_that_a_restart_ends_counts_once(hub: Hub) -> None:
    """The run has the tokens of its text so far."""
    people = await start_at_noon(hub, "ann")
    ann, gate = await people.connect("ann"), str(hub.folder / "gate")
    accepted = await people.send_chat(ann, "gated", gate, "s1")
    await ann.find(lambda frame: frame["type"] == "stream" and frame["runId"] == accepted["runId"])
    node = hub.node
    for session in node.sessions.values():
        session.outbox.close()  # as after kill -9: the end of the run does not reach the log
    await hub.stop()
    people = People(await hub.start(), people.keys, people.ids)
    tokens = -(-len(gate) // 4)
    expected = [row("gated", 1, (tokens, 1), tokens + 1)]
    ann = await people.connect("ann", "?sessionId=s1&afterSeq=0")
    await ann.until_done()
    assert await people.usage("ann") == expected
    await hub.stop()
    people = People(await hub.start(), people.keys, people.ids)
    assert await people.usage("ann") == expected


async def test_the_usage_is_of_the_day_of_the_end(hub: Hub) -> None:
    """Days are UTC days. The query selects them, both ends included."""
    times = [NOON]
    hub.seams = Seams(now=lambda: times[-1])
    people = await start_people(hub, "ann")
    ann = await people.connect("ann")
    for now in (NOON, NOON + DAY // 2 - 1, NOON + DAY // 2, NOON + 5 * DAY):
        times.append(now)
        await people.chat(ann, "metered", "hello", "s1")
    days = [(entry["day"], entry["messages"]) for entry in await people.usage("ann")]
    assert days == [("2024-10-04", 2), ("2024-10-05", 1), ("2024-10-09", 1)]
    query = "?since=2024-10-05&until=2024-10-08"
    assert [entry["day"] for entry in await people.usage("ann", query)] == ["2024-10-05"]
    times.append(NOON + 31 * DAY)
    assert [entry["day"] for entry in await people.usage("ann")] == ["2024-10-09"]
    status, body = await people.request("ann", "GET", "/usage?since=yesterday")
    assert (status, body["error"]) == (400, "?since= is wrong: Expected a day such as 2026-11-30")


async def test_an_admin_sees_its_tenant_and_a_member_itself(hub: Hub) -> None:
    people = await start_at_noon(hub, "ann", "bob")
    await people.add("root", role="admin")
    await people.add("boss", role="admin", tenant="acme")
    for name, session in (("ann", "s1"), ("bob", "s2"), ("boss", "s3")):
        await people.chat(await people.connect(name), "metered", "hello", session)
    assert [entry["principal"] for entry in await people.usage("ann")] == ["ann"]
    assert sorted(entry["principal"] for entry in await people.usage("root")) == ["ann", "bob"]
    assert [entry["principal"] for entry in await people.usage("boss")] == ["boss"]
    assert [entry["principal"] for entry in await people.usage("root", f"?principal={people.ids['bob']}")] == ["bob"]
    assert await people.usage("boss", f"?principal={people.ids['bob']}") == []
    status, body = await people.request("ann", "GET", f"/usage?principal={people.ids['bob']}")
    assert (status, body["code"]) == (403, "denied")


async def test_nothing_is_counted_while_sign_in_is_off(hub: Hub) -> None:
    """There is only one principal, and no cost."""
    await hub.start()
    client = await hub.connect(extended=True)
    await client.send(type="chat", agentId="echo", sessionId="s1", message="hello")
    await client.until_done()
    async with aiohttp.ClientSession() as http:
        body = {"model": "echo", "messages": [{"role": "user", "content": "hello"}]}
        async with http.post(f"{hub.url}/v1/chat/completions", json=body) as response:
            assert response.status == 200
        async with http.get(f"{hub.url}/api/v1/usage") as response:
            assert await response.json() == {"data": [], "more": False}
    assert list(await hub.node.log.access.list_usage(None, "", "9999")) == []


async def test_the_log_adds_amounts_of_answers_outside_sessions(hub: Hub) -> None:
    await hub.start()
    record = UsageRecord(
        day=to_day(NOON), tenant="default", principal="p", agent="a", messages=1, input_tokens=2, estimated=2
    )
    for _ in range(2):
        await hub.node.log.access.add_usage([record, record])
    (total,) = await hub.node.log.access.list_usage(None, "", "9999")
    assert (total.messages, total.input_tokens, total.estimated) == (4, 8, 8)
