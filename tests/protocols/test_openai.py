"""The OpenAI-compatible endpoint, tested with the clients that people use."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import openai
import pytest
from openai import AsyncOpenAI
from structlog.testing import capture_logs
from support.hub import Hub
from support.node import needs_node, run_node
from support.process import needs_curl
from support.waiting import PATIENCE, eventually

from hub.errors import AgentError
from hub.ids import Key
from hub.messages import Chunk, Event, RunFinished
from hub.node.expiring import expire_events
from hub.node.history import read_history
from hub.protocols import openai_chat
from hub.protocols.openai_chat import AnswerForm, OpenAIStream
from hub.protocols.openai_errors import openai_error_of

MODEL = '''
"""Answers with its conversation, and yields a usage."""
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
CAREFUL = """
from hub import AgentError, Run

async def careful(run: Run):
    try:
        yield await run.call("failing", "")
    except AgentError:
        yield "I know no more."
"""
# Creates a file when the hub stops it.
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
    hub.agent("careful.py", CAREFUL)
    hub.agent("endless.py", ENDLESS)
    hub.agent("ends.py", ENDS)
    hub.agent("broken.py", "def broken(x, y, z): pass")
    return await hub.start()


@pytest.fixture
async def client(served: Hub) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{served.url}/v1", api_key="any", max_retries=0, timeout=PATIENCE) as client:
        yield client


async def test_a_complete_answer(client: AsyncOpenAI) -> None:
    """The messages of the request are the conversation; the response has the agent's usage and stop reason."""
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
    """All chunks have one id; the usage is in the last chunk if the request asks for it."""
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
    """A broken agent is not listed."""
    models = {model.id async for model in await client.models.list()}
    assert {"echo", "model"} <= models and "broken" not in models
    assert (await client.models.retrieve("echo")).id == "echo"


async def test_errors_have_the_classes_of_the_openai_client(client: AsyncOpenAI) -> None:
    """The client raises the class of the status."""
    with pytest.raises(openai.NotFoundError) as unknown:
        await client.chat.completions.create(model="nobody", messages=HELLO)
    assert unknown.value.code == "model_not_found" and unknown.value.param == "model"
    with pytest.raises(openai.InternalServerError) as broken:
        await client.chat.completions.create(model="broken", messages=HELLO)
    assert broken.value.code == "agent_broken"
    with pytest.raises(openai.InternalServerError):
        await client.models.retrieve("broken")
    with pytest.raises(openai.NotFoundError):
        await client.models.retrieve("nobody")
    with pytest.raises(openai.UnprocessableEntityError) as failed:
        await client.chat.completions.create(model="failing", messages=HELLO)
    assert failed.value.code == "quota" and "no more today" in failed.value.message


@pytest.mark.parametrize(("message", "text"), [("late", "one "), ("early", "")])
async def test_a_failure_during_a_stream_is_an_event_of_the_stream(
    client: AsyncOpenAI, message: str, text: str
) -> None:
    """It comes after the text before the failure, or after the head of the response."""
    stream = await client.chat.completions.create(
        model="failing", messages=[{"role": "user", "content": message}], stream=True
    )
    deltas = []
    with pytest.raises(openai.APIError, match="no more today"):
        async for chunk in stream:
            deltas.append(chunk.choices[0].delta.content)
    assert "".join(delta or "" for delta in deltas) == text


async def test_the_operator_sees_the_failure_of_an_agent_without_a_session(client: AsyncOpenAI, served: Hub) -> None:
    """One line for each failure; an agent that handles the failure of another one causes none."""
    with capture_logs() as logs:
        for model in ("careful", "failing"):
            with contextlib.suppress(openai.APIError):
                await client.chat.completions.create(model=model, messages=HELLO)
    lines = [line for line in logs if line["event"] == "agent failed"]
    assert [(line["agent"], line["code"], line["reason"]) for line in lines] == [("failing", "quota", "no more today")]


@pytest.mark.parametrize(
    "body, param",
    [
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"n": 2}, "n"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"tools": [{"type": "custom", "custom": {"name": "f"}}]}, "tools[0].type"),
        ({"tool_choice": "none of them"}, "tool_choice"),
        ({"logprobs": True}, "logprobs"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content"),
        ({"messages": []}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({"model": 7}, "model"),
    ],
)
async def test_an_unsupported_parameter_is_refused_by_name(served: Hub, body: dict[str, Any], param: str) -> None:
    """It is never ignored; the error is a 400 in OpenAI's form."""
    async with aiohttp.ClientSession() as http:
        url = f"{served.url}/api/v1/chat/completions"
        async with http.post(url, json={"model": "model", "messages": HELLO} | body) as answer:
            error = (await answer.json())["error"]
    assert answer.status == 400 and error["type"] == "invalid_request_error" and error["param"] == param
    assert set(error) == {"message", "type", "param", "code"} and error["message"]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_disconnects_stops_the_agent(served: Hub, tmp_path: Path, stream: bool) -> None:
    """The client gets a stream or a complete response; the agent's slot is free again."""
    stopped = tmp_path / "stopped"
    body = {"model": "endless", "messages": [{"role": "user", "content": str(stopped)}], "stream": stream}
    agent = served.node.agents.get_working("endless")
    async with aiohttp.ClientSession() as http:
        asking = asyncio.create_task(http.post(f"{served.url}/v1/chat/completions", json=body))
        await eventually(lambda: agent.running_answers)
        if not asking.cancel():
            (await asking).close()
    await eventually(lambda: not agent.running_answers and stopped.exists())


async def test_a_request_without_a_session_stores_nothing(client: AsyncOpenAI, served: Hub) -> None:
    """No session is created, and no event is stored."""
    await client.chat.completions.create(model="model", messages=HELLO)
    assert not served.node.sessions and served.node.log.commit_totals.commits == 0


@pytest.mark.parametrize("stream", [False, True])
async def test_subscribers_of_the_session_receive_the_answer(client: AsyncOpenAI, served: Hub, stream: bool) -> None:
    """They receive it live, as one run; the agent gets the history of the session, not the messages of the request."""
    socket = await served.connect("?sessionId=s1")
    in_body, in_header = {"extra_body": {"sessionId": "s1"}}, {"extra_headers": {"X-Session-Id": "s1"}}
    for text, named in (("hello there", in_body), ("now", in_header)):
        request: Any = {"model": "model", "messages": [{"role": "user", "content": text}], "stream": stream} | named
        answer: Any = await client.chat.completions.create(**request)
        if stream:
            chunks = [chunk async for chunk in answer]
            reply = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
            assert chunks[-1].choices[0].finish_reason == "length" and len({chunk.id for chunk in chunks}) == 1
        else:
            reply = answer.choices[0].message.content
            assert answer.usage.total_tokens == 12
        await socket.until_done()
    assert reply == "user: hello there; assistant: hello there; now"
    assert socket.text() == "hello there" + reply


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
async def test_a_lone_surrogate_does_not_reach_a_client(
    hub: Hub, session: dict[str, str], line: str, words: str
) -> None:
    """Neither complete answers nor streams contain one, in text or in errors."""
    hub.agent("half.py", HALF % line)
    await hub.start()
    async with AsyncOpenAI(base_url=f"{hub.url}/v1", api_key="any", max_retries=0, timeout=PATIENCE) as client:
        request: Any = {"model": "half", "messages": HELLO, "extra_body": session}
        with pytest.raises(openai.UnprocessableEntityError, match=words):
            await client.chat.completions.create(**request)
        with pytest.raises(openai.APIError, match=words):
            async for _ in await client.chat.completions.create(stream=True, **request):
                pass


@pytest.mark.parametrize("stream", [False, True])
async def test_a_repeated_idempotency_key_runs_the_agent_once(client: AsyncOpenAI, served: Hub, stream: bool) -> None:
    """OpenAI's clients repeat a request after a lost response: they get the existing answer."""
    answers = []
    for _ in range(2):
        answer: Any = await client.chat.completions.create(
            model="model",
            messages=HELLO,
            stream=stream,
            extra_headers={"X-Session-Id": "s1", "Idempotency-Key": "k1"},
        )
        if stream:
            reply = "".join([chunk.choices[0].delta.content or "" async for chunk in answer if chunk.choices])
        else:
            reply = answer.choices[0].message.content
        answers.append(reply)
    assert answers == ["hello there"] * 2
    assert [message["content"] for message in await read_history(served.node, Key("s1"), 9)] == ["hello there"] * 2
    await client.chat.completions.create(model="model", messages=HELLO, extra_headers={"Idempotency-Key": '"no id"'})


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_that_is_no_longer_stored_is_an_error(client: AsyncOpenAI, served: Hub, stream: bool) -> None:
    """Both a complete response and a stream contain the error, not an empty answer."""
    request: Any = {
        "model": "model",
        "messages": HELLO,
        "extra_headers": {"X-Session-Id": "s1", "Idempotency-Key": "k1"},
    }
    await client.chat.completions.create(**request)
    await expire_events(served.node, 2**60)
    with pytest.raises(openai.APIError, match="no longer stores the answer") as error:
        answer: Any = await client.chat.completions.create(stream=stream, **request)
        async for _ in answer:
            pass
    assert error.value.code == "answer_gone"


async def test_a_failure_in_a_session_is_an_error(client: AsyncOpenAI) -> None:
    """It is the error of the request, or an event of the stream after the text."""
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


async def test_reasoning_resets_the_silence_timeout(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """400 s pass after each thought, and the limit is 600 s; the client receives only the answer."""
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
async def test_each_stop_reason_has_an_openai_finish_reason(
    client: AsyncOpenAI, reason: str, word: str, session: dict[str, str]
) -> None:
    """Complete and streamed responses have the same reason. A count that the agent does not report is an estimate."""
    request: Any = {"model": "ends", "messages": [{"role": "user", "content": reason}], "extra_body": session}
    whole = await client.chat.completions.create(**request)
    assert (whole.choices[0].finish_reason, whole.choices[0].message.content) == (word, "so")
    usage = {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4, "estimated": 1}
    assert whole.usage.to_dict() == usage
    stream = await client.chat.completions.create(**request, stream=True, stream_options={"include_usage": True})
    chunks = [chunk async for chunk in stream]
    assert chunks[-2].choices[0].finish_reason == word and chunks[-1].usage.to_dict() == usage


@pytest.mark.parametrize("session", [{}, {"sessionId": "s1"}])
async def test_the_usage_of_an_agent_that_counts_nothing_is_an_estimate(
    client: AsyncOpenAI, session: dict[str, str]
) -> None:
    """One token is four bytes of text; `estimated` says how many tokens are estimated. Some clients crash on null."""
    request: Any = {"model": "echo", "messages": [{"role": "user", "content": "1234 678 \N{SNOWMAN}"}]}
    whole = await client.chat.completions.create(**request, extra_body=session)
    usage = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7, "estimated": 7}
    assert whole.usage.to_dict() == usage
    stream = await client.chat.completions.create(
        **request, extra_body=session, stream=True, stream_options={"include_usage": True}
    )
    assert [chunk async for chunk in stream][-1].usage.to_dict() == usage


def test_text_that_is_sent_twice_counts_once() -> None:
    """Delivery translates an event again if it starts anew from the log."""
    stream = OpenAIStream(AnswerForm(model="main", wants_usage=True), "r")
    stream.out_frame_bytes = 1000
    for body, seq in (
        (Chunk("m", "12345678", 0), 1),
        (Chunk("m", "12345678", 0), 1),
        (RunFinished("m", "end_turn"), 2),
    ):
        data = stream.event(Event("main", "r", body, "s", "e", seq, 1))
    assert b'"completion_tokens":2' in data


async def post_completion(hub: Hub, body: dict[str, Any]) -> tuple[int, list[Any]]:
    """Return the status of a response, and its JSON or the JSON of each event."""
    async with aiohttp.ClientSession() as http, http.post(f"{hub.url}/v1/chat/completions", json=body) as answer:
        text = await answer.text()
    if not body.get("stream"):
        return answer.status, [json.loads(text)]
    events = [line.removeprefix("data: ") for line in text.split("\n") if line.startswith("data: ")]
    assert events.pop() == "[DONE]"
    return answer.status, [json.loads(event) for event in events]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("reason", "status"), [("timeout", 422), ("cancelled", 499)])
async def test_an_answer_that_is_cut_short_is_an_error(
    hub: Hub, tmp_path: Path, reason: str, status: int, stream: bool
) -> None:
    """The error is the response or the last event before [DONE]; no chunk has the reason `stop`."""
    hub.agent("endless.py", ENDLESS)
    await hub.start(run_seconds=0.5 if reason == "timeout" else 3600)
    client = await hub.connect("?sessionId=s1", extended=True)
    message = {"role": "user", "content": str(tmp_path / "stopped")}
    body = {"model": "endless", "messages": [message], "stream": stream, "sessionId": "s1"}
    asking = asyncio.create_task(post_completion(hub, body))
    await client.until_type("stream")
    if reason == "cancelled":
        await client.send(type="cancel", sessionId="s1")
    response_status, events = await asyncio.wait_for(asking, PATIENCE)
    assert response_status == (200 if stream else status)
    assert events[-1]["error"]["code"] == reason and events[-1]["error"]["message"]
    assert all(event["choices"][0]["finish_reason"] is None for event in events[:-1])
    assert len(events) == (3 if stream else 1)


@pytest.mark.parametrize("session", [{}, {"sessionId": "s1"}])
async def test_a_stream_contains_a_failure_once(served: Hub, session: dict[str, str]) -> None:
    """The error is the last event before [DONE]; no finish reason follows it."""
    body = {"model": "failing", "messages": [{"role": "user", "content": "late"}], "stream": True}
    _, events = await post_completion(served, body | session)
    assert [event.get("error", {}).get("code") for event in events] == [None, None, "quota"]


def test_each_failure_has_an_http_status() -> None:
    """Failures of a model's endpoint, and stop reasons of the hub."""
    codes = {"model_aborted": 502, "model_timeout": 504, "model_rate_limited": 429, "model_unavailable": 503}
    codes |= {"model_unreachable": 502, "agent_broken": 503, "a_code_of_an_agent": 503}
    for code, status in codes.items():
        assert openai_error_of(AgentError("x", code, retryable=True)).status == status, code
        assert openai_error_of(AgentError("x", code)).status == 422, code
    assert openai_error_of(TimeoutError()).status == 504
    for reason, status in (("timeout", 504), ("cancelled", 499), ("aborted", 503)):
        error = openai_error_of(AgentError("x", reason, retryable=True))
        assert (error.status, error.body["error"]["code"]) == (status, reason)
        (last,) = openai_chat.final_chunks({}, reason, None)
        assert last["error"]["code"] == reason


@needs_curl
async def test_curl(served: Hub) -> None:
    """The bytes on the wire: one event per chunk, `[DONE]` last."""
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
async def test_openais_node_client(served: Hub) -> None:
    """OpenAI's package from npm: a stream, a complete answer, an error."""
    reply = json.loads(await run_node("openai_chat.js", f"{served.url}/v1", "echo", "hello there"))
    assert "".join(reply["pieces"]) == reply["whole"] == "hello there "
    assert reply["unknown"] == ["NotFoundError", 404, "model_not_found"]
