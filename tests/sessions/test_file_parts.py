"""The part of a message that names a file of its session: agents read it, and every protocol keeps it."""

import base64
import json
from typing import Any

import aiohttp
import pytest
from ag_ui.core import MessagesSnapshotEvent
from support.agui import events, run_request, text
from support.hub import Client, Hub
from support.people import People
from support.waiting import PATIENCE

from hub.messages.parts import make_file_part
from hub.protocols.openai_request import SESSION_HEADER

READER = """
from hub import AgentError, Run

async def reader(run: Run):
    for part in [*(part for past in run.history for part in past.parts), *run.parts]:
        if part["type"] == "text":
            continue
        try:
            yield f"{part['metadata']['name']}: {(await run.file(part)).decode()}. "
        except AgentError as error:
            yield f"{error.code}: {error}. "
"""


async def upload(hub: Hub, session: str = "s1", name: str = "notes.txt", **headers: str) -> dict[str, Any]:
    """Return the part that names a new file."""
    url = f"{hub.url}/api/v1/files?sessionId={session}&name={name}"
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(PATIENCE)) as http, http.post(
        url, data=b"Otters", headers={"Content-Type": "text/plain", **headers}
    ) as response:
        assert response.status == 201
        return make_file_part((await response.json())["fileId"], "text/plain", name)


async def post(hub: Hub, path: str, body: dict[str, Any], **headers: str) -> tuple[int, dict[str, Any]]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(PATIENCE)) as http, http.post(
        f"{hub.url}{path}", json=body, headers=headers
    ) as response:
        return response.status, await response.json()


async def begin(hub: Hub) -> Client:
    hub.agent("reader.py", READER)
    await hub.start()
    client = await hub.connect(extended=True)
    await client.send(type="subscribe", sessionId="s1")
    await client.until_type("subscribed")
    return client


async def test_an_agent_reads_the_files_of_its_message_and_of_its_history(hub: Hub) -> None:
    """run.file() takes the part. A part that names no file of the hub is an error for the agent."""
    client = await begin(hub)
    part = await upload(hub)
    foreign = {
        "type": "image",
        "metadata": {"name": "x"},
        "source": {"type": "file", "value": "1", "provider": "other"},
    }
    await client.send(type="chat", agentId="reader", sessionId="s1", message="read", parts=[part])
    await client.until_done()
    await client.send(type="chat", agentId="reader", sessionId="s1", message="read", parts=[foreign])
    await client.until_done()
    refusal = "this part names no file of the hub: its source needs the type file and the provider hubbub"
    text = f"notes.txt: Otters. unknown_file: {refusal}. "
    assert client.text() == f"notes.txt: Otters. {text}"


async def test_a_part_with_the_id_alone_gets_the_type_and_the_name_of_the_file(hub: Hub) -> None:
    """In a chat and in an edit; what the client says is kept."""
    client = await begin(hub)
    whole = await upload(hub)
    file_id = whole["source"]["value"]
    bare = {"type": "document", "source": {"type": "file", "provider": "hubbub", "value": file_id}}
    await client.send(type="chat", agentId="reader", sessionId="s1", message="read", parts=[bare])
    message = await client.until_type("user_message")
    assert message["parts"] == [whole]
    await client.until_done()
    source = whole["source"] | {"mimeType": "text/markdown"}
    part = whole | {"source": source, "metadata": {"name": "mine", "page": 1}}
    edit = {"sessionId": "s1", "messageId": message["messageId"], "message": "again"}
    await client.send(type="edit", parts=[bare | {"source": source}, part], **edit)
    message = await client.until_type("user_message")
    assert message["parts"] == [whole | {"source": source}, part]
    await client.until_done()
    assert client.text().startswith("notes.txt: Otters. ")


async def test_a_message_with_an_unknown_file_is_refused(hub: Hub) -> None:
    """Nothing is stored. A file of another session is as unknown as one that does not exist."""
    client = await begin(hub)
    foreign_id = (await upload(hub, "s2"))["source"]["value"]
    await client.send(type="chat", agentId="reader", sessionId="s1", message="go", parts=[await upload(hub)])
    message_id = (await client.until_type("user_message"))["messageId"]
    await client.until_done()
    for file_id in (foreign_id, "f_nothing"):
        text = f"session s1 has no file {file_id}: upload the file to this session first"
        parts = [await upload(hub), make_file_part(file_id, "image/png", "a.png")]
        chat = {"agentId": "reader", "sessionId": "s1", "message": "hello", "parts": parts}
        await client.send(type="chat", ref=1, clientMsgId=f"c-{file_id}", **chat)
        error = await client.until(lambda frame: frame.get("ref") == 1)
        assert (error["type"], error["code"], error["message"]) == ("error", "unknown_file", text)
        assert error["clientMsgId"] == f"c-{file_id}"
        await client.send(type="edit", ref=2, sessionId="s1", messageId=message_id, message="hello", parts=parts)
        error = await client.until(lambda frame: frame.get("ref") == 2)
        assert (error["type"], error["code"]) == ("error", "unknown_file")
        status, body = await post(
            hub, "/api/v1/sessions/s1/chat", {"agentId": "reader", "message": "x", "parts": parts}
        )
        assert (status, body["code"], body["error"]) == (404, "unknown_file", text)
        status, body = await post(hub, "/api/v1/agents/reader/agui", run_request(parts, thread_id="s1"))
        assert (status, body["code"], body["error"]) == (404, "unknown_file", text)
    await client.send(type="ping")
    await client.until_type("pong")
    assert len([frame for frame in client.frames if frame["type"] == "user_message"]) == 1


async def test_a_repeated_message_is_answered_although_its_file_is_deleted(hub: Hub) -> None:
    """The first one was admitted."""
    client = await begin(hub)
    part = await upload(hub)
    chat = {"agentId": "reader", "sessionId": "s1", "message": "read", "parts": [part], "clientMsgId": "c1"}
    await client.send(type="chat", ref=1, **chat)
    await client.until_done()
    async with aiohttp.ClientSession() as http:
        assert (await http.delete(f"{hub.url}/api/v1/files/{part['source']['value']}")).status == 204
    await client.send(type="chat", ref=2, **chat)
    assert (await client.until(lambda frame: frame.get("ref") == 2))["status"] == "duplicate"


async def test_a_file_of_another_tenant_is_unknown(hub: Hub) -> None:
    """Also in a session with the same id."""
    hub.agent("reader.py", READER)
    hub.options["sign_in"] = True
    await hub.start()
    people = People(hub)
    await people.add("ann")
    await people.add("eve", tenant="other")
    part = await upload(hub, **people.headers("ann"))
    eve = await people.connect("eve")
    assert (await people.send_chat(eve, "reader", "mine", "s1"))["type"] == "accepted"
    error = await people.send_chat(eve, "reader", "theirs", "s1", parts=[part])
    assert (error["type"], error["code"]) == ("error", "unknown_file")


async def read_snapshot(hub: Hub, body: dict[str, Any]) -> dict[str, Any]:
    """Connect to the session of a request, and return the event with its messages."""
    url = f"{hub.url}/api/v1/agents/reader/agui/connect"
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(PATIENCE)) as http, http.post(
        url, json=body
    ) as answer:
        async for line in answer.content:
            if b'"MESSAGES_SNAPSHOT"' in line:
                return dict(json.loads(line.removeprefix(b"data: ")))
    raise AssertionError("the stream has no snapshot")


@pytest.mark.parametrize("name", ["mimeType", "mime_type"])
async def test_agui_keeps_the_part_in_a_request_and_in_the_messages(hub: Hub, name: str) -> None:
    """Also with the names of AG-UI's package for Python. The snapshot is what AG-UI's package accepts."""
    client = await begin(hub)
    part = await upload(hub)
    sent = part | {"source": {name if key == "mimeType" else key: value for key, value in part["source"].items()}}
    content = [{"type": "text", "text": "read"}, sent]
    body = run_request("read", thread_id="s1")
    body["messages"][0]["content"] = content
    assert text(await events(hub, "reader", body)).startswith("notes.txt: Otters")
    stored = (await client.until_type("user_message"))["parts"]
    assert stored == [{"type": "text", "text": "read"}, part]
    snapshot = await read_snapshot(hub, body)
    assert snapshot["messages"][0]["content"] == content[:1] + [part]
    (validated,) = MessagesSnapshotEvent.model_validate(snapshot).model_dump(by_alias=True, exclude_none=True)[
        "messages"
    ][:1]
    assert validated["content"] == content[:1] + [part]


async def test_an_image_of_openais_clients_is_in_the_session(hub: Hub) -> None:
    """A `data:` URL stays a part with its bytes: other clients of the session see it, and it needs no file."""
    client = await begin(hub)
    url = "data:image/png;base64," + base64.b64encode(b"\x89PNG").decode()
    content = [{"type": "text", "text": "see"}, {"type": "image_url", "image_url": {"url": url}}]
    body = {"model": "echo", "messages": [{"role": "user", "content": content}]}
    status, answer = await post(hub, "/v1/chat/completions", body, **{SESSION_HEADER: "s1"})
    assert status == 200 and answer["choices"][0]["finish_reason"] == "stop"
    source = (await client.until_type("user_message"))["parts"][1]["source"]
    assert source == {"type": "data", "value": base64.b64encode(b"\x89PNG").decode(), "mimeType": "image/png"}
