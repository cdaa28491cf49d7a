"""A hub that drains: waiting requests get an error, and each running answer gets its time to end."""

import asyncio
from typing import Any

import aiohttp
from support.hub import Hub
from support.waiting import PATIENCE, eventually

from hub.access.principal import LOCAL
from hub.commands import table as commands
from hub.ids import Key
from hub.messages import Cancel, PageRequest


async def post(hub: Hub, path: str, body: dict[str, Any]) -> tuple[int, Any]:
    async with aiohttp.ClientSession() as http, http.post(f"{hub.url}{path}", json=body) as answer:
        return answer.status, await answer.json()


def begin_shutdown(hub: Hub, hurry: asyncio.Event) -> asyncio.Task[None]:
    hub.door.drain()
    return asyncio.create_task(hub.door.finish(hurry))


async def test_a_request_that_waits_for_a_queued_chat_gets_an_error_with_its_ids(hub: Hub) -> None:
    """The chat stays stored, and is answered after the next start. On OpenAI's route, no client repeats the status."""
    await hub.start()
    never = {"agentId": "gated", "message": str(hub.folder / "never")}
    client = await hub.connect("?sessionId=s1")
    await client.send(type="chat", sessionId="s1", **never)
    await client.until_type("stream")
    chat = {"agentId": "echo", "message": "later", "ifBusy": "enqueue"}
    waiting = asyncio.create_task(post(hub, "/api/v1/sessions/s1/chat?wait=true", chat))
    await eventually(lambda: len(hub.node.sessions[Key("s1")].queued_runs) == 1)
    completion = {"model": "gated", "sessionId": "s1", "messages": [{"role": "user", "content": "x"}]}
    asking = asyncio.create_task(post(hub, "/v1/chat/completions", completion))
    await eventually(lambda: len(hub.node.sessions[Key("s1")].queued_runs) == 2)
    first, second = (run.id for run in hub.node.sessions[Key("s1")].queued_runs)
    hurry = asyncio.Event()
    hurry.set()
    ending = begin_shutdown(hub, hurry)
    async with asyncio.timeout(PATIENCE):
        (status, body), (openai_status, openai_body) = await asyncio.gather(waiting, asking)
        await ending
    assert (status, body["code"], body["sessionId"], body["runId"]) == (503, "draining", "s1", first)
    assert (openai_status, openai_body["error"]["code"]) == (422, "draining")
    assert second in openai_body["error"]["message"]
    await hub.stop()
    await hub.start()

    async def read_answers() -> list[str]:
        messages = (await commands.list_messages(hub.door, LOCAL, "s1", PageRequest(9))).rows
        return [message.content for message in messages if message.runId == first]

    async with asyncio.timeout(PATIENCE):
        while await read_answers() != ["later "]:
            await asyncio.sleep(0.01)
    await commands.cancel(hub.door, LOCAL, Cancel(sessionId="s1"))


async def test_an_answer_without_a_session_gets_its_time_to_end(hub: Hub) -> None:
    """Like an answer in a session. The hub ends after it."""
    await hub.start()
    gate = hub.folder / "gate"
    body = {"model": "gated", "messages": [{"role": "user", "content": str(gate)}]}
    asking = asyncio.create_task(post(hub, "/v1/chat/completions", body))
    await eventually(lambda: hub.node.completions)
    ending = begin_shutdown(hub, asyncio.Event())
    refused, _ = await post(hub, "/v1/chat/completions", body)
    assert refused == 503 and not ending.done() and not asking.done()
    gate.touch()
    async with asyncio.timeout(PATIENCE):
        status, answer = await asking
        await ending
    assert status == 200 and answer["choices"][0]["message"]["content"] == "one two"
    assert not hub.node.completions
