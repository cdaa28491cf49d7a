"""Runs: the queue, cancel, bad agents, and time limits. Each run ends exactly once."""

import asyncio
import sys
from typing import Any

import aiohttp
import pytest
import structlog
from support.hub import Client, Hub
from support.waiting import PATIENCE, eventually

from hub.errors import Draining, StorageUnavailable
from hub.hosting.loader import ADAPTER_MODULES
from hub.ids import Key
from hub.limits import MiB
from hub.messages import Author, Chat
from hub.sessions.chats import Sender
from hub.storage.log import AppendCallback
from hub.storage.records import Append


def ends(client: Client, run_id: str) -> list[dict[str, Any]]:
    return [f for f in client.frames if f["type"] == "run_finished" and f["runId"] == run_id]


async def start_gated(hub: Hub, client: Client, **extra: Any) -> dict[str, Any]:
    """Chat with `gated`; return `accepted` once the answer has its first text (or is queued)."""
    await client.send(type="chat", agentId="gated", sessionId="s1", message=str(hub.folder / "gate"), **extra)
    accepted = await client.until_type("accepted")
    if accepted["status"] == "started":
        await client.until(lambda f: f["type"] == "stream" and f["runId"] == accepted["runId"])
    return accepted


async def test_messages_to_a_busy_agent_are_queued_and_see_the_earlier_answers(hub: Hub) -> None:
    """`ifBusy: enqueue` is the default for the same agent: the second run starts after the end of the first."""
    await hub.start()
    client = await hub.connect(extended=True)
    first, second = [await start_gated(hub, client) for _ in range(2)]
    (hub.folder / "gate").touch()
    for _ in range(2):
        await client.until_done()
    order = [(f["type"], f["runId"]) for f in client.frames if f["type"] in ("run_started", "run_finished")]
    runs = [first["runId"], second["runId"]]
    assert order == [(kind, run) for run in runs for kind in ("run_started", "run_finished")]


async def test_two_agents_of_a_session_answer_at_the_same_time(hub: Hub) -> None:
    """`ifBusy: parallel` is the default for another agent. Each text is complete."""
    await hub.start()
    client = await hub.connect(extended=True)
    gated = await start_gated(hub, client)
    await client.send(type="chat", agentId="echo", sessionId="s1", message="beside it")
    echo = await client.until_done()
    assert echo["agentId"] == "echo" and client.text(echo["runId"]) == "beside it "
    (hub.folder / "gate").touch()
    await client.until_done()
    assert client.text(gated["runId"]) == "one two"


async def test_if_busy_reject_replace_and_parallel(hub: Hub) -> None:
    """`reject` gets `busy`. `replace` cancels the running answers, and its run is the next."""
    await hub.start()
    client = await hub.connect(extended=True)
    running = await start_gated(hub, client)
    queued = await start_gated(hub, client)
    await client.send(type="chat", agentId="gated", sessionId="s1", message="x", ifBusy="reject", ref="r")
    error = await client.until_type("error")
    assert error["code"] == "busy" and error["ref"] == "r"
    parallel = await start_gated(hub, client, ifBusy="parallel")
    assert parallel["status"] == "started"
    await client.send(type="chat", agentId="echo", sessionId="s1", message="instead", ifBusy="replace")
    replacing = await client.until_type("accepted")
    assert replacing["status"] == "queued" and replacing["position"] == 1
    *cancelled, last = [await client.until_done() for _ in range(3)]
    assert {end["runId"]: end["stopReason"] for end in cancelled} == {  # either may end first
        running["runId"]: "cancelled",
        parallel["runId"]: "cancelled",
    }
    assert (last["runId"], last["stopReason"]) == (replacing["runId"], "end_turn")
    assert client.text(running["runId"]) == "one "
    (hub.folder / "gate").touch()
    assert (await client.until_done())["runId"] == queued["runId"]
    history = [
        m.content for m in await hub.node.log.sessions.read_last_messages(Key("s1"), 10, MiB) if m.role == "assistant"
    ]
    assert history == ["one ", "one ", "instead ", "one two"]


async def test_cancel_ends_queued_runs_before_running_ones(hub: Hub) -> None:
    """The end of a run is its last event, and its text stays. A second cancel gets `not_running`."""
    await hub.start()
    client = await hub.connect(extended=True)
    runs = [(await start_gated(hub, client))["runId"] for _ in range(3)]
    await client.send(type="cancel", sessionId="s1", ref="c")
    cancelling = await client.until_type("cancelling")
    assert sorted(cancelling["runIds"]) == sorted(runs) and cancelling["ref"] == "c"
    order = [(await client.until_done())["runId"] for _ in runs]
    assert order[-1] == runs[0]
    await client.send(type="cancel", sessionId="s1")
    assert (await client.until_type("error"))["code"] == "not_running"
    for run in runs:
        assert [end["stopReason"] for end in ends(client, run)] == ["cancelled"]
        last = max(i for i, f in enumerate(client.frames) if f.get("runId") == run and f["type"] != "state")
        assert client.frames[last]["type"] == "run_finished"
    assert client.text() == "one "


async def test_one_run_is_cancelled_by_its_id_also_in_the_queue(hub: Hub) -> None:
    """The others go on. `queued: false` cancels no queued run."""
    await hub.start()
    client = await hub.connect(extended=True)
    first, second, third = [(await start_gated(hub, client))["runId"] for _ in range(3)]
    await client.send(type="cancel", sessionId="s1", runId=second)
    assert (await client.until_done())["runId"] == second
    await client.send(type="cancel", sessionId="s1", queued=False)
    assert (await client.until_done())["runId"] == first
    (hub.folder / "gate").touch()
    end = await client.until_done()
    assert (end["runId"], end["stopReason"]) == (third, "end_turn")


async def test_a_cancel_right_after_the_chat_ends_the_run_once(hub: Hub) -> None:
    """Even before the start of the run is in the log, or before its code is called."""
    await hub.start()
    client = await hub.connect(extended=True)
    other = await hub.connect(extended=True)
    for number in range(30):
        session = f"t{number}"
        await client.send(type="chat", agentId="gated", sessionId=session, message="never")
        await other.send(type="cancel", sessionId=session)
        answer = await other.until(lambda f: f["type"] in ("cancelling", "error"))
        accepted = await client.until_type("accepted")
        if answer["type"] == "error":  # the cancel came before the chat
            await client.send(type="cancel", sessionId=session)
        end = await client.until_done()
        assert end["runId"] == accepted["runId"] and end["stopReason"] == "cancelled"
        assert len(ends(client, end["runId"])) == 1


BAD_AGENTS = {
    "raises": (
        "async def raises(message: str):\n    yield 'one '\n    raise ValueError('secret 42')",
        "agent_error",
        "one ",
    ),
    "at_once": ("async def at_once(message: str):\n    raise ValueError('secret 42')\n    yield ''", "agent_error", ""),
    "nothing": ("async def nothing(message: str):\n    return None", "agent_bad_output", ""),
    "plain_nothing": ("def plain_nothing(message: str):\n    return None", "agent_bad_output", ""),
    "number": ("async def number(message: str):\n    yield 'a'\n    yield 7", "agent_bad_output", "a"),
    "surrogate": ("async def surrogate(message: str):\n    yield 'c'\n    yield '\\ud800'", "agent_bad_output", "c"),
    "whole_surrogate": (
        "from hub import Message\nasync def whole_surrogate(message: str):\n    yield Message('\\ud800')",
        "agent_bad_output",
        "",
    ),
    "endless": (
        "async def endless(message: str):\n    while True:\n        yield 'x' * 100_000",
        "answer_too_long",
        None,
    ),
    "own_words": (
        "from hub import AgentError\nasync def own_words(message: str):\n    raise AgentError('no luck', 'my_code')\n"
        "    yield ''",
        "my_code",
        "",
    ),
    "gives_up": (
        "import asyncio\nasync def gives_up(message: str):\n    yield 'd'\n    raise asyncio.CancelledError",
        "agent_error",
        "d",
    ),
    "exits_async": (
        "import sys\nasync def exits_async(message: str):\n    sys.exit(3)\n    yield ''",
        "agent_error",
        "",
    ),
    "bad_words": (
        "from hub import AgentError\nasync def bad_words(message: str):\n    raise AgentError('no \\udcff')\n"
        "    yield ''",
        "agent_error",
        "",
    ),
    "bad_finish": (
        "from hub import Finish\nasync def bad_finish(message: str):\n    yield 'e'\n    yield Finish('stop')",
        "agent_bad_output",
        "e",
    ),
    "bad_usage": (
        "from hub import Finish\nasync def bad_usage(message: str):\n    yield Finish(usage=object())",
        "agent_bad_output",
        "",
    ),
    "exits": ("def exits(message: str):\n    raise SystemExit(3)", "agent_error", ""),
}


YIELDS_NONE = """
from hub import Run

async def none(message: str):
    yield "a"
    yield None
    yield "b"
    yield None

def plain(message: str):
    yield None
    yield "b"

async def calls(run: Run):
    yield await run.call("none", "go")
"""


@pytest.mark.parametrize(("name", "text"), [("none", "ab"), ("plain", "b"), ("calls", "ab")])
async def test_a_yielded_none_is_ignored(hub: Hub, name: str, text: str) -> None:
    """`yield chunk.choices[0].delta.content` yields None at the end of an OpenAI stream."""
    for agent in ("none", "plain", "calls"):
        hub.agent(f"{agent}.py", YIELDS_NONE)
    await hub.start()
    client = await hub.connect()
    await client.send(type="chat", agentId=name, message="go")
    end = await client.until_done()
    assert (end["stopReason"], client.text()) == ("end_turn", text)
    body = {"model": name, "messages": [{"role": "user", "content": "go"}]}
    async with aiohttp.ClientSession() as http, http.post(f"{hub.url}/v1/chat/completions", json=body) as response:
        assert (await response.json())["choices"][0]["message"]["content"] == text


async def test_the_error_of_a_function_that_returns_none_says_what_to_do(hub: Hub) -> None:
    """A missing `return` is more likely than an empty answer."""
    hub.agent("nothing.py", "async def nothing(message: str):\n    pass")
    await hub.start()
    client = await hub.connect()
    await client.send(type="chat", agentId="nothing", message="go")
    error = await client.until_type("error")
    assert error["message"] == "agent nothing returned nothing: return its answer, or yield it"


@pytest.mark.parametrize("name", BAD_AGENTS)
async def test_a_bad_agent_ends_its_run_once_and_its_text_is_stored(hub: Hub, name: str) -> None:
    """The client gets a code, but no text of the exception. The log names the agent and the line."""
    code, error_code, text = BAD_AGENTS[name]
    hub.agent(f"{name}.py", code)
    await hub.start(run_bytes=1 << 20)
    client = await hub.connect()
    with structlog.testing.capture_logs() as logs:
        await client.send(type="chat", agentId=name, sessionId="s1", message="go")
        end = await client.until_done()
    errors = [f for f in client.frames if f["type"] == "error"]
    assert [error["code"] for error in errors] == [error_code] and end["stopReason"] == "error"
    assert "secret" not in str(client.frames) and "Traceback" not in str(client.frames)
    if "secret" in code:
        assert errors[0]["message"] == f"agent {name} failed; the hub's output says why"
    assert any(entry.get("agent") == name and entry["at"].startswith(f"{name}.py:") for entry in logs), logs
    if text is not None:
        assert client.text() == text
        assert [
            m.content
            for m in await hub.node.log.sessions.read_last_messages(Key("s1"), 9, MiB)
            if m.role == "assistant"
        ] == [text]
    await client.send(type="chat", agentId="echo", sessionId="s1", message="next")
    await client.until_done()
    assert client.text().endswith("next ")


async def test_a_chunk_of_a_megabyte_is_split_into_several_events(hub: Hub) -> None:
    """Each has at most 32 KiB, and ends between two code points."""
    hub.agent("big.py", "async def big(message: str):\n    yield 'é€😀x' * 100_000")
    await hub.start()
    client = await hub.connect(extended=True)
    await client.send(type="chat", agentId="big", sessionId="s1", message="go")
    await client.until_done()
    assert client.text() == "é€😀x" * 100_000
    events = await hub.node.log.events.read(Key("s1"), 0, 10**6)
    assert len(events) > 1
    head, cursor = hub.node.sessions[Key("s1")].channel.head, 0
    while cursor < head:
        for event in await hub.node.log.events.read(Key("s1"), cursor, head):
            assert len(getattr(event.body, "content", "").encode()) <= 32 * 1024
            cursor = event.seq


@pytest.mark.parametrize(
    "code",
    [
        "async def one(message: str):\n    for w in message.split():\n        yield w",
        "def one(message: str):\n    for w in message.split():\n        yield w",
        "async def one(message: str):\n    return message.replace(' ', '')",
        "def one(message: str):\n    return message.replace(' ', '')",
        "def one(run):\n    yield run.message.replace(' ', '')",
        "from hub import Message\nasync def one(run):\n    yield Message('a')\n    yield 'b'\n    yield Message('c')",
    ],
)
async def test_every_kind_of_function_answers(hub: Hub, code: str) -> None:
    """Coroutines and async generators, functions and generators in a thread, and a mix of texts and messages."""
    hub.agent("one.py", code)
    await hub.start()
    client = await hub.connect()
    await client.send(type="chat", agentId="one", message="a b c")
    assert (await client.until_done())["stopReason"] == "end_turn"
    assert client.text() == "abc"


async def test_a_cancelled_generator_in_a_thread_ends_at_its_next_chunk(hub: Hub) -> None:
    """Its `finally` runs."""
    hub.agent(
        "plain.py",
        """
        import pathlib, time

        def plain(message: str):
            try:
                while True:
                    yield "tick "
                    time.sleep(0.005)
            finally:
                pathlib.Path(message).touch()
        """,
    )
    await hub.start()
    client = await hub.connect(extended=True)
    await client.send(type="chat", agentId="plain", sessionId="s1", message=str(hub.folder / "closed"))
    await client.until_type("stream")
    await client.send(type="cancel", sessionId="s1")
    assert (await client.until_done())["stopReason"] == "cancelled"
    assert (hub.folder / "closed").exists()
    assert hub.node.agents.get_working("plain").running_answers == 0


async def test_code_that_ignores_its_cancel_is_abandoned_after_the_grace_time(hub: Hub) -> None:
    """Its run ends as `cancelled`, without later events. The code still counts as a running answer of the agent."""
    hub.agent(
        "deaf.py",
        """
        import asyncio, pathlib
        from hub import agent

        @agent(max_runs=1)
        async def deaf(message: str):
            yield "one "
            while not pathlib.Path(message).exists():
                try:
                    await asyncio.sleep(0.01)
                except asyncio.CancelledError:
                    pass
            yield "late"
        """,
    )
    await hub.start(grace_seconds=0.1)
    client = await hub.connect(extended=True)
    await client.send(type="chat", agentId="deaf", sessionId="s1", message=str(hub.folder / "gate"))
    await client.until_type("stream")
    await client.send(type="cancel", sessionId="s1")
    assert (await client.until_done())["stopReason"] == "cancelled"
    deaf = hub.node.agents.get_working("deaf")
    assert (deaf.running_answers, deaf.used_slots) == (1, 0)  # its code goes on, and uses no slot of max_runs
    await client.send(type="chat", agentId="deaf", sessionId="s1", message=str(hub.folder / "gate"))
    await client.until_type("stream")
    assert (deaf.running_answers, deaf.used_slots) == (2, 1)
    (hub.folder / "gate").touch()
    assert (await client.until_done())["stopReason"] == "end_turn"
    await eventually(lambda: not deaf.running_answers)
    assert client.text() == "one one late"


async def test_code_that_swallows_a_cancel_is_cancelled_again_after_the_grace_time(hub: Hub) -> None:
    """Code that obeys the second cancel ends. The output of code that ignores it is dropped."""
    hub.agent(
        "once.py",
        """
        import asyncio

        async def once(message: str):
            try:
                yield "one "
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                await asyncio.Event().wait()
        """,
    )
    hub.agent(
        "talks.py",
        """
        import asyncio

        async def talks(message: str):
            while True:
                try:
                    yield "x"
                    await asyncio.sleep(0.001)
                except asyncio.CancelledError:
                    pass
        """,
    )
    await hub.start(grace_seconds=0.1)
    for name in ("once", "talks"):
        client = await hub.connect("?sessionId=s1", extended=True)
        await client.send(type="chat", agentId=name, sessionId="s1", message="x")
        await client.until_type("stream")
        await client.send(type="cancel", sessionId="s1")
        assert (await client.until_done())["stopReason"] == "cancelled"
        await eventually(lambda: not hub.node.agents.get_working(name).running_answers)


async def test_a_run_whose_history_cannot_be_read_ends_with_an_error_of_the_log(hub: Hub) -> None:
    """Not with an error of the agent: the code says that a retry may succeed."""
    hub.agent("reads.py", "async def reads(run):\n    yield str(len(run.history))")
    await hub.start()
    client = await hub.connect("?sessionId=s1", extended=True)
    messages = hub.node.log.sessions.read_last_messages

    async def fail(*_: Any) -> Any:
        raise StorageUnavailable("the log cannot be read now: try again")

    hub.node.log.sessions.read_last_messages = fail  # type: ignore[method-assign, assignment]
    await client.send(type="chat", agentId="reads", sessionId="s1", message="x")
    error = await client.until_type("run_error")
    assert (error["code"], error["retryable"], error["retryAfterMs"]) == ("storage_unavailable", True, 1000)
    assert (await client.until_done())["stopReason"] == "error"
    hub.node.log.sessions.read_last_messages = messages  # type: ignore[method-assign]
    await client.send(type="chat", agentId="reads", sessionId="s1", message="x")
    await client.until_done()
    assert client.text() == "1"


@pytest.mark.parametrize("limit", ["run_seconds", "silence_seconds"])
async def test_a_slow_or_silent_run_ends_as_timeout(hub: Hub, limit: str) -> None:
    """Its text stays."""
    await hub.start(**{limit: 0.2})
    client = await hub.connect(extended=True)
    await start_gated(hub, client)
    assert (await client.until_done())["stopReason"] == "timeout"
    assert client.text() == "one "


async def test_the_limits_of_an_agent_replace_those_of_the_hub(hub: Hub) -> None:
    """With `@agent(silence_limit=...)`."""
    hub.agent(
        "brief.py",
        """
        import asyncio
        from hub import agent

        @agent(silence_limit=0.1)
        async def brief(message: str):
            yield "x"
            await asyncio.Event().wait()
        """,
    )
    await hub.start()
    client = await hub.connect()
    await client.send(type="chat", agentId="brief", message="go")
    assert (await client.until_done())["stopReason"] == "timeout"


async def test_a_generator_that_never_waits_yields_to_other_tasks(hub: Hub) -> None:
    """Another session gets its answer meanwhile."""
    hub.agent("flood.py", "async def flood(message: str):\n    while True:\n        yield ''")
    await hub.start()
    client = await hub.connect(extended=True)
    await client.send(type="chat", agentId="flood", sessionId="s1", message="go")
    await client.until_type("run_started")
    other = await hub.connect()
    await other.send(type="chat", agentId="echo", message="through")
    await other.until_done()
    assert other.text() == "through "
    await client.send(type="cancel", sessionId="s1")
    assert (await client.until_done())["stopReason"] == "cancelled"


async def test_the_history_is_not_read_for_an_agent_without_a_run_parameter(hub: Hub) -> None:
    """Only an agent with a run parameter can read the history."""
    hub.agent("looks.py", "def looks(run):\n    return run.message + ' '")
    await hub.start()
    read, reads = hub.node.log.sessions.read_last_messages, []

    async def messages(session_id: Key, *limits: Any) -> Any:
        reads.append(session_id)
        return await read(session_id, *limits)

    hub.node.log.sessions.read_last_messages = messages  # type: ignore[method-assign, assignment]
    client = await hub.connect()
    for agent in ("echo", "looks"):
        await client.send(type="chat", agentId=agent, sessionId=agent, message="hello")
        await client.until_done()
    assert client.text() == "hello hello " and reads == ["looks"]


async def test_an_agent_sees_its_run_and_the_history(hub: Hub) -> None:
    """`run.history` has no messages of queued runs."""
    hub.agent(
        "knows.py",
        """
        async def knows(run):
            past = " | ".join(f"{p.role}:{p.content}" for p in run.history)
            yield f"[{run.session} {run.agent} {run.message} <{past}>]"
        """,
    )
    await hub.start()
    client = await hub.connect(extended=True)
    await start_gated(hub, client)
    for word in ("first", "second"):
        await client.send(type="chat", agentId="knows", sessionId="s1", message=word, ifBusy="enqueue")
    (hub.folder / "gate").touch()
    answers = [client.text((await client.until_done())["runId"]) for _ in range(3)]
    gate = hub.folder / "gate"
    one = f"[s1 knows first <user:{gate} | assistant:one two>]"
    assert answers == [
        "one two",
        one,
        f"[s1 knows second <user:{gate} | user:first | assistant:one two | assistant:{one}>]",
    ]


async def test_the_depth_of_calls_has_a_limit(hub: Hub) -> None:
    """Only the caller gets the text of the called agent. An error of the called agent is an AgentError."""
    hub.agent(
        "asks.py",
        """
        from hub import AgentError

        async def asks(run):
            yield "<" + await run.call("echo", run.message) + ">"
            async for text in run.call("echo", "a b"):
                yield text.upper()
            for other in ("nobody", "fails", "asks_itself"):
                try:
                    await run.call(other, "x")
                except AgentError as error:
                    yield f"({error.code})"
        """,
    )
    hub.agent("fails.py", "async def fails(message: str):\n    raise ValueError('no')\n    yield ''")
    hub.agent("asks_itself.py", "async def asks_itself(run):\n    yield await run.call('asks_itself', 'x')")
    await hub.start()
    client = await hub.connect()
    await client.send(type="chat", agentId="asks", message="hi")
    await client.until_done()
    assert client.text() == "<hi >A B (unknown_agent)(agent_error)(call_depth)"


async def test_the_queue_of_a_session_has_a_limit(hub: Hub) -> None:
    """A chat above the limit gets `busy`."""
    await hub.start(queued_runs=2)
    client = await hub.connect(extended=True)
    for _ in range(3):
        await start_gated(hub, client)
    await client.send(type="chat", agentId="gated", sessionId="s1", message="x", clientMsgId="c9")
    error = await client.until_type("error")
    assert error["code"] == "busy" and error["clientMsgId"] == "c9" and error["retryAfterMs"]


async def test_chats_are_refused_and_text_is_buffered_while_the_log_fails(hub: Hub) -> None:
    """When the log works again, the answer goes on, and has its complete text."""
    await hub.start(retry_seconds=0.02)
    client = await hub.connect(extended=True)
    await start_gated(hub, client)
    log = hub.node.log.events
    original = log.append
    tries = asyncio.Event()

    def failing(append: Append, done: AppendCallback) -> None:
        # The error of the driver for a full disk (tests/storage/test_sqlite_log.py fills a real disk).
        tries.set()
        asyncio.get_running_loop().call_soon(done, StorageUnavailable("disk full"))

    log.append = failing  # type: ignore[method-assign]
    (hub.folder / "gate").touch()
    async with asyncio.timeout(PATIENCE):
        await tries.wait()
    other = await hub.connect(extended=True)
    for session in ("s1", "s2"):
        await other.send(type="chat", agentId="echo", sessionId=session, message="x", clientMsgId="c1")
        assert (await other.until_type("error"))["code"] == "storage_unavailable"
    log.append = original  # type: ignore[method-assign]
    assert (await client.until_done())["stopReason"] == "end_turn"
    assert client.text() == "one two"
    for session in ("s1", "s2"):
        await other.send(type="chat", agentId="echo", sessionId=session, message="x", clientMsgId="c1")
        assert (await other.until_type("accepted"))["status"] == "started"


async def test_a_refused_chat_leaves_no_message_and_no_run(hub: Hub) -> None:
    """The log fails, refuses chats, and works again: then it has only the accepted chats and their runs."""
    await hub.start(retry_seconds=0.02)
    clients = [await hub.connect(extended=True) for _ in range(3)]
    log = hub.node.log.events
    original, failures = log.append, 0

    def failing(append: Append, done: AppendCallback) -> None:
        nonlocal failures
        failures += 1
        if failures <= 3:
            asyncio.get_running_loop().call_soon(done, StorageUnavailable("disk full"))
        else:
            original(append, done)

    log.append = failing  # type: ignore[method-assign]
    for client in clients:
        await client.send(type="chat", agentId="echo", sessionId="s1", message="x")
    outcomes = [await client.until(lambda f: f["type"] in ("accepted", "error")) for client in clients]
    refused = [frame for frame in outcomes if frame["type"] == "error"]
    assert refused and {frame["code"] for frame in refused} == {"storage_unavailable"}
    log.append = original  # type: ignore[method-assign]
    last = await hub.connect(extended=True)
    await last.send(type="chat", agentId="echo", sessionId="s1", message="now")
    outcome = await last.until(lambda f: f["type"] in ("accepted", "error"))
    while outcome["type"] == "error":
        await last.send(type="chat", agentId="echo", sessionId="s1", message="now")
        outcome = await last.until(lambda f: f["type"] in ("accepted", "error"))
    await last.until(lambda f: f["type"] == "run_finished" and f["runId"] == outcome["runId"])
    events = await log.read(Key("s1"), 0, hub.node.sessions[Key("s1")].channel.head)
    kinds = [event.body.type for event in events]
    accepted = 1 + len(outcomes) - len(refused)
    assert kinds.count("user_message") == kinds.count("run_started") == kinds.count("run_finished") == accepted


async def test_max_runs_limits_concurrent_chats(hub: Hub) -> None:
    """With `max_runs=1` one chat is answered, and the others get `busy`. After the answer, a new chat is accepted."""
    hub.agent(
        "single.py",
        """
        import asyncio, pathlib
        from hub import agent

        @agent(max_runs=1)
        async def single(message: str):
            while not pathlib.Path(message).exists():
                await asyncio.sleep(0.01)
            yield "done"
        """,
    )
    await hub.start()
    client = await hub.connect(extended=True)
    gate = str(hub.folder / "gate")
    for number in range(4):
        await client.send(type="chat", agentId="single", sessionId=f"s{number}", message=gate)
    answers = [await client.until(lambda f: f["type"] in ("accepted", "error")) for _ in range(4)]
    refused = {answer["sessionId"] for answer in answers if answer.get("code") == "busy"}
    assert len(refused) == 3 and refused < {"s0", "s1", "s2", "s3"}  # any of the chats may be first
    (hub.folder / "gate").touch()
    await client.until_done()
    assert hub.node.agents.get_working("single").running_answers == 0
    await client.send(type="chat", agentId="single", sessionId="s9", message=gate)
    await client.until_done()


DEAF = """
from contextlib import asynccontextmanager
import asyncio
import attrs

@attrs.frozen
class Options:
    gate: str

@asynccontextmanager
async def open(options, paths):
    async def answer(run):
        yield "one "
        while not (paths.data / run.message).exists():
            try:
                await asyncio.sleep(0.01)
            except asyncio.CancelledError:
                pass

    yield answer
    (paths.data / "closed").touch()
"""


@pytest.mark.parametrize("cancelled", [False, True])
async def test_the_context_of_a_removed_adapter_ends_after_its_last_run(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, cancelled: bool
) -> None:
    """Without another reload, also if the run ended before its code."""
    (hub.folder / "deaf_adapter.py").write_text(DEAF)
    monkeypatch.syspath_prepend(str(hub.folder))
    monkeypatch.delitem(sys.modules, "deaf_adapter", raising=False)
    monkeypatch.setitem(ADAPTER_MODULES, "deaf", "deaf_adapter")
    hub.agent("deaf.toml", 'adapter = "deaf"\ngate = "gate"\nmax_runs = 1')
    await hub.start(grace_seconds=0.1)
    client = await hub.connect(extended=True)
    await client.send(type="chat", agentId="deaf", sessionId="s1", message="gate")
    await client.until_type("stream")
    (hub.folder / "agents" / "deaf.toml").unlink()
    assert await hub.node.agents.reload_changed_agents() == ["deaf"]
    if cancelled:
        await client.send(type="cancel", sessionId="s1")
        await client.until_done()
    mark = hub.folder / "data" / "closed"
    assert not mark.exists()
    (hub.folder / "data" / "gate").touch()
    await eventually(mark.exists)


async def test_a_draining_hub_refuses_chats(hub: Hub) -> None:
    """Both the command and the admission of the session raise Draining."""
    await hub.start()
    client = await hub.connect(extended=True)
    await client.send(type="subscribe", sessionId="s1")
    await client.until_type("subscribed")
    hub.node.drain()
    await client.until_type("draining")
    await client.send(type="chat", agentId="echo", sessionId="s1", message="x")
    assert (await client.until_type("error"))["code"] == "draining"
    with pytest.raises(Draining):
        session = hub.node.sessions[Key("s1")]
        sender = Sender(author=Author("local", "local"))
        await session.admission.admit(Chat(message="x"), sender, hub.node.agents.get_working("echo"))


async def test_a_restartable_run_is_restarted_once(hub: Hub) -> None:
    """Attempt 2 begins with `message_removed`. After the next stop the run is aborted, with its second text."""
    hub.agent(
        "again.py",
        """
        import asyncio
        from hub import agent

        @agent(restartable=True)
        async def again(message: str):
            yield "try "
            await asyncio.Event().wait()
        """,
    )
    await hub.start()
    client = await hub.connect(extended=True)
    await client.send(type="chat", agentId="again", sessionId="s1", message="go")
    first = await client.until_type("stream")
    await hub.stop()
    await hub.start()
    client = await hub.connect(extended=True)
    await client.send(type="subscribe", sessionId="s1", afterSeq=first["seq"], epoch=first["epoch"])
    assert (await client.until_type("message_removed"))["messageIds"] == [first["messageId"]]
    assert (await client.until_type("run_started"))["attempt"] == 2
    second = await client.until_type("stream")
    assert second["runId"] == first["runId"] and second["messageId"] != first["messageId"]
    await hub.stop()
    await hub.start()
    client = await hub.connect(extended=True)
    await client.send(type="subscribe", sessionId="s1", afterSeq=second["seq"])
    assert (await client.until_done())["stopReason"] == "aborted"
    answers = [m for m in await hub.node.log.sessions.read_last_messages(Key("s1"), 9, MiB) if m.role == "assistant"]
    assert [(m.messageId, m.content) for m in answers] == [(second["messageId"], "try ")]


async def test_code_in_a_thread_uses_its_slot_until_it_ends(hub: Hub) -> None:
    """A thread cannot be cancelled: its run ends after the grace time, and its code goes on."""
    hub.agent(
        "plain.py",
        """
        import pathlib, time

        def plain(message: str):
            yield "one "
            while not pathlib.Path(message).exists():
                time.sleep(0.01)
        """,
    )
    await hub.start(grace_seconds=0.1)
    client = await hub.connect(extended=True)
    await client.send(type="chat", agentId="plain", sessionId="s1", message=str(hub.folder / "gate"))
    await client.until_type("stream")
    await client.send(type="cancel", sessionId="s1")
    assert (await client.until_done())["stopReason"] == "cancelled"
    plain = hub.node.agents.get_working("plain")
    assert (plain.running_answers, plain.used_slots) == (1, 1)
    (hub.folder / "gate").touch()
    await eventually(lambda: (plain.running_answers, plain.used_slots) == (0, 0))
