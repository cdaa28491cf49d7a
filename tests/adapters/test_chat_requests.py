"""What the adapter for chat completions makes of a client's request: tools, parts, response format and sampling."""

import asyncio
import base64
import io
import json
import os
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import attrs
import pytest
from support.hub import Hub
from support.model_endpoint import PATHS, Stranger, ask, chunk, run, status, stream

from hub.access.principal import LOCAL
from hub.adapters import openai_chat
from hub.adapters.chat_body import PIECE_BYTES
from hub.adapters.chat_files import MAX_FILES_BYTES, MAX_SENT_BYTES, FileLoader
from hub.adapters.chat_options import Options
from hub.adapters.chat_parts import FILE_TEXT
from hub.adapters.chat_window import CONTINUATION, NO_RESULT, window_messages
from hub.commands import table
from hub.errors import AgentError, ToolsUnsupported
from hub.hosting.contract import FileAccess, Finish, Run
from hub.limits import MiB
from hub.messages import (
    ChatWithRequest,
    Past,
    Request,
    ResponseFormat,
    Tool,
    ToolCall,
    ToolCallArgs,
    ToolCallEnd,
    ToolCallStart,
)
from hub.messages.parts import make_file_part

GOOD = [chunk("ok"), chunk(reason="stop"), "[DONE]"]
WEATHER = Tool(name="get_weather", description="The weather.", parameters={"type": "object"}, strict=True)
CALL = ToolCall("c1", "get_weather", '{"city":"Rome"}')
TOML = 'adapter = "openai_chat"\nbase_url = "{url}"\nretries = 0\n'


@pytest.fixture
def stranger(stranger: Stranger) -> Stranger:
    stranger.replies = [stream(*GOOD)]
    return stranger


def requesting(request: Request, **fields: Any) -> Run:
    return attrs.evolve(run("?"), request=request, **fields)


def result(call_id: str, content: str) -> dict[str, Any]:
    return {"type": "tool_result", "toolCallId": call_id, "content": content}


def delta_chunk(**delta: Any) -> str:
    return json.dumps({"choices": [{"index": 0, "delta": delta}]})


def call_chunk(index: int, call_id: str | None, name: str | None, arguments: str) -> str:
    head = {"id": call_id, "type": "function"} if call_id else {}
    function = ({"name": name} if name else {}) | {"arguments": arguments}
    return delta_chunk(tool_calls=[{"index": index, **head, "function": function}])


async def test_tools_the_choice_and_the_format_are_passed_through(stranger: Stranger) -> None:
    """In OpenAI's form; what the client did not say is not sent."""
    request = Request(
        tools=(WEATHER, Tool(name="now")),
        tool_choice="get_weather",
        response_format=ResponseFormat(type="json_schema", name="reply", schema={"type": "object"}, strict=True),
        sampling={"parallel_tool_calls": False},
    )
    await ask(Options(base_url=stranger.url), requesting(request))
    body = stranger.bodies[0]
    assert body["tools"] == [
        {
            "type": "function",
            "function": {
                "name": "get_weather",
                "description": "The weather.",
                "parameters": {"type": "object"},
                "strict": True,
            },
        },
        {"type": "function", "function": {"name": "now"}},
    ]
    assert body["tool_choice"] == {"type": "function", "function": {"name": "get_weather"}}
    assert body["parallel_tool_calls"] is False
    assert body["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "reply", "schema": {"type": "object"}, "strict": True},
    }


async def test_an_empty_request_adds_nothing(stranger: Stranger) -> None:
    await ask(Options(base_url=stranger.url), requesting(Request(sampling={"parallel_tool_calls": True})))
    assert sorted(stranger.bodies[0]) == ["messages", "model", "stream", "stream_options"]


@pytest.mark.parametrize("choice", ["auto", "none", "required"])
async def test_a_general_choice_is_a_word(stranger: Stranger, choice: str) -> None:
    await ask(Options(base_url=stranger.url), requesting(Request(tools=(WEATHER,), tool_choice=choice)))
    assert stranger.bodies[0]["tool_choice"] == choice


async def test_the_clients_sampling_counts_first(stranger: Stranger) -> None:
    """Only known names are sent: no client chooses the model or the form of the stream."""
    sampling = {
        "temperature": 0,
        "stop": ["\n"],
        "seed": 2**62,
        "model": "dear",
        "stream": False,
        "n": 7,
        "top_p": None,
    }
    options = Options(base_url=stranger.url, temperature=0.9, frequency_penalty=0.1)
    await ask(options, requesting(Request(sampling=sampling)))
    body = stranger.bodies[0]
    assert (body["temperature"], body["stop"], body["seed"], body["frequency_penalty"]) == (0, ["\n"], 2**62, 0.1)
    assert (body["model"], body["stream"]) == ("gpt-4o-mini", True) and not {"n", "top_p"} & body.keys()


@pytest.mark.parametrize(
    ("own", "sampling", "sent"),
    [
        (None, {"max_tokens": 5}, 5),
        (None, {"max_completion_tokens": 6, "max_tokens": 5}, 6),
        (9, {"max_tokens": 5}, 5),
        (9, {"max_completion_tokens": 50}, 9),
        (9, {}, 9),
    ],
)
async def test_of_two_limits_the_lower_counts(
    stranger: Stranger, own: int | None, sampling: dict[str, Any], sent: int
) -> None:
    """Under the one name that the agent's file chooses."""
    options = Options(base_url=stranger.url, max_tokens=own, max_tokens_name="max_completion_tokens")
    await ask(options, requesting(Request(sampling=sampling)))
    assert stranger.bodies[0]["max_completion_tokens"] == sent and "max_tokens" not in stranger.bodies[0]


async def test_a_refused_option_of_a_client_is_an_error_that_names_it(stranger: Stranger, hub: Hub) -> None:
    """It is not left out, and the requests of other clients stay as they are."""
    refusal = status(400, {"error": {"message": "Unsupported value", "param": "temperature"}})
    hub.agent("model.toml", TOML.format(url=stranger.url) + "temperature = 0.5\n")
    await hub.start()
    stranger.replies = [refusal, stream(*GOOD)]
    chat = ChatWithRequest(message="?", agentId="model", sessionId="s1", request=Request(sampling={"temperature": 9}))
    outcome = await table.ask(hub.door, LOCAL, chat)
    assert outcome.error is not None and outcome.error.code == "model_refused"
    assert "`temperature`" in outcome.error.message and len(stranger.bodies) == 1
    client = await hub.connect()
    await client.send(type="chat", agentId="model", sessionId="s1", message="again")
    await client.until_done()
    assert stranger.bodies[1]["temperature"] == 0.5


async def test_a_refused_name_of_max_tokens_is_still_changed(stranger: Stranger) -> None:
    refusal = status(400, {"error": {"message": "Use 'max_completion_tokens'", "param": "max_tokens"}})
    stranger.replies = [refusal, stream(*GOOD)]
    await ask(Options(base_url=stranger.url), requesting(Request(sampling={"max_tokens": 5})))
    assert stranger.bodies[1]["max_completion_tokens"] == 5


async def test_parallel_calls_come_as_events(stranger: Stranger) -> None:
    """Their pieces may alternate, and the Finish says `tool_calls` whatever the endpoint's word."""
    stranger.replies = [
        stream(
            call_chunk(0, "c1", "get_weather", '{"city":'),
            call_chunk(1, "c2", "get_weather", ""),
            call_chunk(0, None, None, '"Rome"}'),
            call_chunk(1, None, None, "{}"),
            chunk(reason="stop"),
            "[DONE]",
        )
    ]
    outputs = await ask(Options(base_url=stranger.url), requesting(Request(tools=(WEATHER,))))
    assert outputs == [
        ToolCallStart("c1", "get_weather"),
        ToolCallArgs("c1", '{"city":'),
        ToolCallStart("c2", "get_weather"),
        ToolCallArgs("c1", '"Rome"}'),
        ToolCallArgs("c2", "{}"),
        ToolCallEnd("c1"),
        ToolCallEnd("c2"),
        Finish("tool_calls"),
    ]


async def test_ids_of_calls_are_unique(stranger: Stranger) -> None:
    """Some endpoints send none, or the same ones in each answer."""
    stranger.replies = [
        stream(call_chunk(0, "c1", "get_weather", "{}"), call_chunk(1, "c1", "b", "{}"), call_chunk(2, "c3", "c", "{}"))
    ]
    history = [Past("user", "q"), Past("assistant", "", tool_calls=(CALL,)), Past("tool", "r", tool_call_id="c1")]
    outputs = []
    with pytest.raises(AgentError):  # the stream has no end
        async for output in _outputs(stranger, requesting(Request(tools=(WEATHER,)), history=history)):
            outputs.append(output)
    ids = [output.toolCallId for output in outputs if isinstance(output, ToolCallStart)]
    assert ids[0].startswith("c1-r1") and ids[2] == "c3" and len({*ids, "c1"}) == 4


async def _outputs(stranger: Stranger, question: Run) -> AsyncIterator[Any]:
    async with openai_chat.open(Options(base_url=stranger.url, retries=0), PATHS) as answer:
        async for output in answer(question):
            yield output


def test_the_history_has_calls_and_results_in_the_endpoints_form() -> None:
    """The results of the question come right after the calls, and no user's message follows them."""
    history = [
        Past("user", "Weather?"),
        Past("assistant", "Let me see.", "main", tool_calls=(CALL, ToolCall("c2", "now", ""))),
        Past("tool", "noon", tool_call_id="c2"),
    ]
    question = attrs.evolve(run("", history), parts=[result("c1", "sunny")])
    assert window_messages(question, Options()) == [
        {"role": "user", "content": "Weather?"},
        {
            "role": "assistant",
            "content": "Let me see.",
            "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city":"Rome"}'}},
                {"id": "c2", "type": "function", "function": {"name": "now", "arguments": "{}"}},
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "sunny"},
        {"role": "tool", "tool_call_id": "c2", "content": "noon"},
    ]


def test_a_call_without_a_result_gets_one_that_says_so() -> None:
    """Endpoints refuse a call without a result."""
    history = [Past("user", "q"), Past("assistant", "", tool_calls=(CALL,))]
    messages = window_messages(run("Never mind.", history), Options())
    assert [message["role"] for message in messages] == ["user", "assistant", "tool", "user"]
    assert messages[1]["content"] is None and messages[2]["content"] == NO_RESULT


def test_a_late_result_is_put_to_its_call_and_announced() -> None:
    history = [Past("user", "q"), Past("assistant", "", tool_calls=(CALL,)), Past("user", "x"), Past("assistant", "y")]
    messages = window_messages(attrs.evolve(run("", history), parts=[result("c1", "late")]), Options())
    assert messages[2] == {"role": "tool", "tool_call_id": "c1", "content": "late"}
    assert messages[-1] == {"role": "user", "content": CONTINUATION}


def test_a_result_whose_call_is_not_in_the_window_is_text() -> None:
    messages = window_messages(
        attrs.evolve(run("", []), parts=[result("c1", "sunny"), result("c2", "noon")]), Options()
    )
    assert messages == [{"role": "user", "content": "sunny\n\nnoon"}]


def test_results_share_the_window() -> None:
    """A long result loses its end; the call and its result stay together or go together."""
    history = [Past("user", "q"), Past("assistant", "", tool_calls=(CALL,))]
    question = attrs.evolve(run("", history), parts=[result("c1", "x" * 5000), result("c2", "y" * 5000)])
    messages = window_messages(question, Options(window_bytes=1024))
    assert sum(len(message["content"] or "") for message in messages) <= 1024
    pairs = [[Past("user", f"{n}"), Past("assistant", "", tool_calls=(CALL,))] for n in range(30)]
    long = [past for pair in pairs for past in (*pair, Past("tool", "z" * 90, tool_call_id="c1"))]
    roles = [message["role"] for message in window_messages(run("?", long), Options(window_bytes=1024))]
    assert roles[0] == "user" and roles.count("tool") == roles.count("assistant") > 1


IMAGE = {"type": "image", "source": {"type": "url", "value": "https://example.org/cat.png"}}


def test_parts_are_sent_in_openais_form() -> None:
    """A text that the parts repeat is sent once, in their order; what OpenAI has no form for is left out."""
    data = {"type": "data", "value": "AAAA"}
    parts: list[dict[str, Any]] = [
        {"type": "text", "text": "What "},
        IMAGE | {"metadata": {"detail": "low"}},
        {"type": "text", "text": "is it?"},
        {"type": "image", "source": data | {"mimeType": "image/png"}},
        {"type": "audio", "source": data | {"mimeType": "audio/mpeg"}},
        {"type": "document", "source": data | {"mimeType": "application/pdf"}},
        {"type": "document", "source": {"type": "file", "value": "file-1"}},
        {"type": "binary", "mimeType": "image/gif", "data": "BBBB"},
        {"type": "video", "source": data | {"mimeType": "video/mp4"}},
        {"type": "image", "source": {"type": "url", "value": "/api/v1/files/f_1"}},
    ]
    (message,) = window_messages(attrs.evolve(run("What is it?"), parts=parts), Options())
    assert message["content"] == [
        {"type": "text", "text": "What "},
        {"type": "image_url", "image_url": {"url": "https://example.org/cat.png", "detail": "low"}},
        {"type": "text", "text": "is it?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
        {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "mp3"}},
        {"type": "file", "file": {"file_data": "data:application/pdf;base64,AAAA", "filename": "document"}},
        {"type": "file", "file": {"file_id": "file-1"}},
        {"type": "image_url", "image_url": {"url": "data:image/gif;base64,BBBB"}},
    ]


def test_parts_follow_a_text_of_their_own_message() -> None:
    history = [Past("user", "Look.", parts=(IMAGE,)), Past("user", "And?")]
    (message,) = window_messages(run("Well?", history), Options())
    assert [part["type"] for part in message["content"]] == ["text", "image_url", "text", "text"]
    (plain,) = window_messages(run("Well?", history), Options(), takes_parts=False)
    assert plain["content"] == "Look.\n\nAnd?\n\nWell?"


async def upload(hub: Hub, name: str, kind: str, data: bytes) -> dict[str, Any]:
    """Return the part that names a new file of the session s1."""
    async with aiohttp.ClientSession() as http, http.post(
        f"{hub.url}/api/v1/files?sessionId=s1&name={name}", data=io.BytesIO(data), headers={"Content-Type": kind}
    ) as response:
        return make_file_part((await response.json())["fileId"], kind, name)


async def test_the_files_of_a_message_are_sent_as_their_bytes(stranger: Stranger, hub: Hub) -> None:
    """In OpenAI's form, where it has one. A text is sent as text, and other files by their names."""
    hub.agent("model.toml", TOML.format(url=stranger.url))
    await hub.start()
    client = await hub.connect(extended=True)
    files = [
        *(("a.png", "image/png", b"\x89PNG"), ("b.mp3", "audio/mpeg", b"ID3"), ("c.pdf", "application/pdf", b"%PDF")),
        *(("d.txt", "text/plain", b"Otters."), ("e.mp4", "video/mp4", b"mp4"), ("f.ogg", "audio/ogg", b"Ogg")),
    ]
    parts = [{"type": "text", "text": "see"}, *[await upload(hub, *file) for file in files]]
    await client.send(type="chat", agentId="model", sessionId="s1", message="see", parts=parts)
    await client.until_done()
    image, sound, document = (base64.b64encode(data).decode() for _, _, data in files[:3])
    content = [
        {"type": "text", "text": "see"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{image}"}},
        {"type": "input_audio", "input_audio": {"data": sound, "format": "mp3"}},
        {"type": "file", "file": {"file_data": f"data:application/pdf;base64,{document}", "filename": "c.pdf"}},
        {"type": "text", "text": "\n[File d.txt, text/plain]\nOtters.\n"},
        {"type": "text", "text": "\n[File e.mp4, video/mp4]\n"},
        {"type": "text", "text": "\n[File f.ogg, audio/ogg]\n"},
    ]
    assert stranger.bodies[0]["messages"][0]["content"] == content
    await client.send(type="chat", agentId="model", sessionId="s1", message="again")
    await client.until_done()
    assert stranger.bodies[1]["messages"][0]["content"] == content  # the model still sees the files


async def test_the_files_of_a_history_are_sent_in_a_fork_too(stranger: Stranger, hub: Hub) -> None:
    """Also after the deletion of the session in which they were uploaded."""
    hub.agent("model.toml", TOML.format(url=stranger.url))
    await hub.start()
    client = await hub.connect(extended=True)
    parts = [await upload(hub, "a.png", "image/png", b"\x89PNG")]
    await client.send(type="chat", agentId="model", sessionId="s1", message="see", parts=parts)
    message_id = (await client.until_done())["messageId"]
    await client.send(type="fork", sessionId="s1", messageId=message_id, newSessionId="f1")
    await client.until_type("subscribed")
    async with aiohttp.ClientSession() as http:
        await http.delete(f"{hub.url}/api/v1/sessions/s1")
    await client.send(type="chat", agentId="model", sessionId="f1", message="again")
    await client.until_done()
    content = stranger.bodies[0]["messages"][0]["content"]
    assert content[1]["type"] == "image_url" and stranger.bodies[1]["messages"][0]["content"] == content


async def test_a_deleted_file_is_sent_as_its_name(stranger: Stranger, hub: Hub) -> None:
    hub.agent("model.toml", TOML.format(url=stranger.url))
    await hub.start()
    client = await hub.connect(extended=True)
    part = await upload(hub, "a.png", "image/png", b"\x89PNG")
    await client.send(type="chat", agentId="model", sessionId="s1", message="see", parts=[part])
    await client.until_done()
    async with aiohttp.ClientSession() as http:
        await http.delete(f"{hub.url}/api/v1/files/{part['source']['value']}")
    await client.send(type="chat", agentId="model", sessionId="s1", message="again")
    await client.until_done()
    assert stranger.bodies[1]["messages"][0]["content"] == "see\n\n\n[File a.png, image/png]\n"


async def test_files_in_one_request_have_a_limit() -> None:
    """Newer files come first. The texts of files have no more bytes than the window."""
    files = {f"{name}{number}": bytes(12 * MiB) if name == "i" else b"x" * 400 for number in range(4) for name in "it"}

    async def read(file_id: str) -> bytes:
        return files[file_id]

    def make_parts(number: int) -> list[dict[str, Any]]:
        return [make_file_part(f"t{number}", "text/plain", "t"), make_file_part(f"i{number}", "image/png", "i")]

    history = [Past("user", "see", parts=make_parts(number)) for number in range(3)]
    question = attrs.evolve(run("see", history), parts=make_parts(3), file_access=FileAccess(read))
    async with FileLoader().load(question, Options(window_bytes=1024, history=2)) as (loaded, _):
        pass
    assert loaded.history[0] == history[0]
    parts = [*loaded.history[1].parts, *loaded.history[2].parts, *loaded.parts]
    assert [part["type"] for part in parts] == [FILE_TEXT, FILE_TEXT, FILE_TEXT, "image", FILE_TEXT, "image"]
    assert [part["text"].count("x") for part in parts[::2]] == [225, 401, 401]  # the media type has an x, too


async def test_a_request_waits_while_others_have_many_bytes_of_files_in_memory() -> None:
    loader, reads, started, gates = FileLoader(), asyncio.Semaphore(0), asyncio.Semaphore(0), asyncio.Semaphore(0)

    async def read(file_id: str) -> bytes:
        reads.release()
        return bytes(MAX_FILES_BYTES)

    async def send() -> int:
        question = attrs.evolve(run(), parts=[make_file_part("f", "image/png", "i")], file_access=FileAccess(read))
        async with loader.load(question, Options()) as (_, files):
            started.release()
            await gates.acquire()
            return len(files)

    fitting = MAX_SENT_BYTES // MAX_FILES_BYTES
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        requests = [group.create_task(send()) for _ in range(fitting + 2)]
        for _ in range(fitting):
            await started.acquire()
        for _ in range(fitting + 1):  # the last request has not even read its file
            await reads.acquire()
        await asyncio.sleep(0)
        assert started.locked() and reads.locked()
        gates.release()
        await started.acquire()
        for _ in requests:
            gates.release()
    assert [request.result() for request in requests] == [1] * len(requests)


async def test_a_file_is_sent_in_pieces_and_again_when_necessary(stranger: Stranger) -> None:
    """After a redirect, and after a failure."""
    data = os.urandom(2 * PIECE_BYTES + 1)

    async def read(file_id: str) -> bytes:
        return data

    stranger.replies = [status(307, Location=f"{stranger.url}/chat/completions"), status(503), stream(*GOOD)]
    question = attrs.evolve(run("see"), parts=[make_file_part("f", "image/png", "i")], file_access=FileAccess(read))
    assert (await ask(Options(base_url=stranger.url, retries=1, retry_seconds=0.01), question))[0] == "ok"
    url = f"data:image/png;base64,{base64.b64encode(data).decode()}"
    contents = [body["messages"][0]["content"][1]["image_url"]["url"] for body in stranger.bodies]
    assert contents == [url] * 3
    assert all("Content-Length" in headers for headers in stranger.headers)  # few endpoints take a chunked body


async def test_a_tool_call_goes_to_the_client_and_its_result_back_to_the_model(stranger: Stranger, hub: Hub) -> None:
    """Through the whole hub, over a socket: two calls, their results in one chat, and then the answer."""
    hub.agent("model.toml", TOML.format(url=stranger.url))
    await hub.start()
    stranger.replies = [
        stream(
            call_chunk(0, "c1", "get_weather", "{}"),
            call_chunk(1, "c2", "get_weather", "{}"),
            chunk(reason="tool_calls"),
        ),
        stream(*GOOD),
    ]
    request = Request(tools=(WEATHER,), tool_choice="required", sampling={"temperature": 0.25})
    chat = ChatWithRequest(message="Weather?", agentId="model", sessionId="s1", request=request)
    outcome = await table.ask(hub.door, LOCAL, chat)
    assert outcome.stopReason == "tool_calls" and [call.toolCallId for call in outcome.toolCalls or ()] == ["c1", "c2"]
    client = await hub.connect(extended=True)
    await client.send(type="chat", sessionId="s1", message="", parts=[result("c2", "noon"), result("c1", "sunny")])
    assert (await client.until_type("run_started"))["parentRunId"] == outcome.runId
    await client.until_done()
    assert client.text() == "ok"
    body = stranger.bodies[1]
    assert [message["role"] for message in body["messages"]] == ["user", "assistant", "tool", "tool"]
    assert [message["content"] for message in body["messages"][2:]] == ["sunny", "noon"]
    assert [tool["function"]["name"] for tool in body["tools"]] == ["get_weather"]
    assert body["temperature"] == 0.25 and "tool_choice" not in body  # the required call was made


async def test_an_agent_without_tools_gets_none(stranger: Stranger, hub: Hub) -> None:
    """`tools = false` in the file: the model gets no tools, and a required call is refused."""
    hub.agent("model.toml", TOML.format(url=stranger.url) + "tools = false\n")
    await hub.start()
    chat = ChatWithRequest(message="?", agentId="model", sessionId="s1", request=Request(tools=(WEATHER,)))
    assert (await table.ask(hub.door, LOCAL, chat)).stopReason == "end_turn"
    assert "tools" not in stranger.bodies[0]
    required = ChatWithRequest(
        message="?", agentId="model", sessionId="s1", request=Request(tools=(WEATHER,), tool_choice="required")
    )
    with pytest.raises(ToolsUnsupported):
        await table.ask(hub.door, LOCAL, required)
