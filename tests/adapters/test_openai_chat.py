"""The adapter for OpenAI's chat completions, against an endpoint on a real socket that stands for a stranger's."""

import asyncio
import base64
import json
import re
import socket
import tomllib
from contextlib import aclosing
from pathlib import Path
from typing import Any

import attrs
import msgspec
import pytest
import structlog
from aiohttp import web
from support.documents import ROOT
from support.model_endpoint import KEY, PATHS, Reply, Stranger, ask, chunk, hang_up, run, status, stream

from hub.adapters import chat_errors, openai_chat
from hub.adapters.chat_options import Options
from hub.adapters.chat_window import window_messages
from hub.errors import AgentError
from hub.hosting.contract import Finish
from hub.messages import Past, Usage

TEXT = "你好! 🎉 How are you?"
USAGE = json.dumps({"choices": [], "usage": {"prompt_tokens": 12, "completion_tokens": 34}})
GOOD = [chunk(""), *map(chunk, TEXT), chunk(reason="stop"), USAGE, "[DONE]"]


async def failure(stranger: Stranger, *replies: Reply, **options: Any) -> AgentError:
    """Return how an answer ends, having made sure that neither it nor the hub's log tells a secret."""
    stranger.replies = list(replies)
    with structlog.testing.capture_logs() as logged, pytest.raises(AgentError) as caught:
        await ask(Options(base_url=stranger.url, retry_seconds=0.001, **options))
    shown = repr((caught.value.message, caught.value.__notes__, caught.value.__cause__, logged))
    assert KEY not in shown and "Incorrect" not in shown
    assert "\n" not in caught.value.message
    return caught.value


async def test_streams(stranger: Stranger) -> None:
    """Text comes piece by piece, exact, whatever the cuts on the wire; the Finish comes last with the usage."""
    stranger.replies = [stream(*GOOD)]
    *pieces, last = await ask(Options(base_url=stranger.url))
    assert pieces == list(TEXT)
    assert last == Finish("end_turn", Usage(12, 34))


async def test_request(stranger: Stranger, monkeypatch: pytest.MonkeyPatch) -> None:
    """The request holds what the options say, and the key from the variable that they name."""
    monkeypatch.setenv("OTHER_KEY", "sk-other")
    stranger.replies = [stream(*GOOD)]
    options = Options(
        base_url=stranger.url + "?version=2",
        model="m",
        api_key_env="OTHER_KEY",
        system="Be kind.",
        temperature=0.5,
        max_tokens=9,
    )
    await ask(options, run("And?", [Past("user", "Hi"), Past("assistant", "Hello", "main")]))
    assert stranger.bodies == [
        {
            "model": "m",
            "messages": [
                {"role": "system", "content": "Be kind."},
                {"role": "user", "content": "Hi"},
                {"role": "assistant", "content": "Hello"},
                {"role": "user", "content": "And?"},
            ],
            "stream": True,
            "stream_options": {"include_usage": True},
            "temperature": 0.5,
            "max_tokens": 9,
        }
    ]
    assert stranger.headers[0]["Authorization"] == "Bearer sk-other"
    assert stranger.queries == ["version=2"]


async def test_environment(stranger: Stranger, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without options the environment names the endpoint and the model; what is not set is not sent."""
    monkeypatch.setenv("OPENAI_BASE_URL", stranger.url + "/")
    monkeypatch.setenv("OPENAI_MODEL", "from-env")
    monkeypatch.delenv("OPENAI_API_KEY")
    stranger.replies = [stream(*GOOD)]
    await ask(Options())
    assert stranger.bodies[0]["model"] == "from-env"
    assert {"temperature", "max_tokens"}.isdisjoint(stranger.bodies[0])
    assert "Authorization" not in stranger.headers[0]


async def test_credentials_in_the_address(stranger: Stranger, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name and password in the address go as Basic, and are in no error and no log."""
    monkeypatch.delenv("OPENAI_API_KEY")
    stranger.url = stranger.url.replace("//", f"//user:{KEY}@")
    error = await failure(stranger, status(401))
    assert stranger.headers[0]["Authorization"].startswith("Basic ")
    assert error.code == "model_unauthorized"


def test_a_password_alone_in_the_address_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Basic with an empty name (RFC 7617), in place of the key."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    endpoint = openai_chat.remote_endpoint(Options(), "https://:pw@models.example/v1")
    assert endpoint.authorization == "Basic " + base64.b64encode(b":pw").decode()
    assert str(endpoint.url) == "https://models.example/v1/chat/completions"


def test_endpoint_hides_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a key goes to OpenAI itself; the key is in no repr."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    endpoint = openai_chat.remote_endpoint(Options(), openai_chat.OPENAI_URL)
    assert str(endpoint.url) == "https://api.openai.com/v1/chat/completions"
    assert KEY not in repr(endpoint)


async def test_offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With no endpoint, no key and no model file the agent says so, and how to get a model."""
    for name in ("OPENAI_BASE_URL", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    (answer,) = await ask(Options(), data=tmp_path)
    assert isinstance(answer, str)
    assert all(word in answer for word in ("No model", "OPENAI_BASE_URL", "OPENAI_API_KEY", "hubbub model"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (Options(base_url="localhost:1/v1"), "must look like"),
        (Options(base_url="ftp://localhost/v1"), "must look like"),
        (Options(base_url=f"http://[{KEY}/v1"), "must look like"),
        (Options(base_url="http://localhost/v1", api_key_env="NOT_SET"), "NOT_SET, which is not set"),
        (Options(api_key_env="OTHER_KEY"), "needs a `base_url`"),
        (Options(base_url="http://localhost/v1", api_key_env="BAD_KEY"), "BAD_KEY holds characters"),
        (
            Options(base_url="http://localhost/v1", system="x" * 600, window_bytes=1024),
            "more than half of `window_bytes`",
        ),
    ],
)
async def test_bad_options(options: Options, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot work is said in one line to the operator when the agent is loaded."""
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    monkeypatch.setenv("OTHER_KEY", KEY)
    monkeypatch.setenv("BAD_KEY", f"{KEY}\nX-Header: 1")
    with pytest.raises(ValueError, match=says) as caught:
        await ask(options)
    assert KEY not in str(caught.value)


def test_toml_is_checked() -> None:
    """Values out of their range, or of another type, are refused by name."""
    for wrong in (
        {"max_tokens_name": "tokens"},
        {"retries": -1},
        {"timeout": 0},
        {"max_tokens": 0},
        {"temperature": "hot"},
        {"window_bytes": 10},
    ):
        with pytest.raises(msgspec.ValidationError, match=next(iter(wrong))):
            msgspec.convert(wrong, Options)
    assert msgspec.convert({"temperature": 1}, Options) == Options(temperature=1.0)


@pytest.mark.parametrize(
    ("reply", "code", "retryable", "requests"),
    [
        (status(401), "model_unauthorized", False, 1),
        (status(403), "model_unauthorized", False, 1),
        (status(400), "model_refused", False, 1),
        (status(404), "model_refused", False, 1),
        (status(307, Location="http://127.0.0.1:1/"), "model_refused", False, 1),
        (status(200, {"choices": []}), "model_refused", False, 1),
        (status(400, {"error": {"code": "context_length_exceeded"}}), "model_refused", False, 1),
        (status(429), "model_rate_limited", True, 3),
        (status(429, {"error": {"code": "insufficient_quota"}}), "model_rate_limited", False, 1),
        (status(429, Retry_After="11"), "model_rate_limited", True, 1),
        (status(500), "model_unavailable", True, 3),
        (status(503, "not an object"), "model_unavailable", True, 3),
        (hang_up, "model_aborted", True, 3),
        (stream(), "model_aborted", True, 3),
        (stream(chunk("half")), "model_aborted", True, 1),
        (stream(chunk("half"), then="abort"), "model_aborted", True, 1),
        (stream(chunk("half"), "{no json", size=99), "model_aborted", True, 1),
        (stream(chunk("half"), '{"error": ' + "[" * 5000, size=99999), "model_aborted", True, 1),
        (stream(chunk("half"), '{"error": {"message": "x", "type": "oops"}}'), "model_aborted", True, 1),
        (stream('{"error": {"message": "x", "code": "rate_limit_exceeded"}}'), "model_rate_limited", True, 3),
        (stream('{"error": {"message": "x", "type": "overloaded_error"}}'), "model_unavailable", True, 3),
        (stream('{"error": "in words"}'), "model_aborted", True, 3),
    ],
)
async def test_errors(stranger: Stranger, reply: Reply, code: str, retryable: bool, requests: int) -> None:
    """Each failure has its code; it is tried again only where that may help and nothing was said yet."""
    error = await failure(stranger, reply)
    assert (error.code, error.retryable, len(stranger.bodies)) == (code, retryable, requests)


async def test_what_was_said_is_kept(stranger: Stranger) -> None:
    """Pieces before a break have been yielded, once, and the error comes after them."""
    stranger.replies = [stream(chunk("half"), then="abort"), stream(*GOOD)]
    heard = []
    async with openai_chat.open(Options(base_url=stranger.url), PATHS) as answer:
        with pytest.raises(AgentError, match="broke off"):
            async for piece in answer(run()):
                heard.append(piece)
    assert heard == ["half"]


@pytest.mark.parametrize(
    "first", [status(500), status(429, Retry_After="0"), status(429, retry_after_ms="1"), stream(), hang_up]
)
async def test_retry_succeeds(stranger: Stranger, first: Reply) -> None:
    """After a failure before the first word the answer comes whole from the next request."""
    stranger.replies = [first, stream(*GOOD)]
    *pieces, last = await ask(Options(base_url=stranger.url, retry_seconds=0.001))
    assert "".join(map(str, pieces)) == TEXT
    assert len(stranger.bodies) == 2


async def test_retries_can_be_turned_off(stranger: Stranger) -> None:
    """`retries = 0` makes one request."""
    await failure(stranger, status(500), retries=0)
    assert len(stranger.bodies) == 1


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({"Retry_After": "30"}, 30_000),
        ({"Retry_After": "0.5"}, 500),
        ({"retry_after_ms": "70", "Retry_After": "30"}, 70),
        ({"Retry_After": "Fri, 01 Jan 2100 00:00:00 GMT"}, chat_errors.MAX_RETRY_AFTER_MS),
        ({"Retry_After": "Fri, 01 Jan 1999 00:00:00 GMT"}, 0),
        ({"Retry_After": "soon"}, None),
        ({"Retry_After": "nan"}, None),
        ({}, None),
    ],
)
async def test_retry_after(stranger: Stranger, headers: dict[str, str], wait: int | None) -> None:
    """The endpoint's Retry-After, in seconds or as a date, is handed on in milliseconds; rubbish is not."""
    error = await failure(stranger, status(429, **headers), retries=0)
    assert error.retry_after_ms == wait


async def test_nobody_listens() -> None:
    """A refused connection is said as such, and tried again."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound, not listening: refuses
        port = unused.getsockname()[1]
        with structlog.testing.capture_logs() as logged, pytest.raises(AgentError) as caught:
            await ask(Options(base_url=f"http://127.0.0.1:{port}/v1?key=secret", retry_seconds=0.001))
    assert (caught.value.code, caught.value.retryable) == ("model_unreachable", True)
    assert [entry["will_retry"] for entry in logged] == [True, True, False]
    assert f"at http://127.0.0.1:{port}/v1/chat/completions" in str(logged[-1]["detail"])
    assert "secret" not in str(logged)


async def test_silence(stranger: Stranger, monkeypatch: pytest.MonkeyPatch) -> None:
    """An endpoint that says nothing for `timeout` seconds is given up."""
    loop, ahead = asyncio.get_running_loop(), [0.0]
    time = loop.time
    monkeypatch.setattr(loop, "time", lambda: time() + ahead[0])
    stranger.replies = [stream(chunk("half"), then="hang")]
    async with openai_chat.open(Options(base_url=stranger.url, timeout=1000.0), PATHS) as answer:
        with pytest.raises(AgentError) as caught:
            async for _ in answer(run()):
                ahead[0] += 1500
    error = caught.value
    assert (error.code, error.retryable, len(stranger.bodies)) == ("model_timeout", True, 1)


@pytest.mark.parametrize(
    ("events", "finish"),
    [
        ((chunk("a"), chunk(reason="length"), "[DONE]"), Finish("max_tokens")),
        ((chunk("a"), "[DONE]"), Finish("end_turn")),
        ((chunk("a"), chunk(reason="stop")), Finish("end_turn")),
        ((chunk("a", "length"), USAGE), Finish("max_tokens", Usage(12, 34))),
        ((chunk("a"), "[DONE]", "rubbish"), Finish("end_turn")),
    ],
)
async def test_finish(stranger: Stranger, events: tuple[str, ...], finish: Finish) -> None:
    """The end is known by [DONE] or by a reason, whichever the endpoint says; `length` is max_tokens."""
    stranger.replies = [stream(*events)]
    assert await ask(Options(base_url=stranger.url)) == ["a", finish]


async def test_silence_after_the_reason(stranger: Stranger) -> None:
    """An endpoint that neither says [DONE] nor closes has answered all the same."""
    stranger.replies = [stream(chunk("a"), chunk(reason="length"), then="hang")]
    assert await ask(Options(base_url=stranger.url, timeout=0.2)) == ["a", Finish("max_tokens")]


async def test_a_large_event(stranger: Stranger) -> None:
    """An answer that comes as one event is read, as far as an answer may go."""
    text = "好" * 1024 * 1024
    stranger.replies = [stream(chunk(text, "stop"), size=1 << 20)]
    assert await ask(Options(base_url=stranger.url)) == [text, Finish()]


async def cancelled(stranger: Stranger, reply: Reply, heard: asyncio.Event) -> None:
    async def listen() -> None:
        async with aclosing(answer(run())) as pieces:  # type: ignore[type-var]
            async for _ in pieces:
                heard.set()

    stranger.replies = [reply]
    async with asyncio.timeout(20):
        async with openai_chat.open(Options(base_url=stranger.url), PATHS) as answer:
            task = asyncio.create_task(listen())
            await heard.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await stranger.gone.wait()  # while the adapter is still open: it is the cancel that closed it
    assert len(stranger.bodies) == 1


async def test_cancel_while_it_speaks(stranger: Stranger) -> None:
    """Cancelling the task in mid-answer closes the connection at once: the endpoint sees its client go."""
    await cancelled(stranger, stream(chunk("half"), then="hang"), asyncio.Event())


async def test_cancel_before_the_first_word(stranger: Stranger) -> None:
    """The same while the endpoint has not even begun to answer."""
    asked = asyncio.Event()

    async def think(request: web.Request) -> web.StreamResponse:
        asked.set()
        await asyncio.Event().wait()
        return web.Response()

    await cancelled(stranger, think, asked)


async def test_close_between_pieces(stranger: Stranger) -> None:
    """Closing the generator, where it stands at a yield, closes the connection too."""
    stranger.replies = [stream(chunk("half"), then="hang")]
    async with asyncio.timeout(20):
        async with openai_chat.open(Options(base_url=stranger.url), PATHS) as answer:
            async with aclosing(answer(run())) as pieces:  # type: ignore[type-var]
                assert await anext(pieces) == "half"
            await stranger.gone.wait()


def said(*turns: str) -> list[Past]:
    """`u:text` was said by a user, `a:text` by an agent."""
    return [Past("user" if turn[0] == "u" else "assistant", turn[2:]) for turn in turns]


@pytest.mark.parametrize(
    ("history", "count", "sent"),
    [
        (said("u:1", "a:2", "u:3", "a:4"), 20, ["1", "2", "3", "4", "?"]),
        (said("u:1", "a:2", "u:3", "a:4"), 2, ["3", "4", "?"]),
        (said("u:1", "a:2", "u:3", "a:4"), 1, ["?"]),
        (said("u:1", "a:2"), 0, ["?"]),
        (said("u:1", "u:2", "a:3", "a:4"), 20, ["1\n\n2", "3\n\n4", "?"]),
        (said("u:1", "a:"), 20, ["1\n\n?"]),
    ],
)
def test_history(history: list[Past], count: int, sent: list[str]) -> None:
    """So many past messages are sent; neighbours of one role are one message, an answer never comes first."""
    messages = window_messages(run("?", history), Options(history=count))
    assert [message["content"] for message in messages] == sent
    assert [message["role"] for message in messages] == ["user", "assistant", "user", "assistant", "user"][: len(sent)]


def test_window_cuts_from_the_front() -> None:
    """What is too long loses its oldest messages; a question too long by itself loses its beginning."""
    history = said(*(f"{'ua'[n % 2]}:{n}" + "好" * 100 for n in range(10)))
    options = Options(window_bytes=1024, system="Be brief.")
    messages = window_messages(run("?", history), options)
    assert [message["content"][0] for message in messages] == ["B", "8", "9", "?"]
    _, question = window_messages(run("你" * 1000 + "the end", history), options)
    assert question["content"].endswith("你the end") and question["content"].startswith("你")
    assert 1024 - 64 < len((options.system or "") + question["content"]) + 2 * question["content"].count("你") <= 1024


@pytest.mark.parametrize("size", [992, 1000, 1008, 1024, 5000])
def test_system_messages_that_leave_no_space_for_the_question_are_refused(size: int) -> None:
    """The model must not answer a part of the question, or an empty question."""
    with pytest.raises(AgentError, match="system messages are too long for the model: shorten them") as caught:
        window_messages(run("What is the capital of France?", [Past("system", "x" * size)]), Options(window_bytes=1024))
    assert caught.value.code == "model_refused"


def test_a_long_system_message_leaves_the_question_complete() -> None:
    """As long as both fit: with the two messages' own 32 bytes, here they fill the window."""
    first, question = window_messages(run("?" * 10, [Past("system", "x" * 982)]), Options(window_bytes=1024))
    assert (len(first["content"]), question["content"]) == (982, "?" * 10)


def test_a_system_message_counts_once() -> None:
    """It takes no place of an earlier message, in the window and in `history`."""
    history = [Past("user", "1"), Past("system", "x" * 600)]
    messages = window_messages(run("?", history), Options(window_bytes=1024, history=1))
    assert [message["content"] for message in messages] == ["x" * 600, "1\n\n?"]


def test_shipped_main() -> None:
    """`main` as it is shipped loads, and so does each option that its file shows in a comment."""
    text = (ROOT / "agents" / "main.toml").read_text()
    shipped = tomllib.loads(text)
    assert shipped.pop("adapter") == "openai_chat" and shipped.pop("description")
    assert msgspec.convert(shipped, Options) == Options()
    shown = tomllib.loads("\n".join(re.findall(r"^# ([a-z_]+ = .*)$", text, re.MULTILINE)))
    assert set(shown) == {field.name for field in attrs.fields(Options)} - {"retry_seconds"}
    msgspec.convert(shown, Options)
