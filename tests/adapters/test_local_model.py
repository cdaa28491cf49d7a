"""The local model, for real: its child process and its answers."""

import asyncio
import itertools
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import attrs
import pytest
import structlog
from openai import AsyncOpenAI
from support.documents import ROOT
from support.hub import Hub
from support.local_model import FETCHED, needs_model
from support.waiting import eventually
from yarl import URL

from hub.adapters import local_model, openai_chat
from hub.adapters.openai_chat import Options
from hub.errors import AgentError
from hub.hosting.contract import AgentPaths, AnswerFunction, Call, Finish, Run
from hub.messages import Author, Past, Request, ResponseFormat, Tool

# For the answers of a test: the model computes for 5 s, and other programs may take most of the processor.
SECONDS = 100
STORY = "Tell me a long story about a cat and a dog."

pytestmark = needs_model
on_linux = pytest.mark.skipif(
    not Path("/proc/self/fd").exists(), reason="looks at open files in /proc: run it on Linux"
)


@pytest.fixture(autouse=True)
def logged() -> Iterator[None]:
    """Keep the hub's own lines off the terminal."""
    with structlog.testing.capture_logs():
        yield


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder of the test's own, and in it a cache with the fetched model."""
    for name in ("OPENAI_BASE_URL", "OPENAI_API_KEY", "OPENAI_MODEL"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "models").symlink_to((FETCHED / "models").resolve())
    return tmp_path


def model_file(data: Path) -> Path:
    return local_model.model_path(data / "cache", data)


@asynccontextmanager
async def opened(data: Path, **options: object) -> AsyncIterator[AnswerFunction]:
    """Yield an agent on the local model, and the test's bound on waiting."""
    paths = AgentPaths("main", data, data / "cache")
    chosen = Options(**options)  # type: ignore[arg-type]
    async with asyncio.timeout(SECONDS), openai_chat.open(chosen, paths) as answer:
        yield answer


def run(message: str, *history: Past) -> Run:
    def no_calls(run: Run, agent: str, message: str) -> Call:
        raise AssertionError("the adapter calls no agent")

    return Run(
        id="r1",
        agent="main",
        session="s1",
        message=message,
        principal=Author("u1", "User"),
        history=history,
        call=no_calls,
    )


async def answer_to(answer: AnswerFunction, message: str, *history: Past) -> tuple[list[str], Finish]:
    *pieces, last = [piece async for piece in answer(run(message, *history))]
    assert isinstance(last, Finish)
    return [piece for piece in pieces if isinstance(piece, str)], last


async def pid_of(model: local_model.LocalModel) -> int:
    await model.endpoint()
    assert model.pid
    return model.pid


def wait_for_end(process: int) -> None:
    """Wait until the process is gone, at most 20 s."""
    ready, _, _ = select.select([process], [], [], 20)
    os.close(process)
    assert ready, "still alive"


@pytest.mark.parametrize("message", ["你好", "Say hello in one sentence."])
async def test_answers(data: Path, message: str) -> None:
    """An answer comes in several pieces, with its usage."""
    async with opened(data, max_tokens=64) as answer:
        pieces, finish = await answer_to(answer, message)
    assert len(pieces) > 1 and "".join(pieces).strip()
    assert finish.usage and (finish.usage.inputTokens or 0) > 0 and (finish.usage.outputTokens or 0) >= len(pieces) - 1


async def ask_with(answer: AnswerFunction, message: str, **fields: Any) -> tuple[str, Finish]:
    """Ask with a client's request."""
    question = attrs.evolve(run(message), request=Request(**fields))
    *pieces, last = [piece async for piece in answer(question)]
    assert isinstance(last, Finish)
    return "".join(piece for piece in pieces if isinstance(piece, str)), last


async def test_the_clients_sampling_is_obeyed(data: Path) -> None:
    """`stop` and `max_tokens` end the answer; a seed repeats it, and a high temperature changes it."""
    async with opened(data) as answer:
        text, finish = await ask_with(answer, STORY, sampling={"max_tokens": 5})
        assert finish.reason == "max_tokens" and finish.usage is not None and finish.usage.outputTokens == 5
        whole, _ = await ask_with(answer, STORY, sampling={"max_tokens": 40, "temperature": 0})
        word = whole.split()[5]
        text, finish = await ask_with(answer, STORY, sampling={"max_tokens": 40, "temperature": 0, "stop": [word]})
        assert finish.reason == "end_turn" and text == whole[: whole.index(word)]
        wild = {"max_tokens": 40, "temperature": 1.9, "top_p": 1.0}
        texts = {(await ask_with(answer, STORY, sampling=wild | {"seed": seed}))[0] for seed in range(3)}
        assert len(texts) > 1
        narrow = wild | {"top_p": 0.0001}
        texts = {(await ask_with(answer, STORY, sampling=narrow | {"seed": seed}))[0] for seed in range(3)}
        assert len(texts) == 1  # only the likeliest token is left


@pytest.mark.parametrize("session", [{}, {"sessionId": "s1"}], ids=["no session", "session"])
async def test_openais_clients_set_the_sampling(data: Path, hub: Hub, session: dict[str, str]) -> None:
    """Over HTTP. The model's own counts are the usage: nothing is estimated."""
    hub.agent("small.toml", 'adapter = "openai_chat"')
    await hub.start()

    async def ask(stream: bool = False, **sampling: Any) -> tuple[str, str, dict[str, int]]:
        request: Any = {"model": "small", "messages": [{"role": "user", "content": STORY}], "max_tokens": 30}
        # each request has a session of its own: the history would change the answer
        body = {name: f"{value}-{next(numbers)}" for name, value in session.items()}
        request |= sampling | {"stream": stream, "extra_body": body}
        if not stream:
            answer = await client.chat.completions.create(**request)
            (choice,) = answer.choices
            return choice.message.content, choice.finish_reason, answer.usage.to_dict()
        chunks = await client.chat.completions.create(**request, stream_options={"include_usage": True})
        *pieces, end, last = [chunk async for chunk in chunks]
        text = "".join(chunk.choices[0].delta.content or "" for chunk in pieces)
        return text, end.choices[0].finish_reason, last.usage.to_dict()

    numbers = itertools.count()
    async with AsyncOpenAI(base_url=f"{hub.url}/v1", api_key="any", max_retries=0, timeout=SECONDS) as client:
        whole, reason, usage = await ask(temperature=0)
        assert reason == "length" and usage["completion_tokens"] == 30 and "estimated" not in usage
        assert await ask(temperature=0, stream=True) == (whole, reason, usage)
        word = whole.split()[5]
        text, reason, usage = await ask(temperature=0, stop=word, stream=True)
        assert (text, reason) == (whole[: whole.index(word)], "stop") and 0 < usage["completion_tokens"] < 30
        assert (await ask(max_completion_tokens=3, max_tokens=None))[2]["completion_tokens"] == 3
        wild = [await ask(temperature=1.9, top_p=1, seed=seed) for seed in range(3)]
        narrow = [await ask(temperature=1.9, top_p=0.0001, seed=seed) for seed in range(3)]
        assert len({text for text, _, _ in wild}) > 1 == len({text for text, _, _ in narrow})


async def test_a_client_gets_no_longer_answers_than_the_model_has_space_for(data: Path) -> None:
    async with opened(data, max_tokens=7) as answer:
        _, finish = await ask_with(answer, STORY, sampling={"max_completion_tokens": 10_000})
    assert finish.usage is not None and finish.usage.outputTokens == 7


async def test_tools_are_ignored_and_the_form_of_the_answer_is_obeyed(data: Path) -> None:
    """The small model cannot call tools; llama.cpp forces the JSON."""
    schema = {"type": "object", "properties": {"name": {"enum": ["cat", "dog"]}}, "required": ["name"]}
    form = ResponseFormat(type="json_schema", name="pet", schema=schema | {"additionalProperties": False}, strict=True)
    async with opened(data) as answer:
        text, finish = await ask_with(answer, "Name a pet.", response_format=form, tools=(Tool(name="a"),))
    assert json.loads(text)["name"] in ("cat", "dog") and finish.reason == "end_turn"
    assert not openai_chat.takes_tools(Options())


@pytest.mark.parametrize("message", ["请用中文写一首关于春天的诗。", "Repeat ten times: 🎉🚀"])
async def test_characters_of_several_tokens(data: Path, message: str) -> None:
    """A character that the model makes of several tokens is never cut, not even by the end of the answer."""
    async with local_model.share(data / "cache", data):  # one child for the three
        for tokens in (31, 32, 33):
            async with opened(data, max_tokens=tokens, temperature=0, frequency_penalty=0) as answer:
                pieces, finish = await answer_to(answer, message)
            assert any(ord(letter) > 255 for letter in "".join(pieces))
            assert "\ufffd" not in "".join(pieces)
            assert finish.reason == "max_tokens"


async def test_long_conversation_fits(data: Path) -> None:
    """However long the conversation, and whatever its script, what is sent fits the model."""
    history = [Past("user", "𠀀𠀁" * 20), Past("assistant", "ꙮ⸘" * 30)] * 30
    async with opened(data, max_tokens=4, history=100, system="x" * 900) as answer:
        pieces, _ = await answer_to(answer, "?", *history)
        assert pieces


async def test_shared(data: Path) -> None:
    """Two agents have one child, which answers both at once and ends with the last of them."""
    async with local_model.share(data / "cache", data) as model:
        assert model.pid is None  # nobody waits for it to load
        async with opened(data, max_tokens=40) as one, opened(data, max_tokens=40) as other:
            answers = await asyncio.gather(answer_to(one, STORY), answer_to(other, STORY))
            assert all(pieces for pieces, _ in answers)
            child = await pid_of(model)
        assert await pid_of(model) == child
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)


async def test_killed_child(data: Path) -> None:
    """An answer whose child dies ends with a clear error, worth a retry; the next answer works."""
    async with local_model.share(data / "cache", data) as model, opened(data) as answer:
        with pytest.raises(AgentError) as caught:
            async for piece in answer(run(STORY)):
                if model.pid:
                    os.kill(model.pid, signal.SIGKILL)
        assert (caught.value.code, caught.value.retryable) == ("model_aborted", True)
        pieces, _ = await answer_to(answer, "Hi")
        assert pieces


async def test_cancel_stops_the_model(data: Path) -> None:
    """An answer that nobody wants any more is given up by the child too, which says so in its log."""
    async with opened(data) as answer:
        async with aclosing(answer(run(STORY))) as pieces:  # type: ignore[type-var]
            await anext(pieces)
        await eventually(lambda: "cancel task" in (data / "model.log").read_text())


async def test_broken_file(data: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A model that does not load is an error for who asks, with the reason in model.log; nobody waits for ever."""
    (data / "cache" / "models").unlink()
    model_file(data).parent.mkdir()
    model_file(data).write_bytes(b"GGUF no more")
    async with opened(data, retries=0) as answer:
        with pytest.raises(AgentError, match="does not start") as caught:
            await answer_to(answer, "Hi")
    assert (caught.value.code, caught.value.retryable) == ("model_unreachable", True)
    assert local_model.MODEL_FILE in (data / "model.log").read_text()
    assert capfd.readouterr() == ("", "")


async def test_only_where_needed(data: Path) -> None:
    """An agent with an endpoint of its own starts no child."""
    async with openai_chat.open(Options(base_url="http://127.0.0.1:1/v1"), AgentPaths("main", data, data / "cache")):
        assert not (data / "model.log").exists()


async def test_only_for_the_hub(data: Path) -> None:
    """The child listens on one loopback address, answers nobody without the key, and lets no web page read it."""
    async with local_model.share(data / "cache", data) as model, aiohttp.ClientSession() as http:
        url = URL((await model.endpoint()).base_url)
        async with http.post(url / "chat/completions", json={"messages": []}) as response:
            assert response.status == 401
        async with http.get(url.origin() / "health", headers={"Origin": "http://evil.example"}) as response:
            assert response.headers.get("Access-Control-Allow-Origin", "") == ""
        assert url.host == "127.0.0.1"
        with pytest.raises(OSError):  # a server on all addresses would be here too
            socket.create_connection(("127.0.0.2", url.port or 0), timeout=5)


@on_linux
async def test_inherits_nothing(data: Path) -> None:
    """The child has none of the hub's open files, not even those that were made inheritable."""
    with socket.socket() as listener, (data / "hub.lock").open("w") as lock:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        for ours in (listener, lock):
            os.set_inheritable(ours.fileno(), True)
        mine = {os.readlink(f"/proc/self/fd/{ours.fileno()}") for ours in (listener, lock)}
        async with local_model.share(data / "cache", data) as model:
            child = await pid_of(model)
            files = {path.name: os.readlink(path) for path in Path(f"/proc/{child}/fd").iterdir()}
            theirs = set(files.values())
            assert files["1"] == files["2"] == str(data / "model.log")  # whatever llama.cpp prints goes there
            assert not mine & theirs
            assert os.getsid(child) == child  # so Ctrl-C in the hub's terminal is not for it


async def test_quiet(data: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """What llama.cpp prints goes to model.log, emptied at the start, and not to the hub's terminal."""
    (data / "model.log").write_text("of the last start")
    async with opened(data, max_tokens=3) as answer:
        await answer_to(answer, "Hi")
    assert capfd.readouterr() == ("", "")
    assert "of the last start" not in (data / "model.log").read_text()


HUB = """
import asyncio, os, pathlib, sys
from hub.adapters import local_model

async def hub():
    data = pathlib.Path(sys.argv[1])
    async with local_model.share(data / "cache", data) as model:
        if sys.argv[2] != "loading":
            await model.endpoint()
        while not (children := pathlib.Path("/proc/self/task/%d/children" % os.getpid()).read_text()):
            await asyncio.sleep(0)
        if sys.argv[2] == "forked" and os.fork() == 0:
            sys.stdin.read()
            os._exit(0)
        print(children, flush=True)
        await asyncio.Event().wait()

asyncio.run(hub())
"""


@on_linux
@pytest.mark.parametrize("when", ["loading", "ready", "forked"])
def test_hub_killed(data: Path, when: str) -> None:
    """The child ends when the hub is killed with -9: while it loads, and where a fork of the hub holds its pipe."""
    with subprocess.Popen(
        [sys.executable, "-c", HUB, str(data), when],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        text=True,
    ) as hub:
        assert hub.stdout
        child = next(int(line) for line in hub.stdout if line.strip().isdecimal())
        process = os.pidfd_open(child)
        hub.kill()
        wait_for_end(process)


@on_linux
def test_pipe_closed(data: Path) -> None:
    """The end of its stdin is enough for the child to end, also while its parent lives."""
    command = [sys.executable, "-m", "hub.adapters.local_model", str(model_file(data))]
    child = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=ROOT
    )
    with child:
        assert child.stdin and child.stdout
        child.stdin.write(b"key\n")
        child.stdin.flush()
        assert b"base_url" in child.stdout.readline()
        child.stdin.close()
        try:
            assert child.wait(timeout=20) == 0
        finally:
            child.kill()
