"""Answers as plain text while they stream: `hubbub chat` in a pipe, and `hubbub tail`."""

import asyncio
import signal
import sys
from collections.abc import Callable
from secrets import token_hex
from typing import Any
from urllib.parse import quote

import attrs

from hub.cli.failures import CommandFailed
from hub.cli.hubs import choose_agent, get_json, open_client, report_losses
from hub.cli.questions import question_text, reply_text
from hub.cli.text import to_printable
from hub.client import Answer, Failure
from hub.client.addresses import public_url
from hub.messages import (
    FINISH_REASONS,
    Chunk,
    Event,
    Interrupt,
    InterruptResolved,
    MessageRemoved,
    Reset,
    RunError,
    RunFinished,
    UserMessage,
    WholeMessage,
)


@attrs.define
class PlainWriter:
    """Writes messages one after another. Each message starts on a new line. *message_id* is the current message."""

    message_id: str = ""
    _is_line_start: bool = True

    def write(self, text: str) -> None:
        text = to_printable(text)
        if text:
            sys.stdout.write(text)
            sys.stdout.flush()
            self._is_line_start = text.endswith("\n")

    def begin(self, message_id: str, prefix: str = "") -> None:
        """Start a message on a new line, with *prefix*. Do nothing if the message is the current one."""
        if message_id != self.message_id:
            self.end_line()
            self.message_id = message_id
            self.write(prefix)

    def end_line(self) -> None:
        if not self._is_line_start:
            self.write("\n")


async def ask_once(url: str, agent: str | None, session: str | None, message: str) -> int:
    """Send one message, write the answer, and return the exit code.

    Raises CommandFailed if the message is empty, if the hub cannot be used, or if the answer ends early or asks a
    question.
    """
    if not message.strip():
        raise CommandFailed("standard input is empty: write a message to it")
    session = session or f"s_{token_hex(10)}"
    cancels: list[asyncio.Task[object]] = []
    command = asyncio.current_task()
    assert command is not None
    async with open_client(url) as hub, report_losses(hub, _print_note):
        try:
            answer = (await hub.session(session, agent=choose_agent(hub, agent))).chat(message.rstrip("\n"))
            asyncio.get_running_loop().add_signal_handler(signal.SIGINT, _on_interrupt_signal, answer, cancels, command)
            await _write_answer(answer, f"{public_url(url)}/?session={session}")
        except Failure as failure:
            raise CommandFailed(failure.message) from None
        finally:
            await asyncio.gather(*cancels, return_exceptions=True)
    return 0


def _print_note(text: str) -> None:
    print(f"hubbub: {text}", file=sys.stderr)


def _on_interrupt_signal(answer: Answer, cancels: "list[asyncio.Task[object]]", command: "asyncio.Task[Any]") -> None:
    """Handle Ctrl-C: the first one stops the answer, the second one ends the command."""
    if cancels:
        command.cancel()
    else:
        cancels.append(asyncio.create_task(answer.cancel()))


async def _write_answer(answer: Answer, page: str) -> None:
    """Write an answer. Raises CommandFailed if the answer ends early or asks a question.

    After a question, the answer is stopped. The error names *page*, the console's address for this session.
    """
    out, reason = PlainWriter(), ""
    async for event in answer:
        body = event.body
        if isinstance(body, (Chunk, WholeMessage)):
            out.begin(body.messageId)
            out.write(body.content)
        elif isinstance(body, MessageRemoved):
            out.end_line()
            _print_note("the answer starts again")
        elif isinstance(body, Interrupt):
            out.end_line()
            await answer.cancel()
            raise CommandFailed(
                f"{question_text(event, body)} - a pipe cannot answer: chat at a terminal, or at {page}"
            )
        elif isinstance(body, RunError):
            reason = body.message
        elif isinstance(body, RunFinished):
            out.end_line()
            if body.stopReason not in FINISH_REASONS:
                raise CommandFailed(to_printable(reason) or f"the answer ended early ({body.stopReason})")


async def write_live(url: str, session: str) -> int:
    """Write the events of a session from now on. A running answer is written from its start.

    Raises CommandFailed if the session does not exist, or if the hub cannot be used.
    """
    out = PlainWriter()
    # This request raises CommandFailed if the session does not exist. A subscription accepts any id.
    await get_json(url, f"/sessions/{quote(session, safe='')}")
    print(f"following {session}; press Ctrl-C to stop", file=sys.stderr)
    async with open_client(url) as hub, report_losses(hub, _print_note):
        try:
            async for event in hub.subscribe(session=session):
                _write_event(out, event)
        except Failure as failure:
            raise CommandFailed(failure.message) from None
    return 0


def _write_event(out: PlainWriter, item: Event | Reset) -> None:
    body = item.body if isinstance(item, Event) else item
    agent = item.agentId if isinstance(item, Event) else None
    if isinstance(body, UserMessage):
        out.begin(body.messageId, f"{body.author.name}> ")
        out.write(body.content)
        out.end_line()
    elif isinstance(body, (Chunk, WholeMessage)):
        out.begin(body.messageId, f"{agent}: ")
        out.write(body.content)
    elif type(body) in NOTE_TEXTS:
        out.end_line()
        note = NOTE_TEXTS[type(body)](item, body)
        out.write(f"{note}\n" if note else "")


def _end_text(event: Event, body: RunFinished) -> str:
    is_silent = body.stopReason in (*FINISH_REASONS, "error")  # run_error was written just before
    return "" if is_silent else f"! {event.agentId}: {body.stopReason}"


NOTE_TEXTS: dict[type, Callable[[Any, Any], str]] = {
    Interrupt: lambda event, body: f"? {question_text(event, body)}",
    InterruptResolved: lambda event, body: f"? {reply_text(body)}",
    RunError: lambda event, body: f"! {event.agentId}: {body.message}",
    RunFinished: _end_text,
    MessageRemoved: lambda event, body: f"! {event.agentId}: the answer starts again",
    Reset: lambda reset, body: "! this session starts again",
}
