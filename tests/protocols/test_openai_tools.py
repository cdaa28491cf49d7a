"""Tools, structured output, images and reasoning over OpenAI's chat completions, in a session and in none."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import openai
import pytest
from openai import AsyncOpenAI
from support.hub import Hub
from support.tools import HELPER
from support.waiting import PATIENCE

from hub.ids import Key
from hub.node.history import read_history

# Thinks, calls two tools of its own, one of which has no result, then two of the client; answers the results.
CALLER = """
from hub import Reasoning, ToolCallArgs, ToolCallEnd, ToolCallResult, ToolCallStart, agent

@agent(tools=True)
async def caller(run):
    results = [(part["toolCallId"], part["content"]) for part in run.parts if part["type"] == "tool_result"]
    if results or not run.request.tools:
        yield f"{run.message}{results}"
        return
    yield Reasoning("let me ")
    yield Reasoning("see")
    yield "I look. "
    yield ToolCallStart("own", "search")
    yield ToolCallArgs("own", "{}")
    yield ToolCallEnd("own")
    yield ToolCallResult("own", "found")
    yield ToolCallStart("own-2", "note")
    yield ToolCallEnd("own-2")
    for call_id, name, pieces in (("c1", "weather", ('{"city"', ': "Rome"}')), ("c2", "now", ())):
        yield ToolCallStart(call_id, name)
        for piece in pieces:
            yield ToolCallArgs(call_id, piece)
        yield ToolCallEnd(call_id)
"""
# Says what it gets, as JSON.
MIRROR = """
import attrs, json
from hub import agent

{mark}
async def {name}(run):
    names = ("role", "content", "parts", "tool_call_id")
    history = [
        {{name: getattr(past, name) for name in names if getattr(past, name)}}
        | {{"calls": [attrs.astuple(call) for call in past.tool_calls]}}
        for past in run.history
    ]
    request = attrs.asdict(run.request)
    yield json.dumps({{"message": run.message, "parts": list(run.parts), "history": history, "request": request}})
"""
TOOLS: list[Any] = [
    {"type": "function", "function": {"name": "weather", "description": "of a city", "parameters": {"type": "object"}}},
    {"type": "function", "function": {"name": "now", "strict": True}},
]
CALLS: list[Any] = [
    {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Rome"}'}},
    {"id": "c2", "type": "function", "function": {"name": "now", "arguments": "{}"}},
]
RESULTS: list[Any] = [
    {"role": "tool", "tool_call_id": "c1", "content": "sunny"},
    {"role": "tool", "tool_call_id": "c2", "content": [{"type": "text", "text": "noon"}]},
]
QUESTION: Any = {"role": "user", "content": "how is it?"}
SESSIONS = pytest.mark.parametrize("session", [{}, {"sessionId": "s1"}], ids=["no session", "session"])


@pytest.fixture
async def served(hub: Hub) -> Hub:
    hub.agent("caller.py", CALLER)
    hub.agent("helper.py", HELPER)
    hub.agent("mirror.py", MIRROR.format(name="mirror", mark="@agent(tools=True)"))
    hub.agent("plain.py", MIRROR.format(name="plain", mark="@agent"))
    return await hub.start()


@pytest.fixture
async def client(served: Hub) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{served.url}/v1", api_key="any", max_retries=0, timeout=PATIENCE) as client:
        yield client


async def mirror(hub: Hub, messages: list[Any], model: str = "mirror", **fields: Any) -> Any:
    """Return what the agent gets of a request."""
    async with aiohttp.ClientSession() as http, asyncio.timeout(PATIENCE):
        body = {"model": model, "messages": messages} | fields
        async with http.post(f"{hub.url}/v1/chat/completions", json=body) as answer:
            text = await answer.text()
            assert answer.status == 200, text
            return json.loads(json.loads(text)["choices"][0]["message"]["content"])


@SESSIONS
async def test_a_whole_answer_has_the_calls_of_the_clients_tools(client: AsyncOpenAI, session: dict[str, str]) -> None:
    """Not those that the agent has run itself. Arguments are JSON, also if the agent gave none."""
    answer = await client.chat.completions.create(model="caller", messages=[QUESTION], tools=TOOLS, extra_body=session)
    (choice,) = answer.choices
    message = choice.message.to_dict()
    assert choice.finish_reason == "tool_calls" and message["tool_calls"] == CALLS
    assert message["content"] == "I look. " and message["reasoning_content"] == "let me see"


@SESSIONS
@pytest.mark.parametrize("stream", [False, True])
async def test_calls_and_results_count_for_an_estimate_of_tokens(
    client: AsyncOpenAI, session: dict[str, str], stream: bool
) -> None:
    """Calls by their names and arguments: those of the answer, and then those of the history."""

    async def count(messages: list[Any]) -> dict[str, int]:
        request: Any = {"model": "caller", "messages": messages, "tools": TOOLS, "extra_body": session}
        if not stream:
            return dict((await client.chat.completions.create(**request)).usage.to_dict())
        chunks = await client.chat.completions.create(**request, stream=True, stream_options={"include_usage": True})
        return dict([chunk async for chunk in chunks][-1].usage.to_dict())

    # how is it? -> I look. weather{"city": "Rome"}now{}
    assert await count([QUESTION]) == {
        "prompt_tokens": 3,
        "completion_tokens": 9,
        "total_tokens": 12,
        "estimated": 12,
    }
    history = [QUESTION, {"role": "assistant", "content": "I look. ", "tool_calls": CALLS}, *RESULTS]
    assert (await count(history))["prompt_tokens"] == 14  # the above, and sunnynoon


@SESSIONS
async def test_two_calls_with_one_id_in_an_answer_have_ids_of_their_own(
    client: AsyncOpenAI, session: dict[str, str]
) -> None:
    """The arguments of each are whole."""
    tool: Any = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}
    answer = await client.chat.completions.create(
        model="helper", messages=[{"role": "user", "content": "c1 c1"}], tools=[tool], extra_body=session
    )
    calls: Any = answer.choices[0].message.to_dict()["tool_calls"]
    assert [(call["id"], call["function"]["arguments"]) for call in calls] == [
        ("c1", '{"city":"Rome"}'),
        ("c1-2", '{"city":"Rome"}'),
    ]


@SESSIONS
async def test_a_stream_has_the_calls_in_pieces(client: AsyncOpenAI, session: dict[str, str]) -> None:
    """OpenAI's client joins them; each call has one index."""
    arguments: list[tuple[int, str]] = []
    async with client.chat.completions.stream(
        model="caller", messages=[QUESTION], tools=TOOLS, extra_body=session
    ) as stream:
        async for event in stream:
            if event.type == "chunk":
                for call in (event.chunk.choices[0].delta.tool_calls or ()) if event.chunk.choices else ():
                    assert call.function is not None
                    arguments.append((call.index, call.function.arguments or ""))
        answer = await stream.get_final_completion()
    (choice,) = answer.choices
    calls = [(call.id, call.function.name, call.function.arguments) for call in choice.message.tool_calls or ()]
    assert calls == [(call["id"], *call["function"].values()) for call in CALLS]
    assert choice.finish_reason == "tool_calls" and choice.message.content == "I look. "
    pieces = [piece for index, piece in arguments if index == 0]
    assert "".join(pieces) == '{"city": "Rome"}' and {index for index, _ in arguments} == {0, 1}
    if not session:  # in a session, neighbours in the log are joined
        assert pieces == ["", '{"city"', ': "Rome"}']


@SESSIONS
async def test_reasoning_streams_before_the_text(client: AsyncOpenAI, session: dict[str, str]) -> None:
    stream = await client.chat.completions.create(
        model="caller", messages=[QUESTION], tools=TOOLS, stream=True, extra_body=session
    )
    deltas = [chunk.choices[0].delta.to_dict() async for chunk in stream]
    names = ("reasoning_content", "content")
    texts = [(name, str(delta[name])) for delta in deltas for name in names if delta.get(name)]
    thoughts = [text for name, text in texts if name == "reasoning_content"]
    assert "".join(thoughts) == "let me see" and texts[-1] == ("content", "I look. ")


async def test_the_results_are_the_next_question(served: Hub) -> None:
    """The agent gets them as parts, after the message with the calls."""
    call = {"role": "assistant", "content": None, "tool_calls": CALLS}
    seen = await mirror(served, [QUESTION, call, *RESULTS], tools=TOOLS)
    assert seen["message"] == "" and seen["parts"] == [
        {"type": "tool_result", "toolCallId": "c1", "content": "sunny"},
        {"type": "tool_result", "toolCallId": "c2", "content": "noon"},
    ]
    assert seen["history"] == [
        {"role": "user", "content": "how is it?", "calls": []},
        {"role": "assistant", "calls": [["c1", "weather", '{"city": "Rome"}'], ["c2", "now", "{}"]]},
    ]


async def test_older_results_are_in_the_history(served: Hub) -> None:
    """The roles of OpenAI, past and present: a `function` has its result by its name."""
    messages = [
        {"role": "developer", "content": "be short"},
        {"role": "system", "content": [{"type": "text", "text": "be kind"}]},
        {"role": "assistant", "content": None, "refusal": "no"},
        {"role": "assistant", "content": "", "function_call": {"name": "now", "arguments": ""}},
        {"role": "function", "name": "now", "content": "noon"},
        {"role": "assistant", "content": "so", "tool_calls": [CALLS[0]]},
        RESULTS[0],
        {"role": "user", "content": "thanks"},
    ]
    seen = await mirror(served, messages)
    assert seen["message"] == "thanks" and seen["parts"] == []
    assert seen["history"] == [
        {"role": "system", "content": "be short", "calls": []},
        {"role": "system", "content": "be kind", "calls": []},
        {"role": "assistant", "content": "no", "calls": []},
        {"role": "assistant", "calls": [["now", "now", ""]]},
        {"role": "tool", "content": "noon", "tool_call_id": "now", "calls": []},
        {"role": "assistant", "content": "so", "calls": [["c1", "weather", '{"city": "Rome"}']]},
        {"role": "tool", "content": "sunny", "tool_call_id": "c1", "calls": []},
    ]


async def test_an_agent_without_tools_gets_a_history_without_them(served: Hub) -> None:
    """It would not know them. A request that only offers tools is no error."""
    call = {"role": "assistant", "content": None, "tool_calls": CALLS}
    told = {"role": "assistant", "content": "so", "tool_calls": CALLS}
    seen = await mirror(served, [QUESTION, call, *RESULTS, told, *RESULTS, QUESTION], "plain", tools=TOOLS)
    assert seen["history"] == [
        {"role": "user", "content": "how is it?", "calls": []},
        {"role": "assistant", "content": "so", "calls": []},
    ]


@pytest.mark.parametrize(
    ("messages", "message", "roles"),
    [
        ([QUESTION, {"role": "assistant", "content": "it is"}], "", ["user", "assistant"]),
        ([QUESTION, {"role": "system", "content": "be short"}], "be short", ["user"]),
        ([{"role": "developer", "content": "be short"}], "be short", []),
    ],
)
async def test_the_last_message_may_be_of_any_role(
    served: Hub, messages: list[Any], message: str, roles: list[str]
) -> None:
    """An assistant's message is to be continued: it is in the history, and nothing is new."""
    seen = await mirror(served, messages)
    assert (seen["message"], [past["role"] for past in seen["history"]]) == (message, roles)


@SESSIONS
async def test_the_agent_gets_what_the_client_asks_for(served: Hub, session: dict[str, str]) -> None:
    """Tools, the choice of a tool, the form of the answer, and the sampling in OpenAI's names."""
    schema = {"type": "object", "properties": {"n": {"type": "integer", "maximum": 2**63 - 1}}}
    sampling: dict[str, Any] = {"temperature": 0, "top_p": 0.5, "max_completion_tokens": 9, "seed": 2**63}
    sampling |= {"stop": ["x"]}
    sampling |= {"logit_bias": {str(n): -100 for n in range(300)}, "parallel_tool_calls": False}
    seen = await mirror(
        served,
        [QUESTION],
        **session,
        **sampling,
        tools=TOOLS,
        tool_choice={"type": "function", "function": {"name": "now"}},
        response_format={"type": "json_schema", "json_schema": {"name": "count", "schema": schema, "strict": True}},
        user="ann",
        store=True,
    )
    request = {name: value for name, value in seen["request"].items() if value}
    assert request == {
        "tools": [
            {"name": "weather", "description": "of a city", "parameters": {"type": "object"}, "strict": None},
            {"name": "now", "description": "", "parameters": None, "strict": True},
        ],
        "tool_choice": "now",
        "response_format": {
            "type": "json_schema",
            "name": "count",
            "description": "",
            "schema": schema,
            "strict": True,
        },
        "sampling": sampling,
    }


@SESSIONS
@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "now"}}])
async def test_a_required_tool_needs_an_agent_that_takes_tools(
    client: AsyncOpenAI, session: dict[str, str], choice: Any
) -> None:
    with pytest.raises(openai.BadRequestError) as refusal:
        await client.chat.completions.create(
            model="echo", messages=[QUESTION], tools=TOOLS, tool_choice=choice, extra_body=session
        )
    assert (refusal.value.code, refusal.value.param) == ("tools_unsupported", "tool_choice")


@SESSIONS
async def test_images_sound_and_files_are_parts(served: Hub, session: dict[str, str]) -> None:
    content = [
        {"type": "text", "text": "what "},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,QUJD", "detail": "low"}},
        {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}},
        {"type": "input_audio", "input_audio": {"data": "QUJD", "format": "wav"}},
        {"type": "file", "file": {"file_data": "data:application/pdf;base64,QUJD", "filename": "a.pdf"}},
        {"type": "file", "file": {"file_id": "file-1"}},
        {"type": "text", "text": "is this?"},
    ]
    seen = await mirror(served, [{"role": "user", "content": content}], **session)
    assert seen["message"] == "what is this?" and seen["parts"] == [
        {"type": "text", "text": "what "},
        {
            "type": "image",
            "source": {"type": "data", "value": "QUJD", "mimeType": "image/png"},
            "metadata": {"detail": "low"},
        },
        {"type": "image", "source": {"type": "url", "value": "https://example.org/a.png"}},
        {"type": "audio", "source": {"type": "data", "value": "QUJD", "mimeType": "audio/wav"}},
        {"type": "binary", "mimeType": "application/pdf", "data": "QUJD", "filename": "a.pdf"},
        {"type": "document", "source": {"type": "file", "value": "file-1"}},
        {"type": "text", "text": "is this?"},
    ]


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,!!"}},
        {"type": "image_url"},
        {"type": "video_url", "video_url": {"url": "https://example.org/a.mp4"}},
        {"type": "file", "file": {"file_data": "QUJD"}},
    ],
)
async def test_a_malformed_part_is_refused_by_name(client: AsyncOpenAI, part: Any) -> None:
    with pytest.raises(openai.BadRequestError) as refusal:
        await client.chat.completions.create(model="echo", messages=[QUESTION, {"role": "user", "content": [part]}])
    assert refusal.value.param == "messages[1].content"


# --- in a session -----------------------------------------------------------------------------------------------------


async def ask(hub: Hub, messages: list[Any], **fields: Any) -> tuple[int, Any]:
    async with aiohttp.ClientSession() as http, asyncio.timeout(PATIENCE):
        body = {"model": "caller", "sessionId": "s1", "messages": messages, "tools": TOOLS} | fields
        async with http.post(f"{hub.url}/v1/chat/completions", json=body) as answer:
            return answer.status, await answer.json()


def text_of(answer: Any) -> str:
    return str(answer["choices"][0]["message"]["content"])


@pytest.mark.parametrize("stream", [False, True])
async def test_results_continue_the_session(client: AsyncOpenAI, served: Hub, stream: bool) -> None:
    """They are one message of the session, and the new run belongs to the run with the calls."""
    listener = await served.connect("?sessionId=s1", extended=True)
    _, first = await ask(served, [QUESTION])
    message = first["choices"][0]["message"]
    messages: Any = [QUESTION, message, *RESULTS]
    request: Any = {"model": "caller", "messages": messages, "tools": TOOLS, "extra_body": {"sessionId": "s1"}}
    if stream:
        chunks = [chunk async for chunk in await client.chat.completions.create(stream=True, **request)]
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    else:
        text = (await client.chat.completions.create(**request)).choices[0].message.content or ""
    assert text == "[('c1', 'sunny'), ('c2', 'noon')]"
    first_end, last_end = [await listener.until_done() for _ in range(2)]
    assert (first_end["stopReason"], last_end["stopReason"]) == ("tool_calls", "end_turn")
    start = [frame for frame in listener.frames if frame["type"] == "run_started"][-1]
    assert start["parentRunId"] == first_end["runId"]
    results = (await read_history(served.node, Key("s1"), 9))[-2]
    assert results["role"] == "user" and [part["content"] for part in results["parts"]] == ["sunny", "noon"]


async def test_results_before_a_text_come_with_it(served: Hub) -> None:
    """Some clients send the results of the last calls with the next question."""
    _, first = await ask(served, [QUESTION])
    conversation = [QUESTION, first["choices"][0]["message"], *RESULTS]
    status, answer = await ask(served, [*conversation, {"role": "user", "content": "and? "}])
    assert (status, text_of(answer)) == (200, "and? [('c1', 'sunny'), ('c2', 'noon')]")


@pytest.mark.parametrize("key", [{}, {"clientMsgId": "k1"}])
async def test_results_that_the_session_has_are_left_out(served: Hub, key: dict[str, str]) -> None:
    """As after an answer to the results that failed, so that the client does not have it."""
    _, first = await ask(served, [QUESTION])
    conversation = [QUESTION, first["choices"][0]["message"], *RESULTS]
    await ask(served, conversation)
    for _ in range(2 if key else 1):
        status, answer = await ask(served, [*conversation, {"role": "user", "content": "and? "}], tools=None, **key)
        assert (status, text_of(answer)) == (200, "and? []")
    assert len(await read_history(served.node, Key("s1"), 20)) == 6
    status, answer = await ask(served, conversation)
    assert (status, answer["error"]["code"]) == (422, "tool_call_answered")


async def test_a_result_of_an_unknown_call_is_refused(served: Hub) -> None:
    """The session has no call with this id."""
    status, answer = await ask(served, [QUESTION, *RESULTS])
    assert (status, answer["error"]["code"]) == (404, "unknown_tool_call")


async def test_a_session_has_nothing_to_continue(served: Hub) -> None:
    """Its history is the hub's, not the client's."""
    status, answer = await ask(served, [QUESTION, {"role": "assistant", "content": "it is"}])
    assert (status, answer["error"]["param"]) == (400, "messages")


async def test_a_key_covers_tools_and_parts(served: Hub) -> None:
    """The same key with other tools is another request."""
    for _ in range(2):
        status, answer = await ask(served, [QUESTION], clientMsgId="k1")
        assert status == 200 and answer["choices"][0]["message"]["tool_calls"] == CALLS
    status, answer = await ask(served, [QUESTION], clientMsgId="k1", tools=TOOLS[:1])
    assert (status, answer["error"]["code"]) == (422, "id_reused")
    assert len(await read_history(served.node, Key("s1"), 9)) == 2
