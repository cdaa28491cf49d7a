"""The OpenAI-compatible endpoint, tried with the clients that its users have."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import openai
import pytest
from openai import AsyncOpenAI
from support.hub import Hub
from support.node import needs_node, run_node
from support.process import needs_curl
from support.waiting import PATIENCE, eventually

from hub.errors import AgentError
from hub.ids import Key
from hub.node.upkeep import expire_events
from hub.protocols import openai_chat

MODEL = '''
"""Answers with what it was told, and counts."""
from hub import Finish, Run, Usage

async def model(run: Run):
    for past in run.history:
        yield f"{past.role}: {past.content}; "
    yield run.message
    yield Finish("max_tokens", Usage(7, 5))
'''
FAILING = """
from hub import AgentError

async def failing(message: str):
    if message == "late":
        yield "one "
    raise AgentError("no more today", "quota")
"""
# Notes that it was stopped.
ENDLESS = """
import asyncio, pathlib

async def endless(message: str):
    try:
        yield "one "
        await asyncio.sleep(3600)
    finally:
        pathlib.Path(message).touch()
"""
ENDS = """
from hub import Finish, Usage

async def ends(message: str):
    yield "so"
    yield Finish(message, Usage(3, None))
"""
HELLO: list[Any] = [{"role": "user", "content": "hello there"}]


@pytest.fixture
async def served(hub: Hub) -> Hub:
    hub.agent("model.py", MODEL)
    hub.agent("failing.py", FAILING)
    hub.agent("endless.py", ENDLESS)
    hub.agent("ends.py", ENDS)
    hub.agent("broken.py", "def broken(x, y, z): pass")
    return await hub.start()


@pytest.fixture
async def client(served: Hub) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{served.url}/v1", api_key="any", max_retries=0, timeout=PATIENCE) as client:
        yield client


async def test_a_whole_answer(client: AsyncOpenAI) -> None:
    """The messages given are the conversation; the agent's own usage and reason are told."""
    answer = await client.chat.completions.create(
        model="model",
        messages=[
            {"role": "system", "content": "be short"},
            {"role": "user", "content": [{"type": "text", "text": "hi"}]},
            {"role": "assistant", "content": "ho"},
            {"role": "user", "content": "now"},
        ],
        temperature=0.3,
        extra_body={"some_new_option": 1},
    )
    (choice,) = answer.choices
    assert choice.message.content == "system: be short; user: hi; assistant: ho; now"
    assert choice.finish_reason == "length" and answer.model == "model" and answer.object == "chat.completion"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (7, 5, 12)


async def test_a_streamed_answer(client: AsyncOpenAI) -> None:
    """Piece by piece, with one id; the usage comes last, where it was asked for."""
    stream = await client.chat.completions.create(
        model="model",
        messages=[{"role": "user", "content": "now"}],
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1]) == "now"
    assert chunks[0].choices[0].delta.role == "assistant" and chunks[-2].choices[0].finish_reason == "length"
    assert chunks[-1].choices == [] and chunks[-1].usage is not None and chunks[-1].usage.total_tokens == 12
    assert len({chunk.id for chunk in chunks}) == 1


async def test_models_are_the_working_agents(client: AsyncOpenAI) -> None:
    """A broken agent is none."""
    found = {model.id async for model in await client.models.list()}
    assert {"echo", "model"} <= found and "broken" not in found


async def test_errors_are_those_that_the_client_knows(client: AsyncOpenAI) -> None:
    """Each by its own class."""
    with pytest.raises(openai.NotFoundError) as unknown:
        await client.chat.completions.create(model="nobody", messages=HELLO)
    assert unknown.value.code == "model_not_found" and unknown.value.param == "model"
    with pytest.raises(openai.InternalServerError) as broken:
        await client.chat.completions.create(model="broken", messages=HELLO)
    assert broken.value.code == "agent_broken"
    with pytest.raises(openai.UnprocessableEntityError) as failed:
        await client.chat.completions.create(model="failing", messages=HELLO)
    assert failed.value.code == "quota" and "no more today" in failed.value.message
    with pytest.raises(openai.UnprocessableEntityError):
        await client.chat.completions.create(model="failing", messages=HELLO, stream=True)


async def test_a_failure_in_mid_stream_is_told_in_the_stream(client: AsyncOpenAI) -> None:
    """After what was said before it."""
    stream = await client.chat.completions.create(
        model="failing", messages=[{"role": "user", "content": "late"}], stream=True
    )
    heard = []
    with pytest.raises(openai.APIError, match="no more today"):
        async for chunk in stream:
            heard.append(chunk.choices[0].delta.content)
    assert "".join(text or "" for text in heard) == "one "


@pytest.mark.parametrize(
    "body, param",
    [
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
        ({"n": 2}, "n"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"logprobs": True}, "logprobs"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content"),
        ({"messages": []}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({"model": 7}, "model"),
    ],
)
async def test_what_is_not_supported_is_refused_by_name(served: Hub, body: dict[str, Any], param: str) -> None:
    """Never passed over in silence; a 400 in OpenAI's form."""
    async with aiohttp.ClientSession() as http:
        url = f"{served.url}/api/v1/chat/completions"
        async with http.post(url, json={"model": "model", "messages": HELLO} | body) as answer:
            error = (await answer.json())["error"]
    assert answer.status == 400 and error["type"] == "invalid_request_error" and error["param"] == param
    assert set(error) == {"message", "type", "param", "code"} and error["message"]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_goes_away_stops_the_agent(served: Hub, tmp_path: Path, stream: bool) -> None:
    """Also where the agent says nothing; its place is free again."""
    stopped = tmp_path / "stopped"
    body = {"model": "endless", "messages": [{"role": "user", "content": str(stopped)}], "stream": stream}
    agent = served.node.agents.get("endless")
    async with aiohttp.ClientSession() as http:
        asking = asyncio.create_task(http.post(f"{served.url}/v1/chat/completions", json=body))
        await eventually(lambda: agent.running_answers)
        if not asking.cancel():
            (await asking).close()
    await eventually(lambda: not agent.running_answers and stopped.exists())


async def test_nothing_is_kept(client: AsyncOpenAI, served: Hub) -> None:
    """Without a session there is nothing to keep."""
    await client.chat.completions.create(model="model", messages=HELLO)
    assert not served.node.sessions and served.node.log.commit_totals.commits == 0


@pytest.mark.parametrize("stream", [False, True])
async def test_with_a_session_the_answer_is_heard_there_too(client: AsyncOpenAI, served: Hub, stream: bool) -> None:
    """Live, as one run; the hub has the history, whatever messages are given."""
    socket = await served.connect("?sessionId=s1")
    in_body, in_header = {"extra_body": {"sessionId": "s1"}}, {"extra_headers": {"X-Session-Id": "s1"}}
    for text, named in (("hello there", in_body), ("now", in_header)):
        asked: Any = {"model": "model", "messages": [{"role": "user", "content": text}], "stream": stream} | named
        answer: Any = await client.chat.completions.create(**asked)
        if stream:
            chunks = [chunk async for chunk in answer]
            said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
            assert chunks[-1].choices[0].finish_reason == "length" and len({chunk.id for chunk in chunks}) == 1
        else:
            said = answer.choices[0].message.content
            assert answer.usage.total_tokens == 12
        await socket.until_done()
    assert said == "user: hello there; assistant: hello there; now"
    assert socket.text() == "hello there" + said


HALF = """
from hub import AgentError

async def half(message: str):
    yield "so "
    %s
"""


@pytest.mark.parametrize(
    ("line", "words"),
    [("yield '\\ud83d'", "lone surrogate"), ("raise AgentError('no \\ud83d luck', 'c\\ud83d')", r"no \? luck")],
)
@pytest.mark.parametrize("session", [{}, {"sessionId": "s1"}])
async def test_half_a_character_does_not_leave_the_hub(
    hub: Hub, session: dict[str, str], line: str, words: str
) -> None:
    """Neither in a whole answer nor in a stream, neither as text nor as an error."""
    hub.agent("half.py", HALF % line)
    await hub.start()
    async with AsyncOpenAI(base_url=f"{hub.url}/v1", api_key="any", max_retries=0, timeout=PATIENCE) as client:
        asked: Any = {"model": "half", "messages": HELLO, "extra_body": session}
        with pytest.raises(openai.UnprocessableEntityError, match=words):
            await client.chat.completions.create(**asked)
        with pytest.raises(openai.APIError, match=words):
            async for _ in await client.chat.completions.create(stream=True, **asked):
                pass


@pytest.mark.parametrize("stream", [False, True])
async def test_a_message_sent_again_with_its_key_is_said_once(client: AsyncOpenAI, served: Hub, stream: bool) -> None:
    """OpenAI's clients send again by themselves if a response was lost: they get the existing answer."""
    answers = []
    for _ in range(2):
        answer: Any = await client.chat.completions.create(
            model="model",
            messages=HELLO,
            stream=stream,
            extra_headers={"X-Session-Id": "s1", "Idempotency-Key": "k1"},
        )
        if stream:
            said = "".join([chunk.choices[0].delta.content or "" async for chunk in answer if chunk.choices])
        else:
            said = answer.choices[0].message.content
        answers.append(said)
    assert answers == ["hello there"] * 2
    assert [said["content"] for said in await served.node.read_history(Key("s1"), 9)] == ["hello there"] * 2
    await client.chat.completions.create(model="model", messages=HELLO, extra_headers={"Idempotency-Key": '"no id"'})


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_that_is_not_kept_any_more_is_no_empty_one(
    client: AsyncOpenAI, served: Hub, stream: bool
) -> None:
    """It is an error, whole and in a stream."""
    asked: Any = {"model": "model", "messages": HELLO, "extra_headers": {"X-Session-Id": "s1", "Idempotency-Key": "k1"}}
    await client.chat.completions.create(**asked)
    await expire_events(served.node, 2**60)
    with pytest.raises(openai.APIError, match="no longer stores the answer") as told:
        answer: Any = await client.chat.completions.create(stream=stream, **asked)
        async for _ in answer:
            pass
    assert told.value.code == "answer_gone"


async def test_a_failure_in_a_session_is_told(client: AsyncOpenAI) -> None:
    """As an error of the request, or in the stream after what was said."""
    late: Any = [{"role": "user", "content": "late"}]
    with pytest.raises(openai.UnprocessableEntityError, match="no more today"):
        await client.chat.completions.create(model="failing", messages=late, extra_body={"sessionId": "s1"})
    stream = await client.chat.completions.create(
        model="failing", messages=late, stream=True, extra_body={"sessionId": "s1"}
    )
    with pytest.raises(openai.APIError, match="no more today"):
        async for _ in stream:
            pass


THINKS = """
import asyncio, pathlib
from hub import Reasoning

async def thinks(message: str):
    for step in range(3):
        yield Reasoning("hm")
        pathlib.Path(message, f"thought{step}").touch()
        while not pathlib.Path(message, f"go{step}").exists():
            await asyncio.sleep(0.01)
    yield "done"
"""


async def test_an_agent_that_thinks_is_not_silent(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """400 s pass after each thought, and 600 are the limit; the client hears the answer alone."""
    loop, ahead = asyncio.get_running_loop(), [0.0]
    time = loop.time
    monkeypatch.setattr(loop, "time", lambda: time() + ahead[0])
    hub.agent("thinks.py", THINKS)
    await hub.start(silence_seconds=600)
    body = {"model": "thinks", "messages": [{"role": "user", "content": str(tmp_path)}]}
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None)) as http:
        asking = asyncio.create_task(http.post(f"{hub.url}/v1/chat/completions", json=body))
        for step in range(3):
            await eventually((tmp_path / f"thought{step}").exists)
            ahead[0] += 400
            (tmp_path / f"go{step}").touch()
        answer = await asking
        assert answer.status == 200, await answer.text()
        assert (await answer.json())["choices"][0]["message"]["content"] == "done"


@pytest.mark.parametrize("session", [{}, {"sessionId": "s1"}])
@pytest.mark.parametrize(
    ("reason", "word"),
    [("end_turn", "stop"), ("max_tokens", "length"), ("refused", "content_filter"), ("tool_calls", "tool_calls")],
)
async def test_the_reason_of_an_answer(client: AsyncOpenAI, reason: str, word: str, session: dict[str, str]) -> None:
    """In OpenAI's words, whole and streamed; half a usage is none."""
    asked: Any = {"model": "ends", "messages": [{"role": "user", "content": reason}], "extra_body": session}
    whole = await client.chat.completions.create(**asked)
    assert (whole.choices[0].finish_reason, whole.choices[0].message.content, whole.usage) == (word, "so", None)
    stream = await client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True})
    chunks = [chunk async for chunk in stream]
    assert chunks[-2].choices[0].finish_reason == word and chunks[-1].usage is None


async def raw(hub: Hub, body: dict[str, Any]) -> tuple[int, list[Any]]:
    """Return the status of an answer, and its JSON, or that of each of its events."""
    async with aiohttp.ClientSession() as http, http.post(f"{hub.url}/v1/chat/completions", json=body) as answer:
        text = await answer.text()
    if not body.get("stream"):
        return answer.status, [json.loads(text)]
    events = [line.removeprefix("data: ") for line in text.split("\n") if line.startswith("data: ")]
    assert events.pop() == "[DONE]"
    return answer.status, [json.loads(event) for event in events]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("reason", "status"), [("timeout", 504), ("cancelled", 499)])
async def test_an_answer_that_was_cut_is_no_answer(
    hub: Hub, tmp_path: Path, reason: str, status: int, stream: bool
) -> None:
    """An error with its code: as the status, or in the stream before [DONE]; never a `stop`."""
    hub.agent("endless.py", ENDLESS)
    await hub.start(run_seconds=0.5 if reason == "timeout" else 3600)
    client = await hub.connect("?sessionId=s1", extended=True)
    message = {"role": "user", "content": str(tmp_path / "stopped")}
    body = {"model": "endless", "messages": [message], "stream": stream, "sessionId": "s1"}
    asking = asyncio.create_task(raw(hub, body))
    await client.until_type("stream")
    if reason == "cancelled":
        await client.send(type="cancel", sessionId="s1")
    answered, events = await asyncio.wait_for(asking, PATIENCE)
    assert answered == (200 if stream else status)
    assert events[-1]["error"]["code"] == reason and events[-1]["error"]["message"]
    assert all(event["choices"][0]["finish_reason"] is None for event in events[:-1])
    assert len(events) == (3 if stream else 1)


@pytest.mark.parametrize("session", [{}, {"sessionId": "s1"}])
async def test_a_failure_is_told_once_in_a_stream(served: Hub, session: dict[str, str]) -> None:
    """The error is the last before [DONE], and no reason of an end follows it."""
    body = {"model": "failing", "messages": [{"role": "user", "content": "late"}], "stream": True}
    _, events = await raw(served, body | session)
    assert [event.get("error", {}).get("code") for event in events] == [None, None, "quota"]


def test_the_status_of_each_failure() -> None:
    """Of what a model's endpoint may do, and of what the hub does to an answer."""
    codes = {"model_aborted": 502, "model_timeout": 504, "model_rate_limited": 429, "model_refused": 422}
    codes |= {"model_unavailable": 503, "model_unreachable": 502, "agent_broken": 503, "agent_error": 422}
    for code, status in codes.items():
        assert openai_chat.openai_error_of(AgentError("x", code)).status == status, code
    assert openai_chat.openai_error_of(TimeoutError()).status == 504
    for reason, status in (("timeout", 504), ("cancelled", 499), ("aborted", 503)):
        with pytest.raises(openai_chat.OpenAIError) as refusal:
            openai_chat.completion_body("m", "n", "half", reason, None)
        assert (refusal.value.status, refusal.value.body["error"]["code"]) == (status, reason)
        (last,) = openai_chat.final_chunks({}, reason, None, True)
        assert last["error"]["code"] == reason


@needs_curl
async def test_curl(served: Hub) -> None:
    """A stream as it stands on the wire: each event at once, `[DONE]` last."""
    body = json.dumps({"model": "echo", "messages": HELLO, "stream": True})
    process = await asyncio.create_subprocess_exec(
        *("curl", "-sN", f"{served.url}/v1/chat/completions", "-H", "Content-Type: application/json", "-d", body),
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await asyncio.wait_for(process.communicate(), PATIENCE)
    lines = [line.removeprefix(b"data: ") for line in out.split(b"\n\n") if line]
    assert lines.pop() == b"[DONE]"
    deltas = [json.loads(line)["choices"][0]["delta"].get("content", "") for line in lines]
    assert deltas == ["", "hello ", "there ", ""]


@needs_node
async def test_the_client_for_node(served: Hub) -> None:
    """The official package from npm: stream, whole, error."""
    said = json.loads(await run_node("openai_chat.js", f"{served.url}/v1", "echo", "hello there"))
    assert "".join(said["pieces"]) == said["whole"] == "hello there "
    assert said["unknown"] == ["NotFoundError", 404, "model_not_found"]
