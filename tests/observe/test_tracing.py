"""With `otel`, a collector of OpenTelemetry gets one trace of each run."""

import asyncio
import json
import re
import signal
from collections.abc import AsyncIterator
from contextvars import copy_context
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from multidict import CIMultiDict, CIMultiDictProxy
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes
from opentelemetry.semconv.attributes import error_attributes, server_attributes
from support.collector import Collector, Received, serve_collector
from support.documents import DOCS, ROOT, of_kind
from support.hub import Client, Hub
from support.model_endpoint import chunk, endpoint, stream
from support.process import HubProcess, run_hubbub
from support.waiting import PATIENCE, eventually

from hub.observe import gen_ai, otel
from hub.observe.otel import start_tracing
from hub.observe.span_values import MAX_TEXT_LENGTH
from hub.observe.tool_spans import MAX_TOOLS
from hub.observe.tracing import read_trace_origin

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"
AGENTS = {
    "planner": """
        from hub import Finish, ToolCallArgs, ToolCallEnd, ToolCallResult, ToolCallStart, Usage

        async def planner(run):
            yield "thinking "
            yield ToolCallStart("c1", "search")
            yield ToolCallArgs("c1", '{"q": "weather"}')
            yield ToolCallEnd("c1")
            yield ToolCallResult("c1", "rain")
            yield await run.call("writer", "a poem")
            yield ToolCallStart("c2", "not a name")
            yield ToolCallEnd("c2")
            yield ToolCallStart("c3", "broken")
            yield ToolCallResult("c3", "no", isError=True)
            yield Finish("end_turn", Usage(7, 9))
        """,
    "writer": """
        from hub import Finish, ToolCallResult, ToolCallStart, Usage

        async def writer(message):
            yield ToolCallStart("w1", "rhyme")
            yield ToolCallResult("w1", "moon, soon")
            yield "moon"
            yield Finish("max_tokens", Usage(3, 4))
        """,
    "fails": "from hub import AgentError\nasync def fails(message):\n    yield 'x'\n    raise AgentError('', 'gone')",
    "breaks": "async def breaks(message):\n    yield 'x'\n    1 / 0",
    "hangs": "import asyncio\nasync def hangs(message):\n    yield 'x'\n    await asyncio.Event().wait()",
    "late": "import asyncio\nfrom hub import agent\n@agent(silence_limit=0.02)\nasync def late(message):\n"
    "    yield 'x'\n    await asyncio.Event().wait()",
    "inner": "async def inner(message):\n    yield 'canary-inner'",
    "calls": "async def calls(run):\n    yield await run.call(run.message, 'x')",
    "short": "from hub import Finish\nasync def short(message):\n    yield 'x'\n    yield Finish('max_tokens')",
}


IGNORING_AGENT = """
import asyncio, contextlib, pathlib

HERE = pathlib.Path(__file__).parent.parent

async def stubborn(message):
    yield "x"
    (HERE / "running").touch()
    while not (HERE / "gate").exists():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0.01)
"""


@pytest.fixture
async def collector(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Collector]:
    """A collector to which the hubs of this test send, almost at once. A hub of this process sends all when it stops.

    On a busy machine, this may take longer than the second that a hub has for it.
    """
    monkeypatch.setattr(otel, "FLUSH_SECONDS", PATIENCE)
    async with serve_collector() as running:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", running.url)
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "10")
        yield running


async def start(hub: Hub, content: bool = False, **limits: Any) -> Client:
    for name, code in AGENTS.items():
        hub.agent(f"{name}.py", code)
    hub.options |= {"otel": True, "otel_content": content}
    await hub.start(**limits)
    return await hub.connect(extended=True)


async def chat(client: Client, agent: str, message: str = "hi", session: str = "s1", **fields: Any) -> str:
    """Send a message, and return the id of the run."""
    await client.send(type="chat", agentId=agent, sessionId=session, message=message, **fields)
    run: str = (await client.until_type("accepted"))["runId"]
    return run


async def wait_for_end(client: Client, run: str) -> None:
    await client.find(lambda frame: frame["type"] == "run_finished" and frame["runId"] == run)


async def post(hub: Hub, path: str, body: Any, statuses: tuple[int, ...] = (200, 202), **headers: str) -> str:
    timeout = aiohttp.ClientTimeout(PATIENCE)
    async with aiohttp.ClientSession(timeout=timeout) as http:
        async with http.post(hub.url + path, json=body, headers=headers) as response:
            text = await response.text()
            assert response.status in statuses, text
            return text


async def find_run(collector: Collector, run: str) -> Received:
    (span,) = await collector.wait(1, lambda span: span[gen_ai.RUN_ID] == run)
    return span


async def find_run_of(collector: Collector, agent: str) -> Received:
    (span,) = await collector.wait(1, lambda span: span.name == f"invoke_agent {agent}")
    return span


# --- one trace for each run -----------------------------------------------------------------------------------------


async def test_a_run_is_one_trace_with_its_tools_and_the_agents_that_it_calls(hub: Hub, collector: Collector) -> None:
    client = await start(hub)
    run = await chat(client, "planner")
    await wait_for_end(client, run)
    spans = await collector.wait(6)
    by_name = {span.name: span for span in spans}
    root, call = by_name["invoke_agent planner"], by_name["invoke_agent writer"]
    assert len({span.trace for span in spans}) == 1 and root.parent == ""
    parents = {span.name: span.parent for span in spans if span is not root}
    assert parents == {
        "execute_tool search": root.id,
        "execute_tool": root.id,
        "execute_tool broken": root.id,
        "invoke_agent writer": root.id,
        "execute_tool rhyme": call.id,
    }
    assert root.attributes.pop(gen_ai.QUEUE_SECONDS) >= 0 and root.attributes.pop(gen_ai.FIRST_OUTPUT_SECONDS) > 0
    assert root.attributes == {
        "gen_ai.operation.name": "invoke_agent",
        "gen_ai.agent.id": "planner",
        "gen_ai.agent.name": "planner",
        "gen_ai.conversation.id": "s1",
        "gen_ai.usage.input_tokens": 7,
        "gen_ai.usage.output_tokens": 9,
        "gen_ai.response.finish_reasons": ["end_turn"],
        "hubbub.run.id": run,
        "hubbub.run.attempt": 1,
    }
    assert call[gen_ai.FINISH_REASONS_LIST] == ["max_tokens"] and call[gen_ai.OUTPUT_TOKENS] == 4
    assert call[gen_ai.RUN_ID] == run and call[gen_ai.CONVERSATION_ID] == "s1"
    assert by_name["execute_tool search"].attributes == {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "search",
        "gen_ai.tool.call.id": "c1",
    }
    assert [span.name for span in spans if span.is_failed] == ["execute_tool broken"]
    assert all(root.start <= span.start <= span.end <= root.end for span in spans)
    assert collector.resources[0]["service.name"] == "hubbub" and collector.resources[0]["service.version"]


async def test_two_runs_on_one_connection_are_two_traces(hub: Hub, collector: Collector) -> None:
    """The second one waits in the queue of the session, and the end of the first one starts it."""
    client = await start(hub)
    runs = [await chat(client, "calls", "writer") for _ in range(2)]
    for run in runs:
        await wait_for_end(client, run)
    roots = await collector.wait(2, lambda span: span.name == "invoke_agent calls")
    assert [root[gen_ai.RUN_ID] for root in roots] == runs and [root.parent for root in roots] == ["", ""]
    calls = await collector.wait(2, lambda span: span.name == "invoke_agent writer")
    assert [call.parent for call in calls] == [root.id for root in roots]
    assert len({span.trace for span in collector.spans}) == 2


async def test_an_answer_outside_a_session_is_a_trace_too(hub: Hub, collector: Collector) -> None:
    await start(hub)
    body = {"model": "planner", "messages": [{"role": "user", "content": "hi"}]}
    answer = json.loads(await post(hub, "/v1/chat/completions", body))
    root = await find_run_of(collector, "planner")
    assert root[gen_ai.RUN_ID] == answer["id"] and root[gen_ai.CONVERSATION_ID] is None and root.parent == ""
    assert root[gen_ai.FINISH_REASONS_LIST] == ["end_turn"] and root[gen_ai.INPUT_TOKENS] == 7
    assert len(await collector.wait(6)) == 6 and {span.trace for span in collector.spans} == {root.trace}


ENDS = {
    "echo": ("end_turn", None),
    "short": ("max_tokens", None),
    "fails": ("error", "gone"),
    "breaks": ("error", "agent_error"),
    "late": ("timeout", "timeout"),
    "hangs": ("cancelled", None),
}


@pytest.mark.parametrize("agent", ENDS)
async def test_a_span_ends_once_and_says_how(hub: Hub, collector: Collector, agent: str) -> None:
    """A span of an answer in a session, and one of an answer that another agent called."""
    client = await start(hub)
    reason, error = ENDS[agent]
    for name, message in ((agent, "hi"), ("calls", agent)):
        run = await chat(client, name, message, session=name)
        if agent == "hangs":
            await eventually(lambda: any(one.running_answers for one in hub.node.agents.all() if one.id == "hangs"))
            await client.send(type="cancel", sessionId=name)
        await wait_for_end(client, run)
    await hub.stop()
    spans = [span for span in collector.spans if span.name == f"invoke_agent {agent}"]
    ends = [(span[gen_ai.FINISH_REASONS_LIST], span[gen_ai.ERROR_TYPE], span.is_failed) for span in spans]
    assert ends == [([reason], error, error is not None)] * 2
    assert len(collector.spans) == len({span.id for span in collector.spans}) == 3


async def test_a_run_that_never_starts_has_a_span(hub: Hub, collector: Collector) -> None:
    """It is cancelled in the queue, or its agent is removed while it waits."""
    client = await start(hub)
    first = await chat(client, "hangs", ifBusy="parallel")
    second = await chat(client, "echo", ifBusy="enqueue")
    third = await chat(client, "short", ifBusy="enqueue")
    await client.send(type="cancel", sessionId="s1", runId=second)
    await wait_for_end(client, second)
    (hub.folder / "agents" / "short.py").write_text("1 / 0")
    await hub.node.agents.reload("short")
    await client.send(type="cancel", sessionId="s1", runId=first)
    await wait_for_end(client, third)
    assert (await find_run(collector, second))[gen_ai.FINISH_REASONS_LIST] == ["cancelled"]
    span = await find_run(collector, third)
    assert span[gen_ai.FINISH_REASONS_LIST] == ["error"] and span[gen_ai.ERROR_TYPE] == "agent_broken"
    assert len({(await find_run(collector, run)).trace for run in (first, second, third)}) == 3


async def test_a_refused_chat_has_no_span(hub: Hub, collector: Collector) -> None:
    client = await start(hub)
    first = await chat(client, "hangs")
    await client.send(type="chat", agentId="echo", sessionId="s1", message="no", ifBusy="reject")
    await client.until_type("error")
    await hub.stop()
    assert [span[gen_ai.RUN_ID] for span in collector.spans] == [first]
    assert collector.spans[0][gen_ai.FINISH_REASONS_LIST] == ["aborted"] and collector.spans[0].is_failed


async def test_a_called_answer_that_ignores_its_cancel_has_one_span(
    hub: Hub, collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    """The span ends with the grace time, and not once more with the code."""
    hub.agent("stubborn.py", IGNORING_AGENT)
    client = await start(hub, grace_seconds=0.05)
    run = await chat(client, "calls", "stubborn")
    await eventually((hub.folder / "running").exists)
    await client.send(type="cancel", sessionId="s1")
    await wait_for_end(client, run)
    span = await find_run_of(collector, "stubborn")
    assert span[gen_ai.FINISH_REASONS_LIST] == ["cancelled"] and not span.is_failed
    (hub.folder / "gate").touch()
    await eventually(lambda: not any(agent.running_answers for agent in hub.node.agents.all()))
    assert len(await collector.wait(2)) == 2 and "ended span" not in caplog.text


async def test_a_run_has_no_parent_in_the_context_of_another_one(collector: Collector) -> None:
    """The end of a run may start or end another run. A call belongs to the answer that calls, in whichever task."""
    tracing = start_tracing("1", has_content=False)
    ids = {"run": "r", "agent": "outer"}
    outer, inner = (tracing.start_run(ids | {"agent": name}, "", None) for name in ("outer", "inner"))
    context = copy_context()
    context.run(outer.enter)
    context.run(tracing.start_run, ids | {"agent": "later"}, "", None).end("end_turn")
    context.run(inner.start_call, ids | {"agent": "called"}, "").end("end_turn")
    inner.end("end_turn")
    outer.end("end_turn")
    await tracing.close()
    spans = {span.name.split()[1]: span for span in await collector.wait(4)}
    assert (spans["later"].parent, spans["called"].parent) == ("", spans["inner"].id)
    assert len({span.trace for span in spans.values()}) == 3


async def test_a_flood_of_tools_makes_a_bounded_number_of_spans(hub: Hub, collector: Collector) -> None:
    """Also if their ids repeat, or are no texts."""
    hub.agent(
        "flood.py",
        f"""
        from hub import ToolCallArgs, ToolCallResult, ToolCallStart

        async def flood(message):
            for number in range({MAX_TOOLS + 5}):
                yield ToolCallStart("same" if number < 2 else str(number), "tool")
            yield ToolCallResult("unknown", "x")

        """,
    )
    hub.agent(
        "odd.py",
        "from hub import ToolCallStart\nasync def odd(message):\n    yield ToolCallStart(1, None)\n    yield 'ok'",
    )
    client = await start(hub)
    await wait_for_end(client, await chat(client, "flood"))
    await wait_for_end(client, await chat(client, "calls", "odd"))
    await hub.stop()
    (root,) = (span for span in collector.spans if span.name == "invoke_agent flood")
    tools = [span for span in collector.spans if span.parent == root.id]
    assert len(tools) == MAX_TOOLS and root[gen_ai.TOOLS_LEFT_OUT] == 5
    assert [span.name for span in collector.spans if span.name.endswith(("odd", "calls"))] == [
        "invoke_agent odd",
        "invoke_agent calls",
    ]


# --- traces of others -----------------------------------------------------------------------------------------------


async def test_the_trace_of_an_http_request_goes_on_in_its_run(hub: Hub, collector: Collector) -> None:
    """Of a chat, of OpenAI's route with and without a session, and of AG-UI. The next request has its own trace."""
    await start(hub)
    question: dict[str, Any] = {"model": "echo", "messages": [{"role": "user", "content": "hi"}]}
    run_input: dict[str, Any] = {
        "threadId": "a1",
        "runId": "k1",
        "messages": [{"id": "m", "role": "user", "content": "hi"}],
    }
    run_input |= {"state": {}, "tools": [], "context": [], "forwardedProps": {}}
    requests = [
        ("/api/v1/sessions/s1/chat?wait=true", {"agentId": "echo", "message": "hi"}),
        ("/api/v1/sessions/s2/chat", {"agentId": "echo", "message": "hi", "clientMsgId": "k"}),
        ("/v1/chat/completions", question),
        ("/v1/chat/completions", {**question, "sessionId": "s3"}),
        ("/api/v1/agents/echo/agui", run_input),
    ]
    for path, body in requests:
        await post(hub, path, body, traceparent=TRACEPARENT, tracestate="vendor=1")
    await collector.wait(len(requests), lambda span: (span.trace, span.parent) == (TRACE, PARENT))
    async with aiohttp.ClientSession() as http:  # one connection for both requests
        for headers in ({"traceparent": TRACEPARENT}, {}):
            async with http.post(f"{hub.url}{requests[0][0]}", json=requests[0][1], headers=headers) as response:
                assert response.status == 200
    (other,) = await collector.wait(1, lambda span: span.trace != TRACE)
    assert other.parent == "" and len(collector.spans) == len(requests) + 2


async def test_a_trace_that_is_not_sampled_stays_so(hub: Hub, collector: Collector) -> None:
    await start(hub)
    path, body = "/api/v1/sessions/s1/chat?wait=true", {"agentId": "planner", "message": "hi"}
    await post(hub, path, body, traceparent=f"00-{TRACE}-{PARENT}-00")
    await post(hub, path, {**body, "agentId": "echo"})
    await hub.stop()
    assert [span.name for span in collector.spans] == ["invoke_agent echo"]


async def test_a_run_of_a_websocket_links_to_its_handshake(hub: Hub, collector: Collector) -> None:
    """A connection may ask for many runs, so none of them is a part of its trace."""
    await start(hub)
    client = await hub.connect(extended=True, headers={"traceparent": TRACEPARENT})
    for _ in range(2):
        await wait_for_end(client, await chat(client, "echo"))
    spans = await collector.wait(2)
    assert [span.links for span in spans] == [(PARENT,)] * 2 and {span.parent for span in spans} == {""}
    assert len({TRACE, *(span.trace for span in spans)}) == 3


@pytest.mark.parametrize(
    "values",
    [
        [],
        [""],
        [TRACEPARENT, TRACEPARENT],
        [TRACEPARENT.upper()],
        [f"ff-{TRACE}-{PARENT}-01"],
        [f"00-{'0' * 32}-{PARENT}-01"],
        [f"00-{TRACE}-{'0' * 16}-01"],
        [f"00-{TRACE}-{PARENT}-01-more"],
        [f"00-{TRACE}-{PARENT}"],
        [f"01-{TRACE}-{PARENT}-01-{'x' * 300}"],
        [f" {TRACEPARENT}"],
        ["00-" + "é" * 32 + f"-{PARENT}-01"],
    ],
)
def test_a_malformed_traceparent_is_ignored(values: list[str]) -> None:
    headers = CIMultiDict([("traceparent", value) for value in values])
    assert read_trace_origin(CIMultiDictProxy(headers), is_parent=True) is None


@pytest.mark.parametrize("value", [TRACEPARENT, f"01-{TRACE}-{PARENT}-01-more", f"cc-{TRACE}-{PARENT}-09"])
def test_a_traceparent_of_a_later_version_is_read(value: str) -> None:
    """A state that is too long is dropped."""
    headers = CIMultiDict([("traceparent", value), ("tracestate", "a=1"), ("tracestate", "b=2")])
    assert read_trace_origin(CIMultiDictProxy(headers), is_parent=False) == (value, "a=1,b=2", False)
    headers.add("tracestate", "c=" + "x" * 600)
    assert read_trace_origin(CIMultiDictProxy(headers), is_parent=True) == (value, "", True)


async def test_a_request_to_a_model_has_a_span_and_tells_it_the_model(
    hub: Hub, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary")
    async with endpoint() as model:
        hub.agent("model.toml", f'adapter = "openai_chat"\nbase_url = "{model.url}"\nmodel = "small-1"\nretries = 0\n')
        usage = {"prompt_tokens": 5, "completion_tokens": 6}
        model.replies = [stream(chunk("hello"), chunk(reason="stop", usage=usage), "[DONE]"), stream("{")]
        await start(hub)
        path, body = "/api/v1/sessions/s1/chat?wait=true", {"agentId": "model", "message": "hi"}
        for status in (200, 502):
            await post(hub, path, body, (status,), traceparent=TRACEPARENT, tracestate="vendor=1")
        spans = await collector.wait(4)
        sent = [headers["traceparent"] for headers in model.headers]
        assert {headers["tracestate"] for headers in model.headers} == {"vendor=1"}
    runs, requests = ([span for span in spans if span.name == name] for name in ("invoke_agent model", "chat small-1"))
    assert sent == [f"00-{TRACE}-{request.id}-01" for request in requests]
    assert [request.parent for request in requests] == [run.id for run in runs]
    assert [request.kind for request in requests] == ["CLIENT"] * 2
    first, second = requests
    assert first.attributes.pop("server.port") == int(model.url.split(":")[2].split("/")[0])
    assert first.attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "small-1",
        "gen_ai.usage.input_tokens": 5,
        "gen_ai.usage.output_tokens": 6,
        "gen_ai.response.finish_reasons": ["end_turn"],
        "server.address": "127.0.0.1",
    }
    assert second[gen_ai.ERROR_TYPE] == runs[1][gen_ai.ERROR_TYPE] == "model_aborted" and second.is_failed
    assert b"sk-canary" not in collector.bytes


async def test_without_otel_a_model_gets_no_traceparent(hub: Hub, collector: Collector) -> None:
    async with endpoint() as model:
        hub.agent("model.toml", f'adapter = "openai_chat"\nbase_url = "{model.url}"\nmodel = "small-1"\n')
        model.replies = [stream(chunk("hello", reason="stop"), "[DONE]")]
        await hub.start()
        await post(
            hub, "/api/v1/sessions/s1/chat?wait=true", {"agentId": "model", "message": "hi"}, traceparent=TRACEPARENT
        )
        assert "traceparent" not in model.headers[0] and not collector.spans


# --- processes ------------------------------------------------------------------------------------------------------

TRACING_AGENT = """
import asyncio
from opentelemetry import trace

tracer = trace.get_tracer("mine")

async def tracing(run):
    with tracer.start_as_current_span("load"):
        await asyncio.sleep(0)
        with tracer.start_as_current_span("ask"):
            yield await run.call("plain", "x")
    def work():
        with tracer.start_as_current_span("thread"):
            pass
    await asyncio.to_thread(work)
"""
PLAIN_AGENT = """
from opentelemetry import trace

def plain(message):
    with trace.get_tracer("mine").start_as_current_span("function"):
        yield "ok"
"""


async def test_spans_of_an_agent_are_children_of_its_run(tmp_path: Path, collector: Collector) -> None:
    """Also in threads. An agent that it calls within such a span is a child of that span."""
    hub = HubProcess(tmp_path)
    hub.agent("tracing.py", TRACING_AGENT)
    hub.agent("plain.py", PLAIN_AGENT)
    try:
        await hub.start(otel="true")
        await ask(hub, "tracing")
        spans = {span.name: span for span in await collector.wait(6)}
        parents = {
            span.name: other.name for span in spans.values() for other in spans.values() if other.id == span.parent
        }
        assert parents == {
            "load": "invoke_agent tracing",
            "ask": "load",
            "invoke_agent plain": "ask",
            "function": "invoke_agent plain",
            "thread": "invoke_agent tracing",
        }
        assert len({span.trace for span in spans.values()}) == 1
    finally:
        await hub.kill()


async def ask(hub: HubProcess, agent: str, message: str = "hi", session: str = "s1", **headers: str) -> str:
    timeout = aiohttp.ClientTimeout(PATIENCE)
    async with aiohttp.ClientSession(timeout=timeout) as http:
        url = f"{hub.url}/api/v1/sessions/{session}/chat?wait=true"
        async with http.post(url, json={"agentId": agent, "message": message}, headers=headers) as response:
            answer = await response.json()
            assert response.status == 200, answer
            text: str = answer["content"]
            return text


async def send(hub: HubProcess, agent: str, session: str, **headers: str) -> str:
    """Send a message without waiting for the answer, and return the id of the run."""
    async with aiohttp.ClientSession() as http:
        url = f"{hub.url}/api/v1/sessions/{session}/chat"
        async with http.post(url, json={"agentId": agent, "message": "hi"}, headers=headers) as response:
            run: str = (await response.json())["runId"]
            return run


STUBBORN = """
import asyncio, pathlib
from hub import agent

@agent(restartable=True)
async def stubborn(message):
    if pathlib.Path("once").exists():
        yield "second"
        return
    pathlib.Path("once").touch()
    await asyncio.Event().wait()
"""
PATIENT_HUB = f"""
from hub.__main__ import main
from hub.observe import otel

otel.FLUSH_SECONDS = {PATIENCE}
main()
"""


@pytest.mark.parametrize("is_killed", [True, False], ids=["killed", "stopped"])
async def test_after_a_restart_each_run_has_its_span(tmp_path: Path, collector: Collector, is_killed: bool) -> None:
    """A run that starts again, in the trace of its request, one that ends as aborted, and one that was in the queue.

    The hub that is stopped in order has also sent the span of the first attempt.
    """
    (tmp_path / "patient_hub.py").write_text(PATIENT_HUB)
    hub = HubProcess(tmp_path, module="patient_hub")
    hub.agent("stubborn.py", STUBBORN)
    hub.agent("hangs.py", AGENTS["hangs"])
    hub.agent("echo.py", "async def echo(message):\n    yield message")
    try:
        # With such a grace time, the stop waits for no run, and has 15 seconds for all else.
        (tmp_path / "hubbub.toml").write_text("[limits]\ndrain_seconds = 15.0\ngrace_seconds = 15.0\n")
        await hub.start(otel="true")
        again = await send(hub, "stubborn", "s1", traceparent=TRACEPARENT)
        await eventually((tmp_path / "once").exists)
        aborted = await send(hub, "hangs", "s2")
        queued = await send(hub, "hangs", "s2")
        if is_killed:
            await hub.kill()
        else:
            hub.signal(signal.SIGTERM)
            assert await hub.wait_until_ended() == 0, hub.log
        (tmp_path / "agents" / "hangs.py").write_text("async def hangs(message):\n    yield 'ok'")
        await hub.start(otel="true")
        attempts = await collector.wait(1 if is_killed else 2, lambda span: span[gen_ai.RUN_ID] == again)
        assert [span[gen_ai.RUN_ATTEMPT] for span in attempts] == [2] if is_killed else [1, 2]
        assert attempts[-1][gen_ai.FINISH_REASONS_LIST] == ["end_turn"]
        assert is_killed or attempts[0][gen_ai.FINISH_REASONS_LIST] == ["suspended"]
        assert {(span.trace, span.parent) for span in attempts} == {(TRACE, PARENT)}
        assert (await find_run(collector, aborted))[gen_ai.FINISH_REASONS_LIST] == ["aborted"]
        assert (await find_run(collector, queued))[gen_ai.FINISH_REASONS_LIST] == ["end_turn"]
    finally:
        await hub.kill()


LOADED_AGENT = "import sys\nasync def loaded(message):\n    yield str('opentelemetry' in sys.modules)"


@pytest.mark.parametrize("otel", [True, False])
async def test_only_a_hub_with_otel_loads_opentelemetry(tmp_path: Path, collector: Collector, otel: bool) -> None:
    """So without it, there is no span at all."""
    hub = HubProcess(tmp_path)
    hub.agent("loaded.py", LOADED_AGENT)
    try:
        await hub.start(otel=str(otel).lower())
        assert await ask(hub, "loaded") == str(otel)
        await collector.wait(int(otel))
        hub.signal(signal.SIGTERM)
        assert await hub.wait_until_ended() == 0
        assert len(collector.spans) == otel and ("traces are sent" in hub.log) == otel
    finally:
        await hub.kill()


async def wait_for_the_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Read a request, and answer nothing."""
    await reader.read()
    writer.close()


@pytest.mark.parametrize("is_silent", [True, False], ids=["silent", "refusing"])
async def test_a_dead_collector_costs_one_line(
    tmp_path: Path, is_silent: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs go on, the queue of spans stays bounded, and the hub stops in order."""
    async with await asyncio.start_server(wait_for_the_end, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        if not is_silent:
            server.close()
            await server.wait_closed()
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://user:secret@127.0.0.1:{port}")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.1")
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "10")
        monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "4")
        monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "2")
        hub = HubProcess(tmp_path)
        hub.agent("echo.py", "async def echo(message):\n    yield message")
        try:
            await hub.start(otel="true")
            for number in range(20):
                assert await ask(hub, "echo", str(number)) == str(number)
            await eventually(lambda: "traces not sent" in hub.log)
            hub.signal(signal.SIGTERM)
            assert await hub.wait_until_ended() == 0
        finally:
            await hub.kill()
    assert hub.log.count("traces not sent") == 1 and f"endpoint=http://127.0.0.1:{port} " in hub.log
    assert "Traceback" not in hub.log and "opentelemetry." not in hub.log and "secret" not in hub.log


async def test_a_silent_collector_does_not_hold_up_the_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub gives up long before the SDK would."""
    async with await asyncio.start_server(wait_for_the_end, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "600")
        hub = HubProcess(tmp_path)
        hub.agent("echo.py", "async def echo(message):\n    yield message")
        try:
            await hub.start(otel="true")
            await ask(hub, "echo")
            hub.signal(signal.SIGTERM)
            assert await hub.wait_until_ended() == 0 and "could not end in order" not in hub.log
        finally:
            await hub.kill()


@pytest.mark.parametrize(
    "variables, line",
    [
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "OTEL_EXPORTER_OTLP_PROTOCOL is grpc, but the hub sends traces as"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "localhost:4318"}, "OTEL_EXPORTER_OTLP_ENDPOINT must be an address such as"),
        ({"OTEL_EXPORTER_OTLP_HEADERS": "api-key: secret"}, "OTEL_EXPORTER_OTLP_HEADERS is wrong: write NAME=VALUE"),
        ({"OTEL_EXPORTER_OTLP_TRACES_HEADERS": "a b=secret"}, "OTEL_EXPORTER_OTLP_HEADERS is wrong: write NAME=VALUE"),
        ({"OTEL_BSP_MAX_QUEUE_SIZE": "1"}, "a variable OTEL_... of OpenTelemetry is wrong: "),
        ({"HUBBUB_OTEL": "false", "HUBBUB_OTEL_CONTENT": "true"}, "otel_content has no effect without otel"),
    ],
)
async def test_a_wrong_variable_is_one_line(tmp_path: Path, variables: dict[str, str], line: str) -> None:
    output = await run_hubbub(tmp_path, "serve", "--port", "0", **({"HUBBUB_OTEL": "true"} | variables))
    assert output.code == 2 and output.err.count("\n") == 1 and line in output.err, output
    assert "secret" not in output.err  # a malformed header is often a key


async def test_a_broken_span_processor_of_an_agents_package_does_no_harm(tmp_path: Path, collector: Collector) -> None:
    """Packages that observe agents add processors to the provider of the process."""
    hub = HubProcess(tmp_path)
    hub.agent(
        "echo.py",
        """
        from hub import ToolCallResult, ToolCallStart
        from opentelemetry import trace
        from opentelemetry.sdk.trace import SpanProcessor

        class Broken(SpanProcessor):
            def on_start(self, span, parent_context=None):
                1 / 0
            on_end = _on_ending = on_start

        trace.get_tracer_provider().add_span_processor(Broken())

        async def echo(message):
            yield ToolCallStart("c1", "search")
            yield ToolCallResult("c1", "rain")
            yield message
        """,
    )
    try:
        await hub.start(otel="true")
        for number in range(2):
            assert await ask(hub, "echo", str(number)) == str(number)
        await collector.wait(4)
        await eventually(lambda: "a span processor failed" in hub.log)
    finally:
        await hub.kill()
    assert hub.log.count("a span processor failed") == 1 and "Traceback" not in hub.log, hub.log


async def test_a_missing_package_is_one_line(tmp_path: Path) -> None:
    package = tmp_path / "packages" / "opentelemetry"
    package.mkdir(parents=True)
    error = "ModuleNotFoundError(\"No module named 'opentelemetry'\", name='opentelemetry')"
    (package / "__init__.py").write_text(f"raise {error}\n")
    path = f"{tmp_path / 'packages'}:{ROOT}"
    output = await run_hubbub(tmp_path, "serve", "--port", "0", HUBBUB_OTEL="true", PYTHONPATH=path)
    assert output.code == 2 and output.err.count("\n") == 1, output
    assert re.search("otel needs OpenTelemetry: run .* -m pip install ", output.err), output.err
    output = await run_hubbub(tmp_path, "doctor", HUBBUB_OTEL="true", PYTHONPATH=path)
    assert re.search("wrong +otel needs OpenTelemetry: run .* -m pip install ", output.out), output.out


# --- content --------------------------------------------------------------------------------------------------------

AGENTS["outer"] = """
from hub import AgentError, Custom, Reasoning, ToolCallArgs, ToolCallEnd, ToolCallResult, ToolCallStart

async def outer(run):
    assert run.metadata["canary-key"] == "canary-metadata" and "canary" in run.parts[0]["text"]
    yield "canary-answer "
    yield Reasoning("canary-thought")
    yield ToolCallStart("c1", "look up: canary-tool")
    yield ToolCallArgs("c1", '{"q": "canary-arguments"}')
    yield ToolCallEnd("c1")
    yield ToolCallResult("c1", "canary-result")
    yield Custom("canary-name", "canary-value")
    await run.keep("canary-file.txt", "text/plain", b"canary-bytes")
    yield await run.call("inner", "canary-call")
    reply = await run.ask("canary-question")
    yield str(reply.payload)
    raise AgentError("canary-error", "canary code")
"""


async def tell_canaries(hub: Hub, client: Client) -> None:
    """Put a canary into everything that a person or an agent writes."""
    async with aiohttp.ClientSession() as http:
        headers = {"Content-Type": "text/plain"}
        url = f"{hub.url}/api/v1/files?sessionId=s1&name=canary-upload.txt"
        async with http.post(url, data=b"canary-upload", headers=headers) as response:
            assert response.status == 201, await response.text()
        async with http.patch(f"{hub.url}/api/v1/sessions/s1", json={"title": "canary-title"}) as response:
            assert response.status == 200
    parts = [{"type": "text", "text": "canary-part"}]
    metadata = {"canary-key": "canary-metadata"}
    run = await chat(client, "outer", "canary-message", parts=parts, metadata=metadata, clientMsgId="canary-key")
    question = await client.find(lambda frame: frame["type"] == "interrupt")
    await client.send(
        type="resume", sessionId="s1", interruptId=question["id"], status="resolved", payload="canary-reply"
    )
    await wait_for_end(client, run)
    body = {"model": "inner", "messages": [{"role": "user", "content": "canary-completion"}]}
    assert "canary-inner" in await post(hub, "/v1/chat/completions", body)


async def test_no_word_of_a_canary_is_in_a_trace(hub: Hub, collector: Collector) -> None:
    """Not of messages, answers, tools, files, titles, metadata, questions, errors and agents that are called."""
    client = await start(hub)
    await tell_canaries(hub, client)
    await hub.stop()
    names = [span.name for span in collector.spans]
    assert sorted(names) == ["execute_tool", *["invoke_agent inner"] * 2, "invoke_agent outer"]
    assert collector.bytes and b"canary" not in collector.bytes


async def test_with_otel_content_the_texts_are_in_the_trace(hub: Hub, collector: Collector) -> None:
    client = await start(hub, content=True)
    await tell_canaries(hub, client)
    await hub.stop()
    spans = {span.name: span for span in collector.spans if "canary-completion" not in str(span.attributes)}
    root, tool, inner = (spans[name] for name in ("invoke_agent outer", "execute_tool", "invoke_agent inner"))
    assert json.loads(root[gen_ai.INPUT_MESSAGES]) == [make_message("user", "canary-message")]
    (answer,) = json.loads(root[gen_ai.OUTPUT_MESSAGES])
    assert answer == make_message("assistant", "canary-answer canary-innercanary-reply") | {"finish_reason": "error"}
    assert tool[gen_ai.TOOL_ARGUMENTS] == '{"q": "canary-arguments"}' and tool[gen_ai.TOOL_RESULT] == "canary-result"
    assert json.loads(inner[gen_ai.INPUT_MESSAGES]) == [make_message("user", "canary-call")]
    assert "canary-inner" in inner[gen_ai.OUTPUT_MESSAGES]


def make_message(role: str, text: str) -> dict[str, Any]:
    return {"role": role, "parts": [{"type": "text", "content": text}]}


async def test_long_and_broken_texts_are_cut_and_mended(hub: Hub, collector: Collector) -> None:
    """A trace with one wrong text would be refused as a whole."""
    hub.agent("long.py", "async def long(run):\n    yield await run.call('big', '\\ud800' + 'x' * 100_000)")
    hub.agent("big.py", "async def big(message):\n    yield 'y' * 50_000\n    yield 'z' * 50_000")
    client = await start(hub, content=True)
    await wait_for_end(client, await chat(client, "long"))
    called = await find_run_of(collector, "big")
    (message,) = json.loads(called[gen_ai.INPUT_MESSAGES])
    assert message["parts"][0]["content"] == "?" + "x" * 16_383
    (answer,) = json.loads(called[gen_ai.OUTPUT_MESSAGES])
    assert answer["parts"][0]["content"] == "y" * 16_384


# --- names ----------------------------------------------------------------------------------------------------------


def test_the_names_are_those_of_the_conventions() -> None:
    modules = (gen_ai_attributes, error_attributes, server_attributes)
    known = {value for module in modules for value in vars(module).values() if isinstance(value, str)}
    names = {value for name, value in vars(gen_ai).items() if name.isupper()}
    own = {name for name in names if name.startswith("hubbub.")}
    operations = {gen_ai.INVOKE_AGENT, gen_ai.EXECUTE_TOOL, gen_ai.CHAT}
    assert names - own - operations <= known
    assert operations <= {value.value for value in gen_ai_attributes.GenAiOperationNameValues}


async def test_the_example_of_the_page_works(tmp_path: Path, collector: Collector) -> None:
    """With the collector of this test instead of that of the page."""
    (settings,) = of_kind(DOCS["operations"], "toml", "settings", "traces")
    (variables,) = of_kind(DOCS["operations"], "text", "traces")
    names = [line.partition("=")[0] for line in variables.lines]
    assert names == ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_SERVICE_NAME"]
    (tmp_path / "hubbub.toml").write_text(settings.text)
    (tmp_path / ".env").write_text(variables.text.replace("http://localhost:4318", collector.url))
    hub = HubProcess(tmp_path)
    hub.agent("echo.py", AGENTS["short"].replace("short", "echo"))
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT")
            await hub.start()
        await ask(hub, "echo")
        await collector.wait(1)
        assert collector.resources[0]["service.name"] in variables.text
    finally:
        await hub.kill()


def test_the_page_has_the_names() -> None:
    """Of the spans and of the attributes."""
    page = DOCS["operations"].read_text(encoding="utf-8")
    section = page[page.index("## Traces") :]
    assert {*re.findall("`((?:gen_ai|hubbub)\\.[a-z_.]+)`", section)} == {
        value for name, value in vars(gen_ai).items() if name.isupper() and value.startswith(("gen_ai.", "hubbub."))
    }
    spans = (gen_ai.INVOKE_AGENT, gen_ai.EXECUTE_TOOL, gen_ai.CHAT)
    assert all(f"| `{name} " in section for name in spans) and f"up to {MAX_TOOLS} spans" in section
    assert f"{MAX_TEXT_LENGTH:,} characters" in section


def test_only_one_module_has_the_names() -> None:
    files = [path for path in (ROOT / "hub").rglob("*.py") if '"gen_ai.' in path.read_text(encoding="utf-8")]
    assert [path.name for path in files] == ["gen_ai.py"]
