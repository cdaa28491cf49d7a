"""What comes out of the streams of many endpoints: the files in `streams`, each in the dialect that it names.

They are written by hand after public documentation and reports of bugs. The first line of a file is a comment that says
what it is, the second what must come out of it; the endpoint sends the rest, byte for byte.
"""

import json
from pathlib import Path
from typing import Any

import attrs
import pytest
import structlog
from support.hub import Hub
from support.model_endpoint import PATHS, Stranger, ask, body, run

from hub.adapters import openai_chat
from hub.adapters.chat_options import Options
from hub.errors import AgentError
from hub.hosting.contract import AgentOutput, Finish
from hub.messages import Reasoning, ToolCallArgs, ToolCallEnd, ToolCallStart, Usage

FILES = sorted((Path(__file__).parent / "streams").glob("*.sse"))
TOML = """
adapter = "openai_chat"
base_url = "{url}"
retries = 0
"""


@attrs.define
class Recording:
    """One file; *gives* holds `text`, `thoughts`, `calls`, and `reason` with `usage`, or the code of the `error`."""

    about: str
    gives: dict[str, Any]
    data: bytes

    def reply(self, size: int) -> Any:
        kind, then = self.gives.get("type", "text/event-stream"), self.gives.get("then", "end")
        return body(self.data, kind, then, size)


def recording(path: Path) -> Recording:
    about, gives, data = path.read_bytes().split(b"\n", 2)
    return Recording(about.decode(), json.loads(gives.removeprefix(b": gives ")), data)


def summary(pieces: list[AgentOutput]) -> dict[str, Any]:
    """Return pieces in the form of a recording's `gives`."""
    calls = {piece.toolCallId: [piece.toolCallName, ""] for piece in pieces if isinstance(piece, ToolCallStart)}
    for piece in pieces:
        if isinstance(piece, ToolCallArgs):
            calls[piece.toolCallId][1] += piece.delta
    said: dict[str, Any] = {"text": "".join(piece for piece in pieces if isinstance(piece, str))}
    if thoughts := "".join(piece.delta for piece in pieces if isinstance(piece, Reasoning)):
        said["thoughts"] = thoughts
    if calls:
        said["calls"] = [[call_id, *call] for call_id, call in calls.items()]
    if pieces and isinstance(pieces[-1], Finish):
        assert [piece.toolCallId for piece in pieces if isinstance(piece, ToolCallEnd)] == [*calls]
        said |= {"reason": pieces[-1].reason, "usage": counts(pieces[-1].usage)}
    return said


def counts(usage: Usage | None) -> list[int | None] | None:
    return None if usage is None else [usage.inputTokens, usage.outputTokens]


@pytest.mark.parametrize("size", [7, 1 << 20], ids=["in pieces", "at once"])
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
async def test_a_stream(stranger: Stranger, path: Path, size: int) -> None:
    """What must come out comes out, however the bytes are cut; what ends in an error is heard up to there."""
    file = recording(path)
    stranger.replies = [file.reply(size)]
    pieces: list[AgentOutput] = []
    said: dict[str, Any] = {}
    with structlog.testing.capture_logs() as logged:
        async with openai_chat.open(Options(base_url=stranger.url, retries=0), PATHS) as answer:
            try:
                async for piece in answer(run()):
                    pieces.append(piece)
            except AgentError as error:
                said["error"] = error.code
    said |= summary(pieces)
    assert said == {name: value for name, value in file.gives.items() if name not in ("type", "then", "word")}
    assert [line["finish_reason"] for line in logged if "finish_reason" in line] == list(
        filter(None, [file.gives.get("word")])
    )


def test_each_file_says_what_it_is() -> None:
    """There are many, and each has its comment and its own name in it."""
    files = [recording(path) for path in FILES]
    assert len(files) >= 40
    assert all(file.about.startswith(": ") and len(file.about) > 20 for file in files)
    assert len({file.about for file in files}) == len(files)


async def test_the_hub_says_what_the_streams_said(stranger: Stranger, hub: Hub) -> None:
    """Through the whole hub: the text, the thoughts and the one end of each stand in the log."""
    files = [recording(path) for path in FILES]
    hub.agent("model.toml", TOML.format(url=stranger.url))
    await hub.start()
    client = await hub.connect(extended=True)
    for file in files:
        stranger.replies = [file.reply(1 << 20)]
        await client.send(type="chat", agentId="model", sessionId="s1", message="?")
        end = await client.until_done()
        mine = [frame for frame in client.frames if frame.get("runId") == end["runId"]]
        gives = file.gives
        assert client.text(end["runId"]) == gives["text"], file.about
        assert "".join(f["delta"] for f in mine if f["type"] == "reasoning") == gives.get("thoughts", ""), file.about
        assert end["stopReason"] == gives.get("reason", "error"), file.about
        assert [f["code"] for f in mine if f["type"] == "run_error"] == list(filter(None, [gives.get("error")]))
        known = zip(("inputTokens", "outputTokens"), gives.get("usage") or (), strict=False)
        assert end.get("usage") == ({name: count for name, count in known if count is not None} or None), file.about


async def test_an_unknown_reason_is_said_once(stranger: Stranger) -> None:
    """In the log, for one agent; another word is another line."""
    words = ["finished", "finished", "over", "x" * 99]
    ends = ['{"choices":[{"delta":{"content":"a"},"finish_reason":"%s"}]}' % word for word in words]
    stranger.replies = [body(f"data: {end}\n\n".encode()) for end in ends]
    with structlog.testing.capture_logs() as logged:
        async with openai_chat.open(Options(base_url=stranger.url), PATHS) as answer:
            for _ in words:
                assert [piece async for piece in answer(run())] == ["a", Finish("end_turn")]
    assert [line["finish_reason"] for line in logged] == ["finished", "over", "(no word)"]


async def test_an_empty_answer_is_tried_again(stranger: Stranger) -> None:
    """[DONE] with nothing before it is no end of an answer."""
    stranger.replies = [
        body(b"data: [DONE]\n\n"),
        body(b'data: {"choices":[{"delta":{"content":"a"}}]}\n\ndata: [DONE]'),
    ]
    assert await ask(Options(base_url=stranger.url, retry_seconds=0.001)) == ["a", Finish()]
