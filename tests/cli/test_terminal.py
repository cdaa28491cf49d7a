"""The terminal client at a real terminal and in a pipe, with a real hub."""

import asyncio
import io
import json
import os
import re
import signal
import sys
from pathlib import Path
from typing import Any

import aiohttp
import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from support.documents import ROOT
from support.hub import Hub
from support.proxy import Proxy
from support.scripted import WELCOME, Peer, scripted
from support.terminal import ALT_ENTER, CTRL_B, CTRL_C, CTRL_D, ENTER, UP, terminal
from support.waiting import PATIENCE

from hub.cli import questions
from hub.cli.screen import Screen
from hub.cli.text import BlockSplitter, to_printable
from hub.client.addresses import http_url, websocket_url
from hub.ids import Key
from hub.limits import MiB

EVIL = "\x1b[31mred\x1b]0;owned\x07 \x9b2J [bold]no[/bold]\r\n"
MARKDOWN = """
async def main(message: str):
    yield "# Title\\n\\nSome **bold** and [a link](http://a.example).\\n\\n"
    yield "- one\\n\\n- two\\n\\n```py\\nx = 1\\n\\ny = 2\\n```\\n\\nThe end."
"""
EVIL_AGENT = f"async def evil(message: str):\n    yield {EVIL!r}\n"
LONG = "async def long(message: str):\n    for n in range(100):\n        yield f'- line {n}.\\n'\n"
PICKY = """
from hub import AgentError

async def picky(message: str):
    yield "well, "
    raise AgentError("not\\x1b[2J that")
"""


CAREFUL = """
async def careful(run):
    yield "I can. "
    reply = await run.ask(f"Really {run.message}?", schema={"type": "boolean"})
    yield f"{reply.status} {reply.payload!r} {reply.by.id}"
"""
TWICE = """
import asyncio

async def careful(run):
    await asyncio.gather(run.ask("first"), run.ask("second"))
"""
DEAF = """
import asyncio, pathlib

async def deaf(message: str):
    yield "listening"
    while not pathlib.Path(message).exists():
        try:
            await asyncio.sleep(0.1)
        except asyncio.CancelledError:
            pass
"""


@attrs.frozen
class Done:
    code: int
    out: str
    err: str


async def start(hub: Hub, *arguments: str, port: int | None = None) -> asyncio.subprocess.Process:
    """Run a hubbub command in a pipe. The environment has the URL of its hub.

    A shell starts background jobs with SIGINT ignored, and a child of such a test run would inherit that.
    """
    kept = {key: value for key, value in os.environ.items() if not key.startswith("HUBBUB_")}
    url = f"http://127.0.0.1:{port or hub.port}"
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "hub", *arguments),
        cwd=hub.folder,
        env=kept | {"PYTHONPATH": str(ROOT), "HUBBUB_URL": url, "COLUMNS": "200", "PYTHONUTF8": "1"},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


async def piped(hub: Hub, *arguments: str, text: str = "", port: int | None = None) -> Done:
    process = await start(hub, *arguments, port=port)
    async with asyncio.timeout(PATIENCE):
        out, err = await process.communicate(text.encode())
    assert process.returncode is not None
    return Done(process.returncode, out.decode(), err.decode())


def at(hub: Hub, *more: str) -> tuple[str, ...]:
    return ("--url", hub.url, *more)


# --- at a terminal ----------------------------------------------------------------------------------------------------


async def test_an_answer_is_shown_as_markdown(hub: Hub, tmp_path: Path) -> None:
    """Titles, lists and code are formatted, the address of a link is visible, and the Markdown signs are not."""
    hub.agent("main.py", MARKDOWN)
    await hub.start()
    async with terminal(tmp_path, "chat", *at(hub)) as screen:
        await screen.until("you>")
        screen.type("hello" + ENTER)
        text = await screen.until("The end.", "you>", after="hello")
        assert "Title" in text and "# Title" not in text and "Some bold and a link (http://a.example)." in text
        assert "• one" in text and "y = 2" in text and "```" not in text and "**" not in text
        screen.type(CTRL_D)
        assert await screen.wait_until_ended() == 0


async def test_an_unknown_agent_is_refused_at_once(hub: Hub, tmp_path: Path) -> None:
    """Without a name, and without an agent `main`, the chat uses the first agent that works."""
    await hub.start()
    async with terminal(tmp_path, "chat", "nobody", *at(hub)) as screen:
        assert await screen.wait_until_ended() == 1
        await screen.until("hubbub: there is no agent nobody; there are: echo, gated")
        assert "you>" not in screen.text
    async with terminal(tmp_path, "chat", *at(hub)) as screen:
        await screen.until("echo in session", "you>")


async def test_an_answer_longer_than_the_screen_is_complete_in_the_end(hub: Hub, tmp_path: Path) -> None:
    """While it streams, the screen shows its last lines. Then all lines are above the prompt, each line once."""
    hub.agent("long.py", LONG)
    await hub.start()
    async with terminal(tmp_path, "chat", "long", *at(hub)) as screen:
        await screen.until("you>")
        screen.type("go" + ENTER)
        text = await screen.until("line 99.", "you>", after="go")
        lines = [line.strip(" •") for line in text.splitlines() if "• line" in line]
        assert lines[-100:] == [f"line {number}." for number in range(100)]


async def test_the_text_of_an_agent_cannot_control_the_terminal(hub: Hub, tmp_path: Path) -> None:
    """Escape sequences and rich markup are shown as text: they change no colour and no title, and erase nothing."""
    hub.agent("evil.py", EVIL_AGENT)
    hub.agent("picky.py", PICKY)
    await hub.start()
    async with terminal(tmp_path, "chat", "evil", *at(hub)) as screen:
        await screen.until("you>")
        screen.type("hello" + ENTER)
        await screen.until("␛[31mred␛]0;owned␇ \ufffd2J [bold]no[/bold]", "you>", after="hello")
        screen.type("/agents picky" + ENTER)
        await screen.until("you chat with picky")
        screen.type("hello" + ENTER)
        await screen.until("picky: not␛[2J that")
        screen.type("/history" + ENTER)
        await screen.until("[bold]no[/bold]", "you>", after="/history")
        assert screen.screen.title == "" and b"\x1b[31mred" not in screen.raw and b"\x1b[2J" not in screen.raw


async def test_a_message_can_have_several_lines_and_the_history_is_stored(hub: Hub, tmp_path: Path) -> None:
    """Alt-Enter begins a new line, Enter sends. Arrow up recalls a sent message, also after a restart."""
    hub.agent("lines.py", "async def lines(message: str):\n    yield f'{message.count(chr(10))} breaks'\n")
    await hub.start()
    async with terminal(tmp_path, "chat", "lines", *at(hub)) as screen:
        await screen.until("you>")
        screen.type("one" + ALT_ENTER + "two" + ALT_ENTER + "three" + ENTER)
        await screen.until("2 breaks", "you>", after="three")
        screen.type(CTRL_D)
        assert await screen.wait_until_ended() == 0
    async with terminal(tmp_path, "chat", "lines", *at(hub)) as screen:
        await screen.until("you>")
        screen.type(UP)
        await screen.until("three")
        screen.type(ENTER)
        await screen.until("2 breaks")


async def test_ctrl_c_stops_the_answer_and_a_second_one_leaves(hub: Hub, tmp_path: Path) -> None:
    """The partial text stays on the screen. At the prompt, the first Ctrl-C only prints a hint."""
    await hub.start()
    never = str(tmp_path / "never")
    async with terminal(tmp_path, "chat", "gated", *at(hub, "--session", "s1")) as screen:
        await screen.until("you>")
        screen.type(never + ENTER)
        await screen.until("one")
        screen.type(CTRL_C)
        await screen.until("one", "— cancelled —", "you>", after="stopping")
        screen.type(CTRL_C)
        await screen.until("press Ctrl-C again to leave", "you>", after="cancelled")
        screen.type(CTRL_C)
        assert await screen.wait_until_ended() == 0


async def test_ctrl_c_twice_leaves_an_agent_that_does_not_stop(hub: Hub, tmp_path: Path) -> None:
    """The second press does not wait for the agent."""
    hub.agent("deaf.py", DEAF)
    await hub.start()
    gate = tmp_path / "gate"
    try:
        async with terminal(tmp_path, "chat", "deaf", *at(hub)) as screen:
            await screen.until("you>")
            screen.type(str(gate) + ENTER)
            await screen.until("listening")
            screen.type(CTRL_C)
            await screen.until("stopping")
            screen.type(CTRL_C)
            assert await screen.wait_until_ended() == 0
            assert "cancelled" not in screen.text
    finally:
        gate.touch()


async def test_keys_that_are_pressed_during_an_answer_are_for_the_next_prompt(hub: Hub, tmp_path: Path) -> None:
    """Also a Ctrl-D, which ends the chat: a terminal in its normal mode would not pass it on."""
    await hub.start()
    gate = tmp_path / "gate"
    async with terminal(tmp_path, "chat", "gated", *at(hub, "--session", "s1")) as screen:
        await screen.until("you>")
        screen.type(f"{gate}{ENTER}")
        await screen.until("one")
        screen.type(f"/agents echo{ENTER}{CTRL_D}")
        gate.touch()
        await screen.until("you chat with echo")
        assert await screen.wait_until_ended() == 0


async def test_messages_of_other_users_in_the_session_are_shown(hub: Hub, tmp_path: Path) -> None:
    """With their names, and with the answers, above the line that the user is typing."""
    await hub.start()
    other = await hub.connect(extended=True)
    async with terminal(tmp_path, "chat", "echo", *at(hub, "--session", "s1")) as screen:
        await screen.until("you>")
        screen.type("half a sen")
        await screen.until("half a sen")
        await other.send(type="chat", agentId="echo", sessionId="s1", message="from \x1b[1manother")
        await screen.until("local> from ␛[1manother", "echo:", "from ␛[1manother", "you> half a sen")
        screen.type("tence" + ENTER)
        await screen.until("half a sentence", "you>", after="you> half a sentence")


async def test_keys_that_are_pressed_while_a_message_is_printed_are_for_the_prompt(hub: Hub, tmp_path: Path) -> None:
    """The terminal itself does not show them: there is no ^B for a Ctrl-B. A Ctrl-D is not lost."""
    await hub.start()
    other = await hub.connect(extended=True)
    async with terminal(tmp_path, "chat", "echo", *at(hub, "--session", "s1")) as screen:
        await screen.until("you>")
        for number in range(20):
            await other.send(type="chat", agentId="echo", sessionId="s1", message=f"message {number}.")
            while screen.text.count(f"message {number}.") < 2:  # the message and its answer
                screen.type(CTRL_B)
                await screen.wait_for_change()
        screen.type(CTRL_D)
        assert await screen.wait_until_ended() == 0
        assert b"^B" not in screen.raw


async def test_a_question_of_an_agent_is_answered_at_the_prompt(hub: Hub, tmp_path: Path) -> None:
    """An invalid reply is asked for again. The agent gets the reply in the type of its schema."""
    hub.agent("careful.py", CAREFUL)
    await hub.start()
    async with terminal(tmp_path, "chat", "careful", *at(hub)) as screen:
        await screen.until("you>")
        screen.type("go" + ENTER)
        await screen.until("I can.", "careful asks: Really go", "(yes or no)", "answer>")
        screen.type("perhaps" + ENTER)
        await screen.until("this is not a valid answer; expected: yes or no", "answer>", after="answer> perhaps")
        screen.type("Yes" + ENTER)
        await screen.until("local answered: true", "resolved True local", "you>", after="answer> Yes")
        screen.type("again" + ENTER)
        await screen.until("Really again?")
        await screen.until("answer>", after="Really again?")
        screen.type(CTRL_D)
        await screen.until("cancelled None local", "you>", after="Ctrl-D declines")


async def test_ctrl_c_at_a_question_stops_the_run_of_the_question(hub: Hub, tmp_path: Path) -> None:
    """No question is asked again, even if the run has two open questions. The chat continues."""
    hub.agent("careful.py", TWICE)
    await hub.start()
    async with terminal(tmp_path, "chat", "careful", *at(hub)) as screen:
        await screen.until("you>")
        screen.type("go" + ENTER)
        await screen.until("second", "answer>")
        screen.type(CTRL_C)
        await screen.until("— cancelled —", "you>", after="stopping")
        assert screen.text.rpartition("stopping")[2].count("answer>") == 0
        screen.type("/answer yes" + ENTER)
        await screen.until("there is no open question")


async def test_a_question_that_another_user_answers_leaves_the_prompt(hub: Hub, tmp_path: Path) -> None:
    """The screen shows the user and the reply, and the run continues."""
    hub.agent("careful.py", CAREFUL)
    await hub.start()
    other = await hub.connect("?sessionId=s1", extended=True)
    async with terminal(tmp_path, "chat", "careful", *at(hub, "--session", "s1")) as screen:
        await screen.until("you>")
        screen.type("go" + ENTER)
        asked = await other.until_type("interrupt")
        await screen.until("answer>")
        await other.send(type="resume", sessionId="s1", interruptId=asked["id"], status="resolved", payload=False)
        await screen.until("local answered: false", "resolved False local", "you>", after="Ctrl-D declines")


async def test_a_question_whose_session_is_deleted_leaves_the_prompt(hub: Hub, tmp_path: Path) -> None:
    """As after a cancel of the run. The user can continue in another session."""
    hub.agent("careful.py", CAREFUL)
    await hub.start()
    async with terminal(tmp_path, "chat", "careful", *at(hub, "--session", "s1")) as screen:
        await screen.until("you>")
        screen.type("go" + ENTER)
        await screen.until("answer>")
        async with aiohttp.ClientSession() as http, http.delete(f"{hub.url}/api/v1/sessions/s1") as done:
            assert done.status == 204
        await screen.until("the question was withdrawn", "— cancelled —", "you>", after="Ctrl-D declines")
        screen.type("/session s2" + ENTER)
        await screen.until("session s2", after="you> /session s2")


async def test_a_question_in_another_users_chat_can_be_answered(hub: Hub, tmp_path: Path) -> None:
    """With /answer, at the usual prompt, also by a user who joined after the question."""
    hub.agent("careful.py", CAREFUL)
    await hub.start()
    other = await hub.connect(extended=True)
    await other.send(type="chat", agentId="careful", sessionId="s1", message="go")
    await other.until_type("interrupt")
    async with terminal(tmp_path, "chat", "careful", *at(hub, "--session", "s1")) as screen:
        await screen.until("careful asks: Really go?", "you>")
        screen.type("/answer" + ENTER)
        await screen.until("write an answer")
        screen.type("/answer no" + ENTER)
        await screen.until("resolved False local", "you>", after="/answer no")


FORM = {
    "type": "object",
    "properties": {"size": {"type": "integer", "exclusiveMaximum": 10}, "colour": {"enum": ["red", "blue"]}},
    "required": ["size"],
}
FORMED = {"size": 9, "colour": "red"}


@pytest.mark.parametrize(
    ("schema", "text", "wanted", "given"),
    [
        (None, " as it is ", "", "as it is"),
        ({"type": "string"}, "7", "", "7"),
        ({"type": "boolean"}, "N", "yes or no", False),
        ({"type": "integer"}, "7", "a whole number", 7),
        ({"type": "number", "minimum": 1, "exclusiveMaximum": 10}, "9.99", "a number, at least 1, less than 10", 9.99),
        ({"type": "number", "multipleOf": 0.1}, "0.3", "a number, a multiple of 0.1", 0.3),
        (
            {"type": "string", "minLength": 1, "pattern": "[0-9]"},
            "a1",
            "a text, length at least 1, matching [0-9]",
            "a1",
        ),
        ({"maxLength": 2}, "\U0001f44d" * 2, "a text, length at most 2", "\U0001f44d" * 2),
        ({"type": "number", "maximum": "x"}, "7", "a number, at most x", 7),  # the schema is wrong
        ({"enum": ["red", 2]}, "2", "one of: red, 2", 2),
        (
            FORM,
            '{"size": 9, "colour": "red"}',
            f"as JSON, by the schema {json.dumps(FORM, separators=(',', ':'))}",
            FORMED,
        ),
        ({"type": "array"}, "[1]", 'as JSON, by the schema {"type":"array"}', [1]),
    ],
)
def test_a_reply_is_parsed_by_its_schema(schema: Any, text: str, wanted: str, given: Any) -> None:
    """The prompt describes the expected reply."""
    assert questions.describe_answers(schema) == wanted
    assert questions.parse_answer(schema, text) == given and type(questions.parse_answer(schema, text)) is type(given)


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        (None, " "),
        ({"type": "boolean"}, "perhaps"),
        ({"type": "number"}, "true"),
        ({"type": "number"}, "NaN"),
        ({"enum": ["red"]}, "blue"),
        ({"type": "object"}, "{"),
        ({"type": "object"}, "[]"),
        ({"type": "array"}, "{}"),
        ({"type": "integer"}, "1.5"),
        ({"type": "integer", "minimum": 1}, "0"),
        ({"type": "number", "maximum": 0.5}, "0.6"),
        ({"type": "number", "exclusiveMaximum": 10}, "10"),
        ({"type": "number", "exclusiveMinimum": 0}, "0"),
        ({"type": "number", "multipleOf": 0.1}, "0.35"),
        ({"type": "string", "minLength": 2}, "a"),
        ({"type": "string", "maxLength": 2}, "abc"),
        ({"type": "string", "pattern": "[0-9]"}, "abc"),
        ({"type": "array"}, "[" * 254 + "]" * 254),
        ({"type": "array"}, "[" * 1010 + "]" * 1010),
        (FORM, "{}"),
        (FORM, '{"size": 10}'),
        (FORM, '{"size": 9, "colour": "green"}'),
    ],
)
def test_an_invalid_reply_is_refused(schema: Any, text: str) -> None:
    """The error describes a valid reply."""
    with pytest.raises(ValueError, match="write an answer|this is not a valid answer; expected: "):
        questions.parse_answer(schema, text)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("9007199254740993", "past 2^53"),
        ("1" + "0" * 99, "past 2^53"),
        ("1.0000000000000000001", "cannot hold"),
    ],
)
@pytest.mark.parametrize("schema", [{"type": "number"}, {"type": "array"}])
def test_a_number_in_an_answer_stays_as_it_was_written(schema: Any, text: str, why: str) -> None:
    """A number that would change is refused."""
    form = "%s" if schema["type"] == "number" else "[%s]"
    with pytest.raises(ValueError, match=re.escape(why)):
        questions.parse_answer(schema, form % text)


async def test_the_terminal_subscribes_again_after_the_events_have_ended_with_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here the hub refuses the session after a reconnect. The error is shown, and the next message gets its answer."""
    monkeypatch.setitem(WELCOME, "agents", [{"agentId": "echo", "status": "ok", "description": ""}])

    async def lose(peer: Peer) -> None:
        await peer.accept_subscribe()
        await peer.ws.close(code=1012)

    async def refuse_first(peer: Peer) -> None:
        ref = (await peer.next("subscribe"))["ref"]
        await peer.say("error", code="forbidden", message="no seat is free", ref=ref)
        await peer.accept_subscribe()
        fields = {"ref": (await peer.next("chat"))["ref"], "status": "started", "position": 0, "messageId": "m0"}
        await peer.say("accepted", sessionId="s1", runId="r1", seq=1, **fields)
        await peer.event("run_started", 1, messageId="m1")
        await peer.event("stream", 2, messageId="m1", content="welcome back", offset=0)
        await peer.event("run_finished", 3, messageId="m1", stopReason="end_turn")

    async with scripted(lose, refuse_first) as url:
        async with terminal(tmp_path, "chat", "echo", "--url", url, "--session", "s1") as screen:
            await screen.until("no seat is free")
            screen.type("hello" + ENTER)
            await screen.until("welcome back", "you>", after="you> hello")


async def test_a_screen_does_not_wait_for_a_run_after_its_last_event() -> None:
    """The end of the run may be among the events that were not shown."""
    screen = Screen(console=Console(file=io.StringIO()), say=lambda _: None)
    waiting = asyncio.create_task(screen.wait_for_end("r1"))
    screen.end()
    async with asyncio.timeout(PATIENCE):
        await waiting


async def test_an_invalid_session_id_is_refused_at_the_terminal(hub: Hub, tmp_path: Path) -> None:
    """The complete argument is the id, not only its first word. The current session and agent stay."""
    await hub.start()
    async with terminal(tmp_path, "chat", "echo", *at(hub, "--session", "s1")) as screen:
        await screen.until("you>")
        screen.type("/session bad id" + ENTER)
        await screen.until("sessionId", "you>", after="/session bad id")
        screen.type("/agents nobody" + ENTER)
        await screen.until("there is no agent nobody: /agents lists all", "you>", after="you> /agents nobody")
        screen.type("/session" + ENTER)
        await screen.until("session s1", after="you> /session")


async def test_the_commands_do_what_help_says(hub: Hub, tmp_path: Path) -> None:
    """Each of them, one after the other."""
    await hub.start()
    other = await hub.connect(extended=True)
    async with terminal(tmp_path, "chat", "echo", *at(hub, "--session", "s1")) as screen:
        await screen.until("you>")
        screen.type("/help" + ENTER)
        await screen.until("/share", "/quit", "you>", after="you> /help")
        screen.type("/agents" + ENTER)
        await screen.until("gated", "ok", "you>", after="you> /agents")
        screen.type("/session" + ENTER)
        await screen.until("session s1", after="you> /session")
        screen.type("/share" + ENTER)
        await screen.until(f"hubbub chat --url {hub.url} --session s1", f"{hub.url}/?session=s1")
        await other.send(type="chat", agentId="gated", sessionId="s1", message=str(tmp_path / "never"))
        await other.until(lambda frame: frame["type"] == "stream")
        await screen.until("never")
        screen.type("/cancel" + ENTER)
        await screen.until("stopped: 1", "— cancelled —")
        screen.type("/cancel" + ENTER)
        await screen.until("no answer is running")
        screen.type("/history 1" + ENTER)
        await screen.until("gated:", "one", "you>", after="/history 1")
        screen.type("/nonsense" + ENTER)
        await screen.until("there is no command /nonsense")
        screen.type("/session s2" + ENTER)
        await screen.until("session s2", after="/session s2")
        screen.type("there" + ENTER)
        await screen.until("echo:", "you>", after="you> there")
        screen.type("/quit" + ENTER)
        assert await screen.wait_until_ended() == 0
    assert len(await hub.node.log.sessions.read_last_messages(Key("s2"), 10, MiB)) == 2


async def test_a_lost_connection_is_reported_and_the_answer_continues(hub: Hub, tmp_path: Path) -> None:
    """The connection is lost during an answer. In the end the screen has the complete answer."""
    await hub.start()
    gate = tmp_path / "gate"
    proxy = await Proxy(lambda: ("127.0.0.1", hub.port)).start()
    try:
        async with terminal(tmp_path, "chat", "gated", "--url", f"http://127.0.0.1:{proxy.port}") as screen:
            await screen.until("you>")
            screen.type(str(gate) + ENTER)
            await screen.until("one")
            for link in list(proxy.links):
                link.reset()
            await screen.until("the connection is lost", "connected again")
            gate.touch()
            await screen.until("one two", "you>", after="connected again")
    finally:
        await proxy.stop()


async def test_a_password_is_sent_and_not_shared(hub: Hub, tmp_path: Path) -> None:
    """`/share`, and the output of a pipe, show the address without the password."""
    hub.agent("careful.py", "async def careful(run):\n    await run.ask('Sure?')\n    yield ''\n")
    await hub.start()
    url = f"http://name:secret@127.0.0.1:{hub.port}"
    async with terminal(tmp_path, "chat", "--url", url, "--session", "s1") as screen:
        await screen.until("you>")
        screen.type("/share" + ENTER)
        await screen.until(f"hubbub chat --url {hub.url} --session s1", f"{hub.url}/?session=s1")
        screen.type("/history x" + ENTER)
        await screen.until("/history takes a number from 1 to 999999, such as 50, not 'x'")
        screen.type("/history 0" + ENTER)
        await screen.until(", not '0'")
        screen.type(CTRL_D)
        assert await screen.wait_until_ended() == 0
        assert b"secret" not in screen.raw
    done = await piped(hub, "chat", "careful", "--url", url, text="hi")
    assert done.code == 1 and f"{hub.url}/?session=" in done.err and "secret" not in done.err


# --- in a pipe --------------------------------------------------------------------------------------------------------


async def test_in_a_pipe_it_reads_a_message_and_writes_the_answer(hub: Hub) -> None:
    """Nothing else is written, and the exit code is 0."""
    await hub.start()
    done = await piped(hub, "chat", "echo", "--session", "s1", text="hello there\n")
    assert done == Done(0, "hello there \n", "")
    assert [message.content for message in await hub.node.log.sessions.read_last_messages(Key("s1"), 9, MiB)] == [
        "hello there",
        "hello there ",
    ]


async def test_in_a_pipe_the_default_agent_is_the_first_that_works(hub: Hub) -> None:
    """If the hub has no agent `main`. If no agent works, the command fails with one line."""
    hub.agent("a_torn.py", "this is no Python")
    await hub.start()
    assert await piped(hub, "chat", text="hello") == Done(0, "hello \n", "")
    await hub.stop()
    for agent in ("echo", "gated"):
        hub.agent(f"{agent}.py", "this is no Python")
    await hub.start()
    done = await piped(hub, "chat", text="hello")
    assert done == Done(1, "", "hubbub: this hub has no agent that works: put one into its agents folder\n")


async def test_in_a_pipe_the_answer_streams(hub: Hub, tmp_path: Path) -> None:
    """The reader gets the first chunk before the agent yields the second."""
    await hub.start()
    gate = tmp_path / "gate"
    process = await start(hub, "chat", "gated")
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(str(gate).encode())
    process.stdin.close()
    async with asyncio.timeout(PATIENCE):
        assert await process.stdout.readexactly(4) == b"one "
        gate.touch()
        assert await process.stdout.read() == b"two\n"
        assert await process.wait() == 0


async def test_in_a_pipe_text_is_without_control_sequences(hub: Hub) -> None:
    """So the output of the pipe is safe on a terminal, too."""
    hub.agent("evil.py", EVIL_AGENT)
    await hub.start()
    done = await piped(hub, "chat", "evil", text="hi")
    assert done.out == "␛[31mred␛]0;owned␇ \ufffd2J [bold]no[/bold]\n"


@pytest.mark.parametrize(
    ("agent", "text", "out", "why"),
    [
        ("picky", "hi", "well, \n", "not␛[2J that"),
        ("nobody", "hi", "", "there is no agent nobody; there are: echo, gated, picky\n"),
        ("echo", "\n", "", "standard input is empty"),
    ],
)
async def test_an_answer_that_fails_is_one_line_and_exit_code_1(
    hub: Hub, agent: str, text: str, out: str, why: str
) -> None:
    """The line is on standard error, the partial text on standard output."""
    hub.agent("picky.py", PICKY)
    await hub.start()
    done = await piped(hub, "chat", agent, text=text)
    assert (done.code, done.out) == (1, out)
    assert done.err.startswith("hubbub: ") and done.err.count("\n") == 1 and why in done.err


async def test_in_a_pipe_ctrl_c_stops_the_answer(hub: Hub, tmp_path: Path) -> None:
    """The command prints the partial text and one error line, and exits with 1. The hub stops the run, too."""
    await hub.start()
    process = await start(hub, "chat", "gated", "--session", "s1")
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(str(tmp_path / "never").encode())
    process.stdin.close()
    async with asyncio.timeout(PATIENCE):
        assert await process.stdout.readexactly(4) == b"one "
        process.send_signal(signal.SIGINT)
        _, err = await process.communicate()
    assert process.returncode == 1 and err == b"hubbub: the answer ended early (cancelled)\n"


async def test_in_a_pipe_a_question_stops_the_answer(hub: Hub) -> None:
    """A pipe cannot reply. One line has the question, and the address where a user can reply."""
    hub.agent("careful.py", CAREFUL)
    await hub.start()
    done = await piped(hub, "chat", "careful", "--session", "s1", text="delete it")
    assert (done.code, done.out) == (1, "I can. \n")
    assert done.err == (
        "hubbub: careful asks: Really delete it? - a pipe cannot answer: "
        f"chat at a terminal, or at {hub.url}/?session=s1\n"
    )
    other = await hub.connect("?sessionId=s1&afterSeq=0", extended=True)
    assert (await other.until_type("run_finished"))["stopReason"] == "cancelled"


@pytest.mark.parametrize("command", [("chat", "echo", "--session"), ("tail",), ("export",)], ids=lambda one: one[0])
async def test_an_invalid_session_id_is_refused_in_one_line(hub: Hub, command: tuple[str, ...]) -> None:
    """The line has the error message of the hub."""
    await hub.start()
    done = await piped(hub, *command, "bad id", text="hi")
    assert (done.code, done.out) == (1, "")
    assert (
        done.err.startswith("hubbub: ")
        and done.err.count("\n") == 1
        and re.search("sessionId|not a valid id", done.err)
    )


@pytest.mark.parametrize(
    "command", [("chat",), ("sessions",), ("tail", "s1"), ("export", "s1")], ids=lambda one: one[0]
)
async def test_without_a_hub_one_line_says_how_to_start_one(hub: Hub, command: tuple[str, ...]) -> None:
    """Instead of ECONNREFUSED."""
    hub.folder.mkdir(exist_ok=True)
    done = await piped(hub, *command, text="hi", port=1)
    assert done == Done(
        1,
        "",
        "hubbub: no hub answers at http://127.0.0.1:1: "
        "start one with `make run` or `hubbub serve`, or give its address with --url\n",
    )


async def test_the_default_hub_comes_from_the_settings_of_the_folder(hub: Hub) -> None:
    """Without --url and HUBBUB_URL, a command uses the port that `hubbub serve` would use in this folder."""
    await hub.start()
    (hub.folder / "hubbub.toml").write_text(f'[hubbub]\nhost = "127.0.0.1"\nport = {hub.port}\n')
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "hub", "sessions"),
        cwd=hub.folder,
        env={k: v for k, v in os.environ.items() if not k.startswith("HUBBUB_")} | {"PYTHONPATH": str(ROOT)},
        stdout=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(PATIENCE):
        assert (await process.communicate())[0] == b"no sessions yet\n"


# --- records ----------------------------------------------------------------------------------------------------------


async def chat_in_pipe(hub: Hub, agent: str, session: str, message: str) -> None:
    assert (await piped(hub, "chat", agent, "--session", session, text=message)).code == 0


async def test_sessions_are_listed_newest_first(hub: Hub) -> None:
    """With the title or the beginning of the first message, and the number of messages."""
    await hub.start()
    await chat_in_pipe(hub, "echo", "older", "hi")
    await chat_in_pipe(hub, "echo", "named", "hi")
    await chat_in_pipe(hub, "echo", "newer", "what \x1b[1mis\n" + "a long question " * 9)
    async with aiohttp.ClientSession() as http:
        await http.patch(f"{hub.url}/api/v1/sessions/named", json={"title": "Plans [b]"})
        await http.post(f"{hub.url}/api/v1/sessions", json={"sessionId": "empty"})
    done = await piped(hub, "sessions")
    listed = [re.split(r"\s{2,}", line)[:3] for line in done.out.splitlines()[1:]]
    assert sorted(listed) == sorted(
        [
            ["empty", "-", "0"],
            ["newer", "what ␛[1mis a long question a long question a long question…", "2"],
            ["named", "Plans [b]", "2"],
            ["older", "hi", "2"],
        ]
    )
    ids = [row[0] for row in listed if row[0] != "empty"]
    assert ids == ["newer", "named", "older"]
    assert done.err == "" and (await piped(hub, "sessions", "--limit", "1")).err == (
        "there are more sessions: see them with --limit 5\n"
    )


async def test_a_session_id_is_listed_complete_beside_a_long_title(hub: Hub, tmp_path: Path) -> None:
    """Also in 90 columns: the other commands need the id."""
    await hub.start()
    name = "s_" + "0123456789" * 3
    await chat_in_pipe(hub, "echo", name, "a long question " * 9)
    async with terminal(tmp_path, "sessions", *at(hub)) as screen:
        await screen.until(f"\n{name}  ")


async def test_an_export_has_the_complete_session(hub: Hub) -> None:
    """Also over several pages: as Markdown, and as JSON with the exact texts."""
    hub.agent("evil.py", EVIL_AGENT)
    await hub.start()
    client = await hub.connect(extended=True)
    for number in range(60):
        await client.send(type="chat", agentId="echo", sessionId="s1", message=f"number {number}")
        await client.until_done()
    await chat_in_pipe(hub, "evil", "s1", "now you")
    markdown = (await piped(hub, "export", "s1")).out
    assert markdown.startswith("### local\n\nnumber 0\n\n### echo\n\nnumber 0\n\n### local\n\nnumber 1\n")
    assert markdown.endswith("### evil\n\n␛[31mred␛]0;owned␇ \ufffd2J [bold]no[/bold]\n")
    written = (await piped(hub, "export", "s1", "--format", "json")).out
    assert "\x1b" not in written and "\x9b" not in written
    messages: list[dict[str, Any]] = json.loads(written)
    assert len(messages) == 122 and messages[-1]["content"] == EVIL and messages[-2]["content"] == "now you"


async def test_an_export_says_which_answers_were_cut(hub: Hub) -> None:
    """As Markdown in a line below the answer's text, and as JSON in its fields."""
    code = "from hub import AgentError\n\nasync def fails(message):\n    yield message\n"
    hub.agent("fails.py", code + "    raise AgentError('The \\x1bmodel is gone.')")
    silent = "    yield message\n    await asyncio.Event().wait()"
    hub.agent("hangs.py", f"import asyncio\nasync def hangs(message):\n{silent}")
    head = "import asyncio\nfrom hub import agent\n@agent(silence_limit=0.02)\n"
    hub.agent("late.py", f"{head}async def late(message):\n{silent}")
    await hub.start()
    client = await hub.connect(extended=True)
    for agent in ("hangs", "late", "fails"):
        await client.send(type="chat", agentId=agent, sessionId="s1", message="half")
        await client.until_type("stream")
        if agent == "hangs":
            await client.send(type="cancel", sessionId="s1")
        await client.until_done()
    written = (await piped(hub, "export", "s1")).out
    assert "\n### hangs\n\nhalf\n\n— cancelled —\n" in written and "\n### late\n\nhalf\n\n— timeout —\n" in written
    assert written.endswith("\n### fails\n\nhalf\n\n— The ␛model is gone. —\n")
    messages = json.loads((await piped(hub, "export", "s1", "--format", "json")).out)
    answers = [message for message in messages if message["role"] == "assistant"]
    assert [answer["stopReason"] for answer in answers] == ["cancelled", "timeout", "error"]
    assert answers[2]["error"] == {"code": "agent_error", "message": "The \x1bmodel is gone."}


@pytest.mark.parametrize("command", ["export", "tail"])
async def test_an_unknown_session_is_not_exported_and_not_followed(hub: Hub, command: str) -> None:
    """The error is one line with the message of the hub. The command creates no session."""
    await hub.start()
    done = await piped(hub, command, "nosuch")
    assert done == Done(1, "", "hubbub: there is no session nosuch\n")
    assert (await piped(hub, "sessions")).out == "no sessions yet\n"


async def test_tail_shows_questions_and_replies(hub: Hub) -> None:
    """Each on its own line."""
    hub.agent("careful.py", CAREFUL)
    await hub.start()
    client = await hub.connect(extended=True)
    await client.send(type="chat", agentId="careful", sessionId="s1", message="go")
    asked = await client.until_type("interrupt")
    process = await start(hub, "tail", "s1")
    assert process.stdout is not None
    async with asyncio.timeout(PATIENCE):
        assert await process.stdout.readline() == b"careful: I can. \n"
        assert await process.stdout.readline() == b"? careful asks: Really go?\n"
        await client.send(type="resume", sessionId="s1", interruptId=asked["id"], status="resolved", payload=True)
        assert await process.stdout.readline() == b"? local answered: true\n"
        assert await process.stdout.readline() == b"careful: resolved True local\n"
        process.send_signal(signal.SIGINT)
        await process.wait()


async def test_tail_follows_a_session_live(hub: Hub, tmp_path: Path) -> None:
    """User messages and answers as they come, until Ctrl-C. A running answer is shown from its beginning."""
    await hub.start()
    gate = tmp_path / "gate"
    client = await hub.connect(extended=True)
    await client.send(type="chat", agentId="gated", sessionId="s1", message=str(gate))
    await client.until_type("stream")
    process = await start(hub, "tail", "s1")
    assert process.stdout is not None
    async with asyncio.timeout(PATIENCE):
        assert await process.stdout.readexactly(len("gated: one ")) == b"gated: one "
        gate.touch()
        assert await process.stdout.readline() == b"two\n"
        await client.send(type="chat", agentId="echo", sessionId="s1", message="hello \x1b[1mthere")
        assert (await process.stdout.readline()).decode() == "local> hello ␛[1mthere\n"
        assert (await process.stdout.readline()).decode() == "echo: hello ␛[1mthere \n"
        process.send_signal(signal.SIGINT)
        out, err = await process.communicate()
    assert (process.returncode, out, err) == (130, b"", b"following s1; press Ctrl-C to stop\n")


async def test_tail_reports_a_reconnect_on_standard_error(hub: Hub, tmp_path: Path) -> None:
    """Standard output has only the text, and no text is lost."""
    await hub.start()
    gate = tmp_path / "gate"
    client = await hub.connect(extended=True)
    await client.send(type="chat", agentId="gated", sessionId="s1", message=str(gate))
    await client.until_type("stream")
    proxy = await Proxy(lambda: ("127.0.0.1", hub.port)).start()
    try:
        process = await start(hub, "tail", "s1", port=proxy.port)
        assert process.stdout is not None and process.stderr is not None
        async with asyncio.timeout(PATIENCE):
            assert await process.stdout.readexactly(len("gated: one ")) == b"gated: one "
            for link in list(proxy.links):
                link.reset()
            error_lines = [await process.stderr.readline() for _ in range(3)]
            gate.touch()
            assert await process.stdout.readline() == b"two\n"
            process.send_signal(signal.SIGINT)
            await process.wait()
    finally:
        await proxy.stop()
    lost, again = b"hubbub: the connection is lost; trying again\n", b"hubbub: connected again\n"
    assert error_lines == [b"following s1; press Ctrl-C to stop\n", lost, again]


# --- text -------------------------------------------------------------------------------------------------------------


@given(st.text(alphabet=st.characters(codec="utf-8")))
def test_no_control_character_gets_through(text: str) -> None:
    """Except tabs and newlines. All other characters stay unchanged."""
    shown = to_printable(text)
    assert not [sign for sign in shown if sign not in "\n\t" and (ord(sign) < 32 or 127 <= ord(sign) < 160)]
    assert to_printable(shown) == shown
    if text.isprintable() and not set(text) & set("\u061c\u200e\u200f"):
        assert shown == text


PIECES = st.lists(
    st.sampled_from(["# a\n", "\n", "text", " more\n", "- item\n", "  in it\n", "```\n", "1. one\n", "~~~\n"])
)


@given(PIECES)
def test_the_blocks_of_markdown_add_up_to_the_complete_text(pieces: list[str]) -> None:
    """However the text is split, the result is the same, and no text is lost, added or moved."""
    blocks = BlockSplitter()
    done = [blocks.add(piece) for piece in pieces]
    assert "".join(done) + blocks.rest == "".join(pieces)
    whole = BlockSplitter()
    assert whole.add("".join(pieces)) + whole.rest == "".join(pieces)


def test_markdown_is_split_only_after_complete_blocks() -> None:
    """Not inside a list or a fenced block."""
    blocks = BlockSplitter()
    assert blocks.add("one\ntwo\n\n") == ""
    assert blocks.add("# a\n\n- b\n\n- c\n\n  of c\n") == "one\ntwo\n\n"
    assert blocks.add("\nafter\n") == "# a\n\n- b\n\n- c\n\n  of c\n\n"
    assert blocks.add("\n```py\nx\n\ny\n\n```\n") == "after\n\n"
    assert blocks.add("\nend") == ""
    assert blocks.add("\n") == "```py\nx\n\ny\n\n```\n\n"
    assert blocks.rest == "end\n"


@pytest.mark.parametrize(
    ("given", "http"),
    [
        ("http://localhost:9527", "http://localhost:9527"),
        ("localhost:9527/", "http://localhost:9527"),
        ("wss://hub.example/api/v1/ws", "https://hub.example"),
        ("https://hub.example/api/v1/?x=1", "https://hub.example"),
    ],
)
def test_the_address_of_a_hub_has_several_forms(given: str, http: str) -> None:
    """The address of its page, of its WebSocket, or a host and a port."""
    assert http_url(given) == http
    assert websocket_url(given) == http.replace("http", "ws", 1) + "/api/v1/ws"
