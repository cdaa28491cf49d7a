"""The history says how each answer ended, also that of an answer that failed without any text."""

import asyncio
from typing import Any

import aiohttp
import pytest
from support.hub import Client, Hub
from support.process import HubProcess
from support.sse import get
from support.waiting import PATIENCE

AGENTS = {
    "fails": "from hub import AgentError\nasync def fails(message):\n    yield message\n"
    "    raise AgentError('Gone.', 'gone')",
    "hangs": "import asyncio\nasync def hangs(message):\n    yield message\n    await asyncio.Event().wait()",
    "late": "import asyncio\nfrom hub import agent\n@agent(silence_limit=0.02)\nasync def late(message):\n"
    "    yield message\n    await asyncio.Event().wait()",
    "short": "from hub import Finish\nasync def short(message):\n    yield message\n    yield Finish('max_tokens')",
    "several": "from hub import Message\nasync def several(run):\n    yield Message('whole')\n    yield run.message\n"
    "    1 / 0",
    "sees": "async def sees(run):\n    yield str([(one.content, one.stop_reason) for one in run.history])",
}
FAILED = "agent several failed; the hub's output says why"
ENDS: dict[str, dict[str, Any]] = {
    "fails": {"stopReason": "error", "error": {"code": "gone", "message": "Gone."}},
    "hangs": {"stopReason": "cancelled"},
    "late": {"stopReason": "timeout"},
    "short": {"stopReason": "max_tokens"},
    "several": {"stopReason": "error", "error": {"code": "agent_error", "message": FAILED}},
    "echo": {},
}


async def begin(hub: Hub, **limits: Any) -> Client:
    for name, code in AGENTS.items():
        hub.agent(f"{name}.py", code)
    await hub.start(**limits)
    return await hub.connect(extended=True)


async def say(client: Client, agent: str, message: str, session: str = "s1") -> None:
    """Chat, and wait for the end of the answer."""
    await client.send(type="chat", agentId=agent, sessionId=session, message=message)
    run = (await client.until_type("accepted"))["runId"]
    if agent == "hangs":
        wanted = "stream" if message else "run_started"
        await client.find(lambda frame: frame["type"] == wanted and frame["runId"] == run)
        await client.send(type="cancel", sessionId=session)
    await client.find(lambda frame: frame["type"] == "run_finished" and frame["runId"] == run)


def ending(message: dict[str, Any]) -> dict[str, Any]:
    return {name: message[name] for name in ("stopReason", "error") if name in message}


async def read_answers(hub: Hub, client: Client, session: str = "s1") -> list[dict[str, Any]]:
    """Return the answers of a session, after checking that three ways to read them agree, except for seq."""
    async with aiohttp.ClientSession(f"{hub.url}/api/v1/", timeout=aiohttp.ClientTimeout(PATIENCE)) as http:
        _, listed = await get(http, f"sessions/{session}/messages")
    await client.send(type="subscribe", sessionId=session, history=100)
    history = (await client.until_type("subscribed"))["history"]
    await client.send(type="subscribe", sessionId=session, afterSeq=1, epoch="another")
    reset = (await client.until_type("reset"))["messages"]
    assert [{k: v for k, v in one.items() if k != "seq"} for one in listed["data"]] == history == reset
    return [one for one in listed["data"] if one["role"] == "assistant"]


@pytest.mark.parametrize("text", ["hi", ""])
async def test_an_answer_says_how_it_ended(hub: Hub, text: str) -> None:
    """In each list of messages, after its events are dropped, after a restart, and if it has no text."""
    client = await begin(hub)
    for agent in ENDS:
        await say(client, agent, "hi" if agent == "echo" else text)
    ends = [f["messageId"] for f in client.frames if f["type"] == "run_finished"]
    before = await read_answers(hub, client)
    last = {one["runId"]: one for one in before}.values()
    assert [(one["agentId"], ending(one)) for one in last] == [*ENDS.items()]
    assert [one["messageId"] for one in last] == ends
    await hub.node.log.events.expire(2**60, 0)
    await hub.stop()
    await hub.start()
    assert await read_answers(hub, await hub.connect(extended=True)) == before


async def test_the_last_message_of_a_run_has_its_stop_reason(hub: Hub) -> None:
    """The messages before it have no stop reason."""
    client = await begin(hub)
    await say(client, "several", "cut")
    assert [(one["content"], "stopReason" in one) for one in await read_answers(hub, client)] == [
        ("whole", False),
        ("cut", True),
    ]


async def test_an_agent_sees_which_answers_were_cut(hub: Hub) -> None:
    """Answers without text are left out: models refuse them."""
    client = await begin(hub)
    await say(client, "fails", "one")
    await say(client, "fails", "")
    await say(client, "sees", "now")
    assert (await read_answers(hub, client))[-1]["content"] == str([("one", None), ("one", "error"), ("", None)])


async def test_a_run_that_is_cancelled_in_the_queue_has_no_answer(hub: Hub) -> None:
    """No answer had begun. If the agent is gone by then, there is an answer that failed."""
    client = await begin(hub)
    gate = hub.folder / "gate"
    for agent in ("gated", "gated", "short"):
        await client.send(type="chat", agentId=agent, sessionId="s1", message=str(gate), ifBusy="enqueue")
        accepted = await client.until_type("accepted")
        run = accepted["runId"]
        if (agent, accepted["status"]) == ("gated", "queued"):
            await client.send(type="cancel", sessionId="s1", runId=run)
            await client.until(lambda frame: frame["type"] == "run_finished" and frame["runId"] == run)
    (hub.folder / "agents" / "short.py").unlink()
    await hub.node.agents.reload_changed_agents()
    gate.touch()
    await client.until(lambda frame: frame["type"] == "run_finished" and frame["runId"] == run)
    first, failed = await read_answers(hub, client)
    assert (first["content"], ending(first)) == ("one two", {})
    assert (failed["content"], failed["error"]["code"]) == ("", "unknown_agent")


async def test_a_fork_keeps_how_answers_ended(hub: Hub) -> None:
    """In the messages and in the events of the fork, which has no `run_finished`."""
    client = await begin(hub)
    for text in ("one", ""):
        await say(client, "fails", text)
    answers = await read_answers(hub, client)
    await client.send(type="fork", sessionId="s1", messageId=answers[-1]["messageId"], newSessionId="f1")
    await client.until(lambda frame: frame["type"] == "subscribed" and frame["sessionId"] == "f1")
    same = ("messageId", "content", "stopReason", "error")
    assert [[one[name] for name in same] for one in await read_answers(hub, client, "f1")] == [
        [one[name] for name in same] for one in answers
    ]
    await client.send(type="subscribe", sessionId="f1", afterSeq=0)
    events = [await client.until_type("message") for _ in answers]
    assert [[one[name] for name in same] for one in events] == [[one[name] for name in same] for one in answers]


async def test_an_answer_that_failed_without_text_is_regenerated(hub: Hub) -> None:
    """`regenerate` takes its message id, as of any other answer."""
    client = await begin(hub)
    await say(client, "fails", "")
    (failed,) = await read_answers(hub, client)
    await client.send(type="regenerate", sessionId="s1", messageId=failed["messageId"], agentId="echo", ref=1)
    removed = await client.until_type("message_removed")
    assert removed["messageIds"] == [failed["messageId"]]
    await client.until_type("run_finished")
    assert "stopReason" not in (await read_answers(hub, client) or [{}])[0]


async def test_an_answer_cut_off_by_a_kill_has_a_stop_reason(tmp_path: Any) -> None:
    """After the next start, the history has its text so far, and the stop reason `aborted`."""
    process = HubProcess(tmp_path)
    process.agent("hangs.py", AGENTS["hangs"])
    try:
        for message in ("said", ""):
            await process.start()
            async with aiohttp.ClientSession(f"{process.url}/api/v1/") as http:
                async with http.post("sessions/s1/chat", json={"agentId": "hangs", "message": message}) as response:
                    assert response.status == 202
                async with asyncio.timeout(PATIENCE):
                    wanted = "stream" if message else "run_started"
                    while wanted not in str((await get(http, "sessions/s1/events?after=0"))[1]["data"][-1:]):
                        await asyncio.sleep(0.01)
            await process.kill()
        await process.start()
        async with aiohttp.ClientSession(f"{process.url}/api/v1/") as http:
            _, listed = await get(http, "sessions/s1/messages")
        answers = [(one["content"], one.get("stopReason")) for one in listed["data"] if one["role"] == "assistant"]
        assert answers == [("said", "aborted"), ("", "aborted")]
    finally:
        await process.kill()
