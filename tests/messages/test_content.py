"""Events other than text are stored and sent like text, but not to plain clients."""

from typing import Any

import pytest
from support.agents import EVERYTHING
from support.hub import Hub

from hub.ids import Key
from hub.node.history import read_history

EXPECTED: list[tuple[str, dict[str, Any]]] = [
    ("stream", {"content": "before "}),
    ("reasoning", {"delta": "I "}),
    ("reasoning", {"delta": "think"}),
    ("stream", {"content": "between "}),
    ("reasoning", {"delta": "again"}),
    ("step_started", {"stepName": "look"}),
    ("tool_call_start", {"toolCallId": "c1", "toolCallName": "search"}),
    ("tool_call_args", {"toolCallId": "c1", "delta": '{"q":'}),
    ("tool_call_args", {"toolCallId": "c1", "delta": "1}"}),
    ("tool_call_end", {"toolCallId": "c1"}),
    ("tool_call_result", {"toolCallId": "c1", "content": "nothing", "isError": True}),
    ("step_finished", {"stepName": "look"}),
    ("progress", {"progress": 0.5, "message": "half"}),
    ("custom", {"name": "mine", "value": {"a": [1, None]}}),
    ("state_snapshot", {"snapshot": {"n": 1}}),
    ("state_delta", {"delta": [{"op": "replace", "path": "/n", "value": 2}]}),
    ("stream", {"content": "after"}),
]


def comparable(frames: list[dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    """Return type and known fields of the frames whose type EXPECTED contains, in order."""
    kinds, fields = {kind for kind, _ in EXPECTED}, {field for _, one in EXPECTED for field in one}
    return [(f["type"], {k: v for k, v in f.items() if k in fields}) for f in frames if f["type"] in kinds]


async def test_each_event_type_arrives_in_order_live_late_and_after_a_restart(hub: Hub) -> None:
    """The fields stay the same. Deltas of one reasoning share a messageId; each block of text has its own."""
    hub.agent("everything.py", EVERYTHING)
    await hub.start()
    live = await hub.connect("?sessionId=s1", extended=True)
    await live.send(type="chat", agentId="everything", sessionId="s1", message="x")
    await live.until_done()
    late = await hub.connect("?sessionId=s1&afterSeq=0", extended=True)
    await late.until_done()
    assert comparable(live.frames) == comparable(late.frames) == EXPECTED
    thoughts = [frame["messageId"] for frame in live.frames if frame["type"] == "reasoning"]
    texts = [frame["messageId"] for frame in live.frames if frame["type"] == "stream"]
    assert thoughts[0] == thoughts[1] != thoughts[2] and len({*thoughts, *texts}) == 5
    await hub.stop()
    await hub.start()
    again = await hub.connect("?sessionId=s1&afterSeq=0", extended=True)
    await again.until_done()
    assert comparable(again.frames) == EXPECTED
    messages = await read_history(hub.node, Key("s1"), 100)
    assert [message["content"] for message in messages] == ["x", "before ", "between ", "after"]


async def test_a_plain_client_receives_only_text(hub: Hub) -> None:
    """Its frames contain no other event."""
    hub.agent("everything.py", EVERYTHING)
    await hub.start()
    plain = await hub.connect("?sessionId=s1")
    await plain.send(type="chat", agentId="everything", sessionId="s1", message="x")
    await plain.until_done()
    assert {frame["type"] for frame in plain.frames} == {"stream"} and plain.text() == "before between after"


async def test_an_agent_that_calls_another_receives_only_text(hub: Hub) -> None:
    """The other events of the called agent do not reach its caller."""
    hub.agent("everything.py", EVERYTHING)
    hub.agent("asks.py", 'async def asks(run):\n    yield await run.call("everything", run.message)')
    await hub.start()
    client = await hub.connect("?sessionId=s1", extended=True)
    await client.send(type="chat", agentId="asks", sessionId="s1", message="x")
    await client.until_done()
    assert comparable(client.frames) == [("stream", {"content": "before between after"})]


@pytest.mark.parametrize(
    "piece, code",
    [
        ("Progress(2)", "agent_bad_output"),
        ('Progress("half")', "agent_bad_output"),
        ("Reasoning(7)", "agent_bad_output"),
        (r'Reasoning("\ud800")', "agent_bad_output"),
        ('Custom("mine", object())', "agent_bad_output"),
        ('Custom("mine", 2**70)', "agent_bad_output"),
        ('StateDelta("x")', "agent_bad_output"),
        ('Custom("mine", "x" * 300_000)', "answer_too_long"),
    ],
)
async def test_output_that_cannot_be_stored_ends_only_its_run(hub: Hub, piece: str, code: str) -> None:
    """The earlier text of the run stays; another session continues."""
    hub.agent("bad.py", f"from hub import *\n\nasync def bad(message: str):\n    yield 'one '\n    yield {piece}\n")
    await hub.start()
    bad, good = await hub.connect("?sessionId=s1", extended=True), await hub.connect("?sessionId=s2")
    await bad.send(type="chat", agentId="bad", sessionId="s1", message="x")
    await good.send(type="chat", agentId="echo", sessionId="s2", message="hello")
    assert (await bad.until_type("run_error"))["code"] == code
    assert (await bad.until_done())["stopReason"] == "error" and bad.text() == "one "
    await good.until_done()
    assert good.text() == "hello "
