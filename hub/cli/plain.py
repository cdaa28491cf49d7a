"""Answers as bare text, as they stream: what pipes, and `hubbub tail`."""

import asyncio
import signal
import sys
from collections.abc import Callable
from secrets import token_hex
from typing import Any
from urllib.parse import quote

import attrs

from hub.cli.failures import CommandFailed
from hub.cli.hubs import choose, get, opened, public_url, watched
from hub.cli.questions import asks, closed
from hub.cli.text import safe
from hub.client import Answer, Failure
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
class Plain:
    """Writes messages one after the other; each begins on a line of its own."""

    message: str = ""
    _at_start: bool = True

    def write(self, text: str) -> None:
        text = safe(text)
        if text:
            sys.stdout.write(text)
            sys.stdout.flush()
            self._at_start = text.endswith("\n")

    def begin(self, message: str, head: str = "") -> None:
        """Go on with a message, or begin another, under *head*."""
        if message != self.message:
            self.line()
            self.message = message
            self.write(head)

    def line(self) -> None:
        if not self._at_start:
            self.write("\n")


async def answer_once(url: str, agent: str | None, session: str | None, message: str) -> int:
    """Send one message, and write the answer; raises CommandFailed where it fails."""
    if not message.strip():
        raise CommandFailed("standard input is empty: there is nothing to say")
    session = session or f"s_{token_hex(10)}"
    stopping: list[asyncio.Task[object]] = []
    whole = asyncio.current_task()
    assert whole is not None
    async with opened(url) as hub, watched(hub, _note):
        try:
            answer = (await hub.session(session, agent=choose(hub, agent))).chat(message.rstrip("\n"))
            asyncio.get_running_loop().add_signal_handler(signal.SIGINT, _stop, answer, stopping, whole)
            await _write(answer, f"{public_url(url)}/?session={session}")
        except Failure as failure:
            raise CommandFailed(failure.message) from None
        finally:
            await asyncio.gather(*stopping, return_exceptions=True)
    return 0


def _note(what: str) -> None:
    print(f"hubbub: {what}", file=sys.stderr)


def _stop(answer: Answer, stopping: "list[asyncio.Task[object]]", whole: "asyncio.Task[Any]") -> None:
    """Ctrl-C: stop the answer; the second time, leave."""
    if stopping:
        whole.cancel()
    else:
        stopping.append(asyncio.create_task(answer.cancel()))


async def _write(answer: Answer, page: str) -> None:
    """Write an answer; what asks people is stopped, for here is nobody: *page* is where there is."""
    out, why = Plain(), ""
    async for event in answer:
        body = event.body
        if isinstance(body, (Chunk, WholeMessage)):
            out.begin(body.messageId)
            out.write(body.content)
        elif isinstance(body, MessageRemoved):
            out.line()
            _note("the answer begins anew")
        elif isinstance(body, Interrupt):
            out.line()
            await answer.cancel()
            raise CommandFailed(f"{asks(event, body)} - in a pipe nobody can answer: ask at a terminal, or at {page}")
        elif isinstance(body, RunError):
            why = body.message
        elif isinstance(body, RunFinished):
            out.line()
            if body.stopReason not in FINISH_REASONS:
                raise CommandFailed(safe(why) or f"the answer ended early ({body.stopReason})")


async def follow(url: str, session: str) -> int:
    """Write what is said in a session from now on; an answer that is going on is written from its beginning."""
    out = Plain()
    await get(url, f"/sessions/{quote(session, safe='')}")  # to follow one that is not there would make it
    print(f"following {session}; Ctrl-C ends", file=sys.stderr)
    async with opened(url) as hub, watched(hub, _note):
        try:
            async for event in hub.subscribe(session=session):
                _show(out, event)
        except Failure as failure:
            raise CommandFailed(failure.message) from None
    return 0


def _show(out: Plain, said: Event | Reset) -> None:
    body = said.body if isinstance(said, Event) else said
    agent = said.agentId if isinstance(said, Event) else None
    if isinstance(body, UserMessage):
        out.begin(body.messageId, f"{body.author.name}> ")
        out.write(body.content)
        out.line()
    elif isinstance(body, (Chunk, WholeMessage)):
        out.begin(body.messageId, f"{agent}: ")
        out.write(body.content)
    elif type(body) in NOTES:
        out.line()
        note = NOTES[type(body)](said, body)
        out.write(f"{note}\n" if note else "")


def _end(event: Event, body: RunFinished) -> str:
    usual = body.stopReason in (*FINISH_REASONS, "error")  # an error was told just before
    return "" if usual else f"! {event.agentId}: {body.stopReason}"


NOTES: dict[type, Callable[[Any, Any], str]] = {
    Interrupt: lambda event, body: f"? {asks(event, body)}",
    InterruptResolved: lambda event, body: f"? {closed(body)}",
    RunError: lambda event, body: f"! {event.agentId}: {body.message}",
    RunFinished: _end,
    MessageRemoved: lambda event, body: f"! {event.agentId}: the answer begins anew",
    Reset: lambda reset, body: "! this session begins anew",
}
