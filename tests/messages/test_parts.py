"""Parts and metadata of a message are validated, stored, and passed to the agent."""

import json
import re
from typing import Any

import aiohttp
import pytest
from ag_ui.core import UserMessage
from support.hub import Client, Hub

from hub.ids import Key
from hub.limits import MiB

IMAGE = {"type": "image", "source": {"type": "data", "value": "aGVsbG8=", "mimeType": "image/png"}}
PARTS: list[dict[str, Any]] = [
    {"type": "text", "text": "look"},
    {**IMAGE, "id": "p1", "metadata": {"alt": "a cat"}},
    {"type": "audio", "source": {"type": "url", "value": "https://example.org/a.ogg", "mimeType": "audio/ogg"}},
    {"type": "video", "source": {"type": "url", "value": "https://example.org/v"}},
    {"type": "document", "source": {"type": "file", "value": "file-1", "provider": "openai"}},
]
BINARY = {"type": "binary", "mimeType": "application/pdf", "url": "https://example.org/b.pdf", "filename": "b.pdf"}
SEES = """
    import json
    from hub import Message

    async def sees(run):
        yield json.dumps([list(run.parts), dict(run.metadata), [list(past.parts) for past in run.history]])
    """


async def begin(hub: Hub, **limits: Any) -> Client:
    hub.agent("sees.py", SEES)
    await hub.start(**limits)
    return await hub.connect("?agentId=sees", extended=True)


async def say(client: Client, **fields: Any) -> dict[str, Any]:
    await client.send(type="chat", sessionId="s1", **{"message": "hi"} | fields)
    return await client.until(lambda f: f["type"] in ("run_finished", "error"))


async def test_parts_and_metadata_reach_the_event_the_agent_and_the_history(hub: Hub) -> None:
    """They are in the event, the run, the history of the next run and the REST API, also for an edited message."""
    client = await begin(hub)
    all_parts = [*PARTS, BINARY]
    end = await say(client, parts=all_parts, metadata={"from": {"app": 1}})
    event = await client.find(lambda f: f["type"] == "user_message")
    assert event["parts"] == all_parts and event["metadata"] == {"from": {"app": 1}}
    assert json.loads(client.text(end["runId"])) == [all_parts, {"from": {"app": 1}}, []]
    end = await say(client)
    assert json.loads(client.text(end["runId"])) == [[], {}, [all_parts, []]]
    async with aiohttp.ClientSession() as http:
        async with http.get(f"{hub.url}/api/v1/sessions/s1/messages") as response:
            first, answer, *_ = (await response.json())["data"]
    assert first["parts"] == all_parts and first["metadata"] == {"from": {"app": 1}} and "parts" not in answer
    assert answer["userMessageId"] == event["messageId"] == first["messageId"]
    await client.send(type="regenerate", sessionId="s1", messageId=first["messageId"])
    end = await client.until_done()
    assert json.loads(client.text(end["runId"])) == [all_parts, {"from": {"app": 1}}, []]
    edit = {"type": "edit", "sessionId": "s1", "messageId": first["messageId"], "message": "x"}
    await client.send(**edit, parts=[BINARY], metadata={"b": 2})
    end = await client.until_done()
    assert json.loads(client.text(end["runId"])) == [[BINARY], {"b": 2}, []]


def test_parts_have_the_format_of_ag_ui() -> None:
    """AG-UI's models accept the parts; `binary` is from versions before 1.0."""
    UserMessage.model_validate({"id": "u", "role": "user", "content": PARTS})


async def test_unknown_fields_of_a_part_are_dropped(hub: Hub) -> None:
    """The hub ignores unknown fields of commands, too."""
    client = await begin(hub)
    await say(client, parts=[{**IMAGE, "more": 1}])
    assert (await client.find(lambda f: f["type"] == "user_message"))["parts"] == [IMAGE]


BAD: list[tuple[Any, str]] = [
    ("text", "parts"),
    ([{"text": "no type"}], "$.parts[0]"),
    ([{"type": "hologram", "source": IMAGE["source"]}], "hologram"),
    ([{"type": "text"}], "text"),
    ([{"type": "image"}], "source"),
    ([{"type": "image", "source": {"type": "data", "value": "a", "mimeType": "image/png"}}], "base64"),
    ([{"type": "image", "source": {"type": "data", "value": "aGVsbG8="}}], "mimeType"),
    ([{"type": "image", "source": {"type": "url", "value": 7}}], "value"),
    ([{"type": "image", "source": {"type": "url", "value": "x", "mimeType": "png"}}], "mimeType"),
    ([{"type": "binary", "mimeType": "a/b", "filename": "f"}], "an id, a url or data"),
    ([IMAGE] * 65, "64"),
]


@pytest.mark.parametrize(("parts", "location"), BAD, ids=range(len(BAD)))
@pytest.mark.parametrize("kind", ["chat", "edit"])
async def test_bad_parts_are_refused_with_their_location(hub: Hub, kind: str, parts: Any, location: str) -> None:
    """The error is `bad_frame`, and nothing of the message is stored."""
    client = await begin(hub)
    await client.send(type=kind, sessionId="s1", messageId="m_1", message="hi", parts=parts)
    error = await client.until_type("error")
    assert error["code"] == "bad_frame" and location in error["message"]
    assert await hub.node.log.sessions.find(Key("s1")) is None


NUMBERS = [2**53, -(2**53), 1e20, 0.1, -0.0, 0.30000000000000004, 5e-324, 1.7976931348623157e308]
TOO_LARGE = [2**53 + 1, 2**64, 10**20, -(2**63) - 1]
UNFIT = ["9007199254740993", "18446744073709551617", "1e400", "-1e400", "NaN", "1.0000000000000000001", "1e-400"]
ROUTES = {
    "PATCH sessions/s1": '{"metadata": {"n": %s}}',
    "POST sessions": '{"sessionId": "s2", "metadata": {"n": %s}}',
    "POST sessions/s1/chat": '{"message": "x", "metadata": {"n": %s}}',
    "POST sessions/s1/resume": '{"interruptId": "i_1", "payload": {"n": %s}}',
    "POST agents/sees/broadcast": '{"message": "x", "n": %s}',
    "POST chat/completions": '{"model": "sees", "messages": [{"role": "user", "content": "x"}], "n": %s}',
    "POST agents/sees/agui": '{"threadId": "t", "runId": "r", "messages": [], "state": {"n": [%s]}}',
}


async def test_a_number_in_metadata_is_stored_exactly_or_refused(hub: Hub) -> None:
    """No number in the metadata of a message, a part or a session changes."""
    client = await begin(hub)
    text = {"type": "text", "text": "look", "metadata": NUMBERS}
    end = await say(client, parts=[text], metadata={"n": NUMBERS})
    output = client.text(end["runId"])
    assert json.dumps(json.loads(output)[:2]) == json.dumps([[text], {"n": NUMBERS}])  # -0.0 equals 0.0
    for number in TOO_LARGE:
        for fields in ({"metadata": {"n": number}}, {"parts": [{**text, "metadata": number}]}):
            refused = await say(client, **fields)
            assert refused["code"] == "bad_frame" and "2^53" in refused["message"]
    async with aiohttp.ClientSession() as http:
        address = f"{hub.url}/api/v1/sessions/s1"
        for number in TOO_LARGE:
            async with http.patch(address, json={"metadata": {"n": number}}) as response:
                assert (response.status, (await response.json())["code"]) == (400, "bad_frame")
        async with http.patch(address, json={"metadata": {"n": NUMBERS}}) as response:
            assert response.status == 200
        async with http.get(address) as response:
            assert json.dumps((await response.json())["metadata"]) == json.dumps({"n": NUMBERS})


@pytest.mark.parametrize("number", UNFIT)
async def test_a_number_that_would_change_is_refused_on_every_route(hub: Hub, number: str) -> None:
    """The routes are commands, HTTP bodies, OpenAI and AG-UI; nothing of the request is stored."""
    client = await begin(hub)
    for command in ("chat", "resume", "edit"):
        fields = f'"message": "x", "metadata": {{"n": {number}}}, "payload": [{number}]'
        await client.ws.send_str(f'{{"type": "{command}", "sessionId": "s1", {fields}}}')
        assert (await client.until_type("error"))["code"] == "bad_frame"
    async with aiohttp.ClientSession() as http:
        for route, body in ROUTES.items():
            method, path = route.split()
            async with http.request(method, f"{hub.url}/api/v1/{path}", data=body % number) as response:
                refusal = await response.text()
                if "completions" in path and number == UNFIT[0]:  # OpenAI's clients send integers of 64 bits
                    assert response.status == 400 and "this value of n" in refusal
                    continue
                assert response.status == 400 and re.search("not JSON|as a string", refusal), (route, refusal)
    assert await hub.node.log.sessions.find(Key("s1")) is None


async def test_the_limits_of_parts_and_metadata(hub: Hub) -> None:
    """64 parts and 16 KiB of metadata are accepted; one more of either is refused, and metadata must be an object."""
    client = await begin(hub)
    room = 16 * 1024 - len('{"a":""}')
    assert (await say(client, parts=[IMAGE] * 64, metadata={"a": "x" * room}))["type"] == "run_finished"
    error = await say(client, metadata={"a": "x" * (room + 1)})
    assert error["code"] == "bad_frame" and "metadata is larger than 16 KiB" in error["message"]
    assert (await say(client, metadata=["a"]))["code"] == "bad_frame"


async def test_a_client_msg_id_covers_parts_and_metadata(hub: Hub) -> None:
    """A repeat with the same ones is a duplicate; a repeat without them is another message."""
    client = await begin(hub)
    whole = {"clientMsgId": "k", "parts": [IMAGE], "metadata": {"a": 1}}
    await say(client, **whole)
    for other in ({"clientMsgId": "k"}, whole | {"parts": [BINARY]}, whole | {"metadata": {"a": 2}}):
        assert (await say(client, **other))["code"] == "id_reused"
    await client.send(type="chat", sessionId="s1", message="hi", **whole)
    assert (await client.until_type("accepted"))["status"] == "duplicate"


async def test_a_queued_message_keeps_its_parts_and_metadata_across_a_restart(hub: Hub) -> None:
    """Its run starts in the next process, and gets them."""
    client = await begin(hub)
    await client.send(type="chat", agentId="gated", sessionId="s1", message="never")
    await client.until_type("stream")
    await client.send(type="chat", sessionId="s1", message="hi", parts=PARTS, metadata={"a": 1}, ifBusy="enqueue")
    queued = await client.until(lambda f: f["type"] == "accepted")
    assert queued["status"] == "queued"
    await hub.stop()
    await hub.start()
    client = await hub.connect(extended=True)
    await client.send(type="subscribe", sessionId="s1", afterSeq=0)
    await client.until(lambda f: f["type"] == "run_finished" and f["runId"] == queued["runId"])
    assert json.loads(client.text(queued["runId"])) == [PARTS, {"a": 1}, [[], []]]


SHOWS = """
    import asyncio
    from hub import Message

    async def shows(message: str):
        yield Message("see", parts=PARTS)
        if message == "wait":
            await asyncio.Event().wait()
    """


async def test_a_message_of_an_agent_can_have_parts(hub: Hub) -> None:
    """Extended clients and the history have the parts, also after an abort; plain clients receive only the text."""
    hub.agent("shows.py", SHOWS.replace("PARTS", repr([{**IMAGE, "more": 1}])))
    client = await begin(hub)
    plain = await hub.connect("?sessionId=s1")
    await say(client, agentId="shows")
    assert (await client.find(lambda f: f["type"] == "message"))["parts"] == [IMAGE]
    await plain.until_done()
    assert "parts" not in plain.frames[0] and plain.frames[0]["content"] == "see"
    await client.send(type="chat", agentId="shows", sessionId="s1", message="wait")
    await client.until(lambda f: f["type"] == "message")
    await hub.stop()
    await hub.start()
    answers = [m for m in await hub.node.log.sessions.read_last_messages(Key("s1"), 9, MiB) if m.role == "assistant"]
    assert [m.parts for m in answers] == [(IMAGE,)] * 2


async def test_an_aborted_answer_keeps_its_parts_after_a_kill(hub: Hub) -> None:
    """The next start writes the end of the run with the parts in the log."""
    hub.agent("shows.py", "from hub import agent\n" + SHOWS.replace("PARTS", repr([IMAGE])).replace("\n    ", "\n"))
    client = await begin(hub)
    await client.send(type="chat", agentId="shows", sessionId="s1", message="wait")
    await client.until(lambda f: f["type"] == "message")
    for session in hub.node.sessions.values():  # leave the state of a killed process: no end is written
        for run in list(session.active_runs.values()):
            run.suspend()
            session.active_runs.pop(run.id)
    await hub.stop()
    await hub.start()
    client = await hub.connect(extended=True)
    await client.send(type="subscribe", sessionId="s1", afterSeq=0)
    assert (await client.until_done())["stopReason"] == "aborted"
    assert [m.parts for m in await hub.node.log.sessions.read_last_messages(Key("s1"), 9, MiB)] == [None, (IMAGE,)]


@pytest.mark.parametrize(
    ("parts", "code"),
    [
        ("[{'type': 'hologram'}]", "agent_bad_output"),
        ("[object()]", "agent_bad_output"),
        ("7", "agent_bad_output"),
        ("[{'type': 'text', 'text': '\\ud800'}]", "agent_bad_output"),
        ("[{'type': 'text', 'text': 'x' * 300_000}]", "answer_too_long"),
    ],
)
async def test_bad_parts_end_an_answer(hub: Hub, parts: str, code: str) -> None:
    """Each reason has its error code; earlier text stays."""
    hub.agent("shows.py", SHOWS.replace("PARTS", parts))
    client = await begin(hub)
    end = await say(client, agentId="shows")
    assert end["stopReason"] == "error"
    assert (await client.find(lambda f: f["type"] == "run_error"))["code"] == code
    assert "message" not in [f["type"] for f in client.frames]
