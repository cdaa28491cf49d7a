"""Requests and tools: an agent calls a tool of the client, and gets its result in a new run."""

import asyncio
import json
from pathlib import Path
from typing import Any

import aiohttp
import attrs
import pytest
from support.documents import DOCS, of_kind
from support.hub import Client, Hub
from support.process import HubProcess
from support.sse import call
from support.tools import HELPER, REQUEST, WEATHER, ask, make_chat, result, send_results, start
from support.waiting import eventually

from hub.access.principal import LOCAL
from hub.commands import table
from hub.errors import BadFrame, IdReused, ToolsUnsupported
from hub.ids import Key
from hub.messages import PageRequest, Request, ResponseFormat, Tool
from hub.messages.parts import ToolResultPart

# Makes a call before its text and two after it, and waits to be killed.
KILLED = """
    import asyncio
    from hub import Run, ToolCallArgs, ToolCallEnd, ToolCallResult, ToolCallStart, agent

    @agent(tools=True)
    async def main(run: Run):
        if run.parts:
            yield run.parts[0]["content"]
            return
        yield ToolCallStart("c1", "a")
        yield ToolCallArgs("c1", "{}")
        yield ToolCallEnd("c1")
        yield "text"
        yield ToolCallStart("c2", "b")
        yield ToolCallResult("c2", "r")
        yield ToolCallStart("c3", "c")
        await asyncio.Event().wait()
    """
CALL_PART = {"type": "tool_call", "toolCallName": "get_weather", "arguments": '{"city":"Rome"}'}


async def begin(hub: Hub, **limits: Any) -> Client:
    """Start a hub with the agent `helper`, and return a client that is subscribed to the session s1."""
    hub.agent("helper.py", HELPER)
    await hub.start(**limits)
    client = await hub.connect(extended=True)
    await client.send(type="subscribe", sessionId="s1")
    await client.until_type("subscribed")
    return client


async def read_answer(client: Client) -> dict[str, Any]:
    """Read until the end of an answer to results, and return what `helper` got."""
    end = await client.until_done()
    answer: dict[str, Any] = json.loads(client.text(end["runId"]))
    return answer


async def list_messages(hub: Hub, session: str = "s1") -> list[dict[str, Any]]:
    async with aiohttp.ClientSession(f"{hub.url}/api/v1/") as http:
        _, reply = await call(http, "GET", f"sessions/{session}/messages")
    messages: list[dict[str, Any]] = reply["data"]
    return messages


# --- calls ------------------------------------------------------------------------------------------------------------


async def test_a_call_of_a_clients_tool_ends_the_run_for_its_tool_calls(hub: Hub) -> None:
    """The calls are in the events, in the outcome, and in the parts of a message without text."""
    client = await begin(hub)
    outcome = await ask(hub, "c1 c2")
    assert outcome.stopReason == "tool_calls"
    assert [(part.toolCallId, part.arguments) for part in outcome.toolCalls or ()] == [
        ("c1", '{"city":"Rome"}'),
        ("c2", '{"city":"Rome"}'),
    ]
    assert (await client.until_done())["stopReason"] == "tool_calls"
    _, answer = await list_messages(hub)
    assert (answer["content"], answer["stopReason"]) == ("", "tool_calls")
    assert answer["parts"] == [CALL_PART | {"toolCallId": "c1"}, CALL_PART | {"toolCallId": "c2"}]
    assert client.frames[-1]["messageId"] == answer["messageId"]


@pytest.mark.parametrize(
    ("lines", "reason", "parts"),
    [
        ('yield ToolCallResult("c1", "r", isError=True)', "end_turn", ["tool_call", "tool_result"]),
        ('yield Finish("max_tokens")', "max_tokens", ["tool_call"]),
        ('yield Finish("refused")', "refused", ["tool_call"]),
        ('yield Finish("end_turn")', "tool_calls", ["tool_call"]),
        ('yield ToolCallStart("c2", "other")', "tool_calls", ["tool_call", "tool_call"]),
        ('yield ToolCallResult("c1", "r")\n    yield ToolCallStart("c2", "other")', "end_turn", None),
        ('yield ToolCallResult("c2", "r")', "tool_calls", ["tool_call"]),
        ('raise ValueError("x")', "error", ["tool_call"]),
    ],
)
async def test_only_an_open_call_of_a_clients_tool_is_the_clients(
    hub: Hub, lines: str, reason: str, parts: list[str] | None
) -> None:
    """A call with a result, and a call of a tool that the client does not have, are the agent's own."""
    hub.agent(
        "own.py",
        f"""
from hub import *

async def own(message: str):
    yield "text"
    yield ToolCallStart("c1", "get_weather")
    yield ToolCallEnd("c1")
    {lines}
""",
    )
    await hub.start()
    outcome = await ask(hub, "x", agentId="own")
    assert outcome.stopReason == reason
    if parts is not None:
        _, answer = await list_messages(hub)
        assert (answer["content"], [part["type"] for part in answer["parts"]]) == ("text", parts)


async def test_a_call_is_no_tool_call_without_a_request(hub: Hub) -> None:
    """An agent may show calls of its own that have no result."""
    hub.agent(
        "own.py", "from hub import ToolCallStart\n\nasync def own():\n    yield ToolCallStart('c', 'get_weather')"
    )
    await hub.start()
    assert (await ask(hub, "x", Request(), agentId="own")).stopReason == "end_turn"


async def test_the_agents_own_results_are_kept_up_to_a_size(hub: Hub) -> None:
    """In the history only: the events have them all. A call whose result is left out is left out, too."""
    hub.agent(
        "own.py",
        """
        from hub import ToolCallEnd, ToolCallResult, ToolCallStart

        async def own(message: str):
            for number in range(3):
                yield ToolCallStart(f"c{number}", "own")
                yield ToolCallEnd(f"c{number}")
                yield ToolCallResult(f"c{number}", "x" * 400)
            yield "done"
        """,
    )
    await hub.start(content_bytes=1000)
    await ask(hub, "x", Request(), agentId="own")
    messages = await list_messages(hub)
    ids = [part["toolCallId"] for part in messages[1]["parts"]]
    assert ids == ["c0", "c0", "c1", "c1"] and messages[2]["content"] == "done"


async def test_a_large_own_result_has_its_file_in_the_history(hub: Hub) -> None:
    hub.agent(
        "own.py",
        """
        from hub import ToolCallResult, ToolCallStart

        async def own(message: str):
            yield ToolCallStart("c", "own")
            yield ToolCallResult("c", "x" * 50000)
        """,
    )
    await hub.start()
    await ask(hub, "x", Request(), agentId="own")
    part = (await list_messages(hub))[1]["parts"][1]
    assert part["fileId"].startswith("f_") and part["size"] == 50000 and len(part["content"]) == 1024


# --- results ----------------------------------------------------------------------------------------------------------


async def test_results_begin_a_run_that_names_its_parent(hub: Hub) -> None:
    """A chat without text and without an agent is enough: the agent of the call gets it, with the same tools."""
    client = await begin(hub)
    outcome = await ask(hub, "c1 c2", attrs.evolve(REQUEST, tool_choice="required"))
    await client.until_done()
    accepted = await send_results(client, result("c1", "sunny"), result("c2", "rain", isError=True))
    assert accepted["status"] == "started"
    message = await client.find(lambda frame: frame.get("messageId") == accepted["messageId"])
    assert (message["type"], message["content"]) == ("user_message", "")
    assert message["parts"] == [result("c1", "sunny"), result("c2", "rain", isError=True)]
    run_started = await client.find(lambda frame: frame.get("parentRunId") is not None)
    assert (run_started["parentRunId"], run_started["agentId"]) == (outcome.runId, "helper")
    answer = await read_answer(client)
    assert answer["results"] == ["c1=sunny", "c2=rain"]
    # The tools and the sampling are those of the first run. The required call was made, and the state may be old.
    assert (answer["tools"], answer["sampling"]) == (["get_weather"], {"temperature": 0.5})
    assert (answer["choice"], answer["state"]) == (None, None)
    assert answer["history"] == ["user:c1 c2", 'assistant:c1({"city":"Rome"})c2({"city":"Rome"})']


async def test_results_with_a_request_of_their_own_have_that_one(hub: Hub) -> None:
    await begin(hub)
    await ask(hub, "c1")
    request = Request(sampling={"temperature": 1}, state={"b": 2}, tools=(WEATHER, Tool(name="other")))
    outcome = await ask(hub, "", request, parts=(ToolResultPart("c1", "sunny"),))
    answer = json.loads(outcome.content)
    assert (answer["state"], answer["tools"]) == ({"b": 2}, ["get_weather", "other"])


async def test_the_history_of_an_agent_with_tools_has_calls_and_results(hub: Hub) -> None:
    """Each result follows its call. An agent without tools gets neither, and no empty message."""
    hub.agent(
        "plain.py",
        """
        async def plain(run):
            yield str([(past.role, past.content, list(past.parts)) for past in run.history if past.agent != "plain"])
        """,
    )
    client = await begin(hub)
    await ask(hub, "c1 c2")
    await client.until_done()
    await send_results(client, result("c2", "rain"))
    await client.until_done()
    answer = json.loads((await ask(hub, "more", Request())).content)
    assert answer["history"][:3] == [
        "user:c1 c2",
        'assistant:c1({"city":"Rome"})c2({"city":"Rome"})',
        "tool:rainc2",
    ]
    assert [line.partition(":")[0] for line in answer["history"]] == ["user", "assistant", "tool", "assistant"]
    seen = (await ask(hub, "x", Request(), agentId="plain")).content
    assert seen.startswith("[('user', 'c1 c2', []), ('assistant', '{") and "tool" not in seen.partition("{")[0]


async def test_a_second_result_is_refused(hub: Hub) -> None:
    client = await begin(hub)
    await ask(hub, "c1")
    assert (await send_results(client, result("c1")))["type"] == "accepted"
    refused = await send_results(client, result("c1", "again"), ref=7)
    assert (refused["code"], refused["sessionId"], refused["ref"]) == ("tool_call_answered", "s1", 7)
    assert "c1 has a result already" in refused["message"]


async def test_of_two_results_at_once_one_counts(hub: Hub) -> None:
    """Two browsers send the result of one call at the same time: one gets the error, and one run starts."""
    await begin(hub)
    for round in range(5):
        call_id = f"c{round}"
        await ask(hub, call_id)
        clients = [await hub.connect(extended=True) for _ in range(3)]
        answers = await asyncio.gather(*(send_results(client, result(call_id)) for client in clients))
        kinds = sorted(answer.get("code", "accepted") for answer in answers)
        assert kinds == ["accepted", "tool_call_answered", "tool_call_answered"]
    messages = await list_messages(hub)
    assert sum(part["type"] == "tool_result" for m in messages for part in m.get("parts", ())) == 5


async def test_a_repeated_chat_with_results_is_a_duplicate(hub: Hub) -> None:
    """The clientMsgId counts before the check of the calls."""
    client = await begin(hub)
    await ask(hub, "c1")
    first = await send_results(client, result("c1"), clientMsgId="m1")
    second = await send_results(client, result("c1"), clientMsgId="m1")
    assert (second["status"], second["runId"]) == ("duplicate", first["runId"])


async def test_an_unknown_call_and_two_results_of_one_call_are_refused(hub: Hub) -> None:
    """Then nothing is stored, also if other results of the chat are good."""
    client = await begin(hub)
    await ask(hub, "c1")
    for parts, code in (
        ([result("c9")], "unknown_tool_call"),
        ([result("c1"), result("c9")], "unknown_tool_call"),
        ([result("c1"), result("c1")], "bad_frame"),
    ):
        assert (await send_results(client, *parts))["code"] == code
    assert len(await list_messages(hub)) == 2
    assert (await send_results(client, result("c1"), sessionId="s2"))["code"] == "unknown_tool_call"


async def test_an_id_may_be_used_again_in_a_later_answer(hub: Hub) -> None:
    """A result belongs to the last call with the id."""
    client = await begin(hub)
    for text in ("one", "two"):
        await ask(hub, "c1")
        await client.until_done()
        assert (await send_results(client, result("c1", text)))["type"] == "accepted"
        answer = await read_answer(client)
        assert answer["results"] == [f"c1={text}"]
    assert [line for line in answer["history"] if line.startswith("tool")] == ["tool:onec1"]


async def test_a_result_may_come_while_its_run_goes_on(hub: Hub, tmp_path: Path) -> None:
    """The new run waits for the end of the run with the call, also with `ifBusy: parallel`, and sees the call."""
    client = await begin(hub)
    gate = tmp_path / "gate"
    parent = await start(hub, f"c1 {gate}")
    await client.until_type("tool_call_end")
    accepted = await send_results(client, result("c1"), ifBusy="parallel")
    assert accepted["status"] == "queued"
    assert (await send_results(client, result("c1")))["code"] == "tool_call_answered"
    gate.touch()
    ends = [await client.until_done() for _ in range(2)]
    assert [end["runId"] for end in ends] == [parent.runId, accepted["runId"]]
    run_started = await client.find(lambda f: f.get("runId") == accepted["runId"] and f["type"] == "run_started")
    assert run_started["parentRunId"] == parent.runId
    answer = json.loads(client.text(accepted["runId"]))
    assert answer["results"] == ["c1=sunny"] and answer["history"][-1] == 'assistant:c1({"city":"Rome"})'
    # Later runs see the result after its call, although it was logged before the message with the call.
    later = json.loads((await ask(hub, "x", Request())).content)
    assert [line for line in later["history"] if "c1" in line][1:3] == ['assistant:c1({"city":"Rome"})', "tool:sunnyc1"]


async def test_a_result_for_another_agent_waits_for_the_run_with_the_call(hub: Hub, tmp_path: Path) -> None:
    """Runs of different agents do not wait for each other otherwise."""
    client = await begin(hub)
    gate = tmp_path / "gate"
    parent = await start(hub, f"c1 {gate}")
    await client.until_type("tool_call_end")
    accepted = await send_results(client, result("c1"), agentId="echo")
    assert accepted["status"] == "queued"
    gate.touch()
    assert [(await client.until_done())["runId"] for _ in range(2)] == [parent.runId, accepted["runId"]]


async def test_an_early_result_belongs_to_the_call_that_comes_later(hub: Hub, tmp_path: Path) -> None:
    """An earlier call with the same id keeps its own result."""
    client = await begin(hub)
    await ask(hub, "c1")
    await client.until_done()
    await send_results(client, result("c1", "one"))
    await client.until_done()
    gate = tmp_path / "gate"
    await start(hub, f"c1 {gate}")
    await client.until(lambda frame: frame["type"] == "tool_call_end")
    assert (await send_results(client, result("c1", "two")))["type"] == "accepted"
    gate.touch()
    await client.until_done()
    await client.until_done()
    history = json.loads((await ask(hub, "x", Request())).content)["history"]
    assert [line for line in history if line.startswith("tool:")] == ["tool:onec1", "tool:twoc1"]


async def test_an_early_result_is_the_only_one_while_an_earlier_call_with_its_id_is_open(
    hub: Hub, tmp_path: Path
) -> None:
    client = await begin(hub)
    await ask(hub, "c1")
    await client.until_done()
    gate = tmp_path / "gate"
    await start(hub, f"c1 {gate}")
    await client.until(lambda frame: frame["type"] == "tool_call_end")
    assert (await send_results(client, result("c1", "one")))["type"] == "accepted"
    assert (await send_results(client, result("c1", "two"))).get("code") == "tool_call_answered"
    gate.touch()
    await client.until_done()
    assert (await read_answer(client))["results"] == ["c1=one"]


async def test_a_result_for_a_run_that_is_rolled_back_is_refused(hub: Hub, tmp_path: Path) -> None:
    """The rollback would remove the call. Nothing happens."""
    client = await begin(hub)
    gate = tmp_path / "gate"
    parent = await start(hub, f"c1 {gate}")
    await client.until_type("tool_call_end")
    refused = await send_results(client, result("c1"), ifBusy="rollback")
    assert refused["code"] == "unknown_tool_call"
    gate.touch()
    assert (await client.until_done())["runId"] == parent.runId
    assert (await send_results(client, result("c1"), ifBusy="rollback"))["type"] == "accepted"


@pytest.mark.parametrize("command", ["regenerate", "edit"])
async def test_a_call_that_was_removed_gets_no_result(hub: Hub, command: str) -> None:
    client = await begin(hub)
    await ask(hub, "c1 ")
    await client.until_done()
    question, _ = await list_messages(hub)
    extra = {"message": "c2"} if command == "edit" else {}
    await client.send(type=command, sessionId="s1", messageId=question["messageId"], **extra)
    await client.until_done()
    removed = await send_results(client, result("c1"))
    assert removed["type"] == ("accepted" if command == "regenerate" else "error")  # regenerate calls c1 again
    if command == "edit":
        assert removed["code"] == "unknown_tool_call"


async def test_results_go_to_another_agent_that_the_chat_names(hub: Hub) -> None:
    client = await begin(hub)
    await ask(hub, "c1")
    accepted = await send_results(client, result("c1"), agentId="echo")
    assert (await client.until_done())["runId"] == accepted["runId"] and client.text(accepted["runId"]) == ""


async def test_a_result_in_a_fork_answers_the_copy_of_the_call(hub: Hub) -> None:
    """The run has no parent there: the copies belong to no run."""
    client = await begin(hub)
    await ask(hub, "c1")
    answer = (await list_messages(hub))[-1]
    await client.send(type="fork", sessionId="s1", messageId=answer["messageId"], newSessionId="s2")
    await client.until_type("subscribed")
    assert (await list_messages(hub, "s2"))[-1]["parts"] == answer["parts"]
    accepted = await send_results(client, result("c1"), sessionId="s2")
    run_started = await client.find(lambda f: f.get("runId") == accepted["runId"] and f["type"] == "run_started")
    assert run_started["agentId"] == "helper" and "parentRunId" not in run_started
    assert (await send_results(client, result("c1")))["type"] == "accepted"


async def test_a_result_over_http_is_like_any_other(hub: Hub) -> None:
    await begin(hub)
    await ask(hub, "c1")
    async with aiohttp.ClientSession(f"{hub.url}/api/v1/") as http:
        body = {"message": "", "parts": [result("c1")]}
        status, reply = await call(http, "POST", "sessions/s1/chat?wait=true", body)
        assert status == 200 and json.loads(reply["content"])["results"] == ["c1=sunny"]
        assert (await call(http, "POST", "sessions/s1/chat", body))[0] == 409
        body["parts"] = [result("c9")]
        assert (await call(http, "POST", "sessions/s1/chat", body))[0] == 404


# --- requests ---------------------------------------------------------------------------------------------------------


async def test_no_client_can_send_a_request_in_a_chat(hub: Hub) -> None:
    """The field is unknown, and so it is ignored, in a frame and over HTTP."""
    client = await begin(hub)
    request = {"tools": [{"name": "get_weather"}], "sampling": {"temperature": 1}}
    await client.send(type="chat", agentId="helper", sessionId="s1", message="c1", request=request)
    assert (await read_answer(client))["tools"] == []
    async with aiohttp.ClientSession(f"{hub.url}/api/v1/") as http:
        body = {"message": "c1", "agentId": "helper", "request": request}
        _, reply = await call(http, "POST", "sessions/s1/chat?wait=true", body)
    assert json.loads(reply["content"])["tools"] == []


async def test_an_agent_without_tools_ignores_them(hub: Hub) -> None:
    """Only a request that requires a tool call is refused, before anything is stored."""
    await begin(hub)
    for choice in (None, "auto", "none"):
        outcome = await ask(hub, "hi", attrs.evolve(REQUEST, tool_choice=choice), agentId="echo")
        assert outcome.content == "hi "
    for choice in ("required", "get_weather"):
        with pytest.raises(ToolsUnsupported, match="agent echo takes no tools"):
            await ask(hub, "hi", attrs.evolve(REQUEST, tool_choice=choice), agentId="echo")
    assert len(await list_messages(hub)) == 6
    assert (await ask(hub, "c1", attrs.evolve(REQUEST, tool_choice="required"))).stopReason == "tool_calls"


async def test_the_request_belongs_to_the_idempotency_key(hub: Hub) -> None:
    await begin(hub)
    first = await start(hub, "x", clientMsgId="m1")
    assert (await start(hub, "x", clientMsgId="m1")).runId == first.runId
    for request in (attrs.evolve(REQUEST, sampling={}), attrs.evolve(REQUEST, state=None), Request()):
        with pytest.raises(IdReused):
            await start(hub, "x", request, clientMsgId="m1")


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (Request(tools=(WEATHER, WEATHER)), "two tools"),
        (Request(tools=(WEATHER,), tool_choice="other"), "no tool for the tool choice 'other'"),
        (Request(tool_choice="required"), "no tool for the tool choice"),
        (Request(state="x" * 2000), "larger than 2000 bytes"),
        (Request(state=[[[[[[[]]]]]]]), "nested deeper than 6"),
        (Request(context=({str(key): 1 for key in range(10)},)), "more than 9 keys"),
        (Request(forwarded=2**70), "an integer is beyond"),
        (Request(state=object()), "not JSON"),
        (Request(sampling={"logit_bias": [[[[[[]]]]]]}), "nested deeper than 6"),
    ],
)
async def test_a_request_outside_the_limits_is_refused(hub: Hub, request_: Request, words: str) -> None:
    """Whichever protocol it comes from, because a value that the log cannot encode would stop all commits."""
    await begin(hub, request_bytes=2000, json_depth=6, object_keys=9)
    with pytest.raises(BadFrame, match=words):
        await ask(hub, "x", request_)


async def test_sampling_may_have_a_long_seed_and_many_keys(hub: Hub) -> None:
    await begin(hub)
    sampling = {"seed": 2**62, "logit_bias": {str(token): 1 for token in range(300)}}
    outcome = await ask(hub, "x", Request(sampling=sampling))
    assert json.loads(outcome.content)["sampling"] == sampling


async def test_another_agent_gets_an_empty_request(hub: Hub) -> None:
    """`run.call` hands over a text, not the client's tools: their results come to the calling agent."""
    hub.agent("caller.py", "async def caller(run):\n    yield await run.call('helper', 'c1')\n")
    await begin(hub)
    answer = json.loads((await ask(hub, "x", agentId="caller")).content)
    assert (answer["tools"], answer["sampling"], answer["state"]) == ([], {}, None)


async def test_a_queued_run_has_its_request_after_a_restart(hub: Hub, tmp_path: Path) -> None:
    await begin(hub)
    await start(hub, str(tmp_path / "never"), agentId="gated")
    request = Request(sampling={"seed": 2**62}, response_format=ResponseFormat(type="json_object"), state=[1])
    accepted = await start(hub, "x", request, ifBusy="enqueue")
    assert accepted.status == "queued"
    await hub.stop()
    await hub.start()
    await eventually(lambda: Key("s1") not in hub.node.sessions or hub.node.sessions[Key("s1")].is_idle)
    answer = json.loads((await list_messages(hub))[-1]["content"])
    assert (answer["sampling"], answer["state"]) == ({"seed": 2**62}, [1])


async def test_a_restarted_run_has_its_request_and_no_old_calls(hub: Hub, tmp_path: Path) -> None:
    """The calls of the first attempt are removed with its message, also from the answer to a repeated chat."""
    hub.agent(
        "again.py",
        """
        import asyncio, pathlib
        from hub import ToolCallEnd, ToolCallStart, agent

        @agent(restartable=True, tools=True)
        async def again(run):
            marker = pathlib.Path(run.message)
            call_id = "second" if marker.exists() else "first"
            yield ToolCallStart(call_id, "get_weather")
            yield ToolCallEnd(call_id)
            if not marker.exists():
                marker.touch()
                await asyncio.Event().wait()
            yield str(sorted(run.request.tool_names))
        """,
    )
    await hub.start()
    client = await hub.connect(extended=True)
    await client.send(type="subscribe", sessionId="s1")
    marker = tmp_path / "marker"
    await start(hub, str(marker), agentId="again", clientMsgId="m1")
    await client.until_type("tool_call_end")
    await eventually(marker.exists)
    await hub.stop()
    await hub.start()
    outcome = await ask(hub, str(marker), agentId="again", clientMsgId="m1")
    assert (outcome.content, outcome.stopReason) == ("['get_weather']", "tool_calls")
    assert [part.toolCallId for part in outcome.toolCalls or ()] == ["second"]
    _, call_message, text = await list_messages(hub)
    assert [part["toolCallId"] for part in call_message["parts"]] == ["second"]
    assert (text["content"], text["stopReason"]) == ("['get_weather']", "tool_calls")


async def open_client(hub: HubProcess) -> Client:
    http = aiohttp.ClientSession()
    ws = await http.ws_connect(f"{hub.url}/api/v1/ws", protocols=("hubbub.v1",), max_msg_size=0)
    return Client(http, ws)


async def test_the_calls_of_a_killed_run_stand_in_the_history(tmp_path: Path) -> None:
    """They can be answered after the next start, like those of any other run."""
    process = HubProcess(tmp_path)
    process.agent("main.py", KILLED)
    await process.start()
    client = await open_client(process)
    await client.send(type="chat", sessionId="s1", message="go")
    run_started = await client.until_type("run_started")
    await client.until(lambda frame: frame.get("toolCallId") == "c3")
    await process.kill()
    await client.close()
    await process.start()
    try:
        client = await open_client(process)
        await client.send(type="subscribe", sessionId="s1", history=9)
        subscribed = await client.until_type("subscribed")
        _, first, second = subscribed["history"]
        assert [(part["type"], part["toolCallId"]) for part in first["parts"]] == [("tool_call", "c1")]
        assert first["messageId"] == run_started["messageId"]
        assert [(part["type"], part["toolCallId"]) for part in second["parts"]] == [
            ("tool_call", "c2"),
            ("tool_result", "c2"),
            ("tool_call", "c3"),
        ]
        assert (first["content"], second["content"], second["stopReason"]) == ("", "text", "aborted")
        assert (await send_results(client, result("c1", "late")))["type"] == "accepted"
        end = await client.until_done()
        assert client.text(end["runId"]) == "late"
        await client.close()
    finally:
        await process.kill()


async def test_a_run_that_is_killed_twice_has_the_calls_of_its_last_attempt(tmp_path: Path) -> None:
    """Those of the first attempt were removed with its messages."""
    process = HubProcess(tmp_path)
    process.agent("main.py", KILLED.replace("@agent(", "@agent(restartable=True, "))
    await process.start()
    try:
        client = await open_client(process)
        await client.send(type="chat", sessionId="s1", message="go")
        for attempt in (1, 2):
            run_started = await client.until_type("run_started")
            assert run_started["attempt"] == attempt
            await client.until(lambda frame: frame.get("toolCallId") == "c3")
            await process.kill()
            await client.close()
            await process.start()
            client = await open_client(process)
            await client.send(type="subscribe", sessionId="s1", afterSeq=run_started["seq"])
        await client.until_done()
        await client.send(type="subscribe", sessionId="s1", history=9, ref="h")
        _, first, second = (await client.until(lambda frame: frame.get("ref") == "h"))["history"]
        assert first["messageId"] == run_started["messageId"]
        assert [part["toolCallId"] for part in (*first["parts"], *second["parts"])] == ["c1", "c2", "c2", "c3"]
        await client.close()
    finally:
        await process.kill()


async def test_a_new_answer_has_the_request_of_its_message(hub: Hub) -> None:
    """Whoever regenerates or edits sees the answer, and not its request: the new answer has the same one."""
    client = await begin(hub)
    await ask(hub, "x", Request(sampling={"seed": 3}, state=[1]))
    await client.until_done()
    for command in ("regenerate", "edit"):
        question = (await list_messages(hub))[0]
        extra = {"message": "y"} if command == "edit" else {}
        await client.send(type=command, sessionId="s1", messageId=question["messageId"], **extra)
        answer = await read_answer(client)
        assert (answer["sampling"], answer["state"]) == ({"seed": 3}, [1])


async def test_an_answer_to_results_is_regenerated_with_its_parent(hub: Hub) -> None:
    """An edit that replaces the results may have results of the same calls."""
    client = await begin(hub)
    parent = await ask(hub, "c1")
    await client.until_done()
    await send_results(client, result("c1"))
    await client.until_done()
    message = (await list_messages(hub))[2]
    await client.send(type="regenerate", sessionId="s1", messageId=message["messageId"])
    run_started = await client.until_type("run_started")
    assert run_started["parentRunId"] == parent.runId
    assert (await read_answer(client))["tools"] == ["get_weather"]
    await client.send(
        type="edit", sessionId="s1", messageId=message["messageId"], message="", parts=[result("c1", "rain")]
    )
    run_started = await client.until_type("run_started")
    assert run_started["parentRunId"] == parent.runId
    answer = await read_answer(client)
    assert (answer["results"], answer["tools"]) == (["c1=rain"], ["get_weather"])
    page = await hub.node.log.sessions.list_messages(Key("s1"), PageRequest(9))
    assert [len(message.parts or ()) for message in page.rows] == [0, 1, 1, 0]


async def test_the_example_of_the_page_about_agents_works(hub: Hub) -> None:
    """The docs test runs it without a request; here it has the tool."""
    (block,) = [block for block in of_kind(DOCS["agents"], "python", "agent=forecast")]
    hub.agent("forecast.py", block.text)
    await hub.start()
    outcome = await ask(hub, "Weather?", agentId="forecast")
    (call_part,) = outcome.toolCalls or ()
    assert (outcome.stopReason, call_part.toolCallName) == ("tool_calls", "get_weather")
    client = await hub.connect(extended=True)
    await send_results(client, result(call_part.toolCallId, "22 degrees"))
    end = await client.until_done()
    assert client.text(end["runId"]) == "The weather: 22 degrees."


async def test_a_request_may_come_with_a_command_of_a_client(hub: Hub) -> None:
    """A wire protocol of another package may decode frames to chats with requests."""
    client = await begin(hub)
    handle = hub.door.clients.list_of("local")[0]
    await table.receive(handle, make_chat("x", Request(sampling={"seed": 5})))
    assert (await read_answer(client))["sampling"] == {"seed": 5}
    assert await table.list_messages(hub.door, LOCAL, "s1", PageRequest(9))
