"""The event envelope: the events of the log in another format."""

from pathlib import Path
from typing import Any

import aiohttp
import pytest
from support.agents import EVERYTHING
from support.envelope import connect_envelope, text
from support.hub import Hub


def status(event: str) -> Any:
    return lambda frame: frame["type"] == "status" and frame["payload"]["event"] == event


@pytest.mark.parametrize("path, protocols", [("agents/echo/ws", ()), ("ws?agentId=echo", ("hubbub.events",))])
async def test_an_answer_arrives_in_envelopes(hub: Hub, path: str, protocols: tuple[str, ...]) -> None:
    """A chat without an agent goes to the agent of the URL; all frames have one shape."""
    await hub.start()
    client = await connect_envelope(hub, path, *protocols)
    await client.until(status("welcome"))
    await client.send(type="chat", message="hello there")
    done = await client.until(lambda frame: frame["type"] == "done")
    assert text(client.frames) == "hello there " and done["payload"]["stopReason"] == "end_turn"
    assert all(
        frame.keys() - {"id"} == {"type", "agentId", "taskId", "timestamp", "payload"} for frame in client.frames
    )
    assert len({frame["taskId"] for frame in client.frames if frame["type"] in ("text", "done")}) == 1
    assert done["agentId"] == "echo" and done["timestamp"].endswith("Z")


async def test_a_connection_lost_in_mid_answer_loses_nothing(hub: Hub, tmp_path: Path) -> None:
    """The client resumes with the id of the last frame; a client of another protocol receives the same events."""
    await hub.start()
    other = await hub.connect("?sessionId=s1", extended=True)
    client = await connect_envelope(hub, "agents/gated/ws?sessionId=s1")
    await client.send(type="chat", message=str(tmp_path / "gate"))
    last = await client.until(lambda frame: frame["type"] == "text")
    await client.close()
    (tmp_path / "gate").touch()
    epoch, _, seq = last["id"].partition(":")
    again = await connect_envelope(hub, f"agents/gated/ws?sessionId=s1&epoch={epoch}&afterSeq={seq}")
    await again.until(lambda frame: frame["type"] == "done")
    await other.until_done()
    assert text(client.frames) + text(again.frames) == "one two" == other.text()


async def test_every_event_has_its_envelope_type(hub: Hub) -> None:
    """Reasoning, tools, progress and results have their own types; other events are a status with their name."""
    hub.agent("everything.py", EVERYTHING)
    await hub.start()
    client = await connect_envelope(hub, "agents/everything/ws?sessionId=s1")
    await client.send(type="chat", message="x")
    await client.until(lambda frame: frame["type"] == "done")
    log_frames = [frame for frame in client.frames if "id" in frame]
    types = [frame["type"] for frame in log_frames]
    assert types[2:-1] == [
        *("text", "think", "think", "text", "think", "status", "tool", "tool", "tool", "tool", "tool_result"),
        *("status", "progress", "status", "status", "status", "text"),
    ]
    named = [frame["payload"]["event"] for frame in log_frames if frame["type"] in ("status", "tool")]
    assert named[:2] == ["user_message", "run_started"] and named[-3:] == ["custom", "state_snapshot", "state_delta"]
    assert [int(frame["id"].rpartition(":")[2]) for frame in log_frames] == list(range(1, len(log_frames) + 1))


async def test_errors_of_runs_and_commands_are_sent(hub: Hub) -> None:
    """Each error has a code; an unknown agent in the URL gets 404 before the upgrade."""
    hub.agent("failing.py", "async def failing(message: str):\n    raise ValueError(message)\n    yield")
    await hub.start()
    client = await connect_envelope(hub, "agents/failing/ws?sessionId=s1")
    await client.send(type="nonsense")
    refused = await client.until(lambda frame: frame["type"] == "error")
    await client.send(type="chat", message="x")
    failed = await client.until(lambda frame: frame["type"] == "error")
    done = await client.until(lambda frame: frame["type"] == "done")
    assert (refused["payload"]["code"], "id" in refused) == ("unknown_type", False)
    assert (failed["payload"]["code"], "id" in failed) == ("agent_error", True)
    assert done["payload"]["stopReason"] == "error" and failed["taskId"] == done["taskId"]
    with pytest.raises(aiohttp.WSServerHandshakeError) as unknown:
        await connect_envelope(hub, "agents/nobody/ws")
    assert unknown.value.status == 404


async def test_a_whole_message_comes_before_the_frame_with_the_id(hub: Hub) -> None:
    """A connection lost between the two loses nothing."""
    await hub.start()
    client = await connect_envelope(hub, "agents/echo/ws?sessionId=s1&stream=false")
    await client.send(type="chat", message="hello there")
    done = await client.until(lambda frame: frame["type"] == "done")
    assert text(client.frames) == "hello there " and "id" in done
    assert "id" not in next(frame for frame in client.frames if frame["type"] == "text")
