"""A session drawn on a terminal: answers grow at the bottom, as Markdown; what is whole goes up for good."""

import asyncio
from collections.abc import Callable

import attrs
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.segment import Segment
from rich.text import Text

from hub.cli.markdown import markdown
from hub.cli.questions import asks, closed, wanted
from hub.cli.text import Blocks, safe
from hub.client import Unknown
from hub.messages import (
    Body,
    Chunk,
    Event,
    Interrupt,
    InterruptResolved,
    MessageRemoved,
    Progress,
    Reset,
    RunError,
    RunFinished,
    RunStarted,
    ToolCallStart,
    UserMessage,
    WholeMessage,
)

FRAME_SECONDS = 1 / 30
SILENT_ENDS = ("end_turn", "max_tokens", "error")  # an error was told just before


@attrs.define
class Bottom:
    """The last lines of something that may be taller than the screen."""

    inner: RenderableType

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        room = max(1, console.size.height - 2)
        # Narrower than the console, so that rich wraps code, and not the terminal.
        narrower = options.update(width=max(1, options.max_width - 1), height=None)
        for line in console.render_lines(self.inner, narrower, pad=False)[-room:]:
            yield from line
            yield Segment.line()


@attrs.define(kw_only=True)
class Open:
    """An answer that is going on: what of it is not printed for good yet."""

    agent: str
    message: str = ""
    blocks: Blocks = attrs.Factory(Blocks)
    titled: bool = False
    going_on: bool = False  # a piece of this message was printed: a blank line comes before the next, as in Markdown
    doing: str = "…"

    def title(self) -> Text:
        return Text(f"{safe(self.agent)}:", style="bold cyan")

    def render(self) -> RenderableType:
        head = [] if self.titled else [self.title()]
        if self.going_on:
            head.append(Text())
        body = markdown(self.blocks.rest) if self.blocks.rest.strip() else Text(self.doing, style="dim")
        return Group(*head, body)


@attrs.define(eq=False, kw_only=True)
class Screen:
    """Shows every event of a session. *say* prints something for good, above what is being written or answered."""

    console: Console
    say: Callable[[RenderableType], None]
    mine: set[str] = attrs.Factory(set)  # the clientMsgIds of what was typed here, and stands on the screen already
    answers: dict[str, Open] = attrs.Factory(dict)
    questions: dict[str, Event] = attrs.Factory(dict)  # the open ones that were shown, by id, the oldest first
    live: Live | None = None
    ended: set[str] = attrs.Factory(set)
    _moved: asyncio.Event = attrs.Factory(asyncio.Event)
    _timer: asyncio.TimerHandle | None = None

    def show(self, event: Event | Reset) -> None:
        if isinstance(event, Reset):
            self.forget()
            self.say(Text("— this session begins anew —", style="dim"))
            return
        handle = SHOWN.get(type(event.body))
        if handle is not None:
            handle(self, event, event.body)
        self._soon()

    def forget(self) -> None:
        """Forget what is going on: another session is shown, or the same anew."""
        self.answers.clear()
        self.questions.clear()
        self.move()

    async def over(self, run: str) -> None:
        """Wait until the end of a run was shown."""
        await self.until(lambda: run in self.ended)
        self.ended.discard(run)

    async def until(self, wanted: Callable[[], bool]) -> None:
        """Wait until something is so; it is looked at whenever a question or an end was shown, and after `move`."""
        while not wanted():
            self._moved.clear()
            await self._moved.wait()

    def move(self) -> None:
        self._moved.set()

    def watch(self) -> Live:
        """Return the region at the bottom, to be entered for as long as answers are to grow there."""
        self.live = Live(
            console=self.console,
            get_renderable=self._render,
            auto_refresh=False,  # no thread: drawn when something has changed, in this loop
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        return self.live

    def unwatch(self) -> None:
        self.live = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _render(self) -> RenderableType:
        return Bottom(Group(*(answer.render() for answer in self.answers.values())))

    def _soon(self) -> None:
        if self.live is not None and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(FRAME_SECONDS, self._draw)

    def _draw(self) -> None:
        self._timer = None
        if self.live is not None:
            self.live.refresh()

    # --- one short function for each event --------------------------------------------------------------------------

    def _asked(self, event: Event, body: UserMessage) -> None:
        if body.clientMsgId not in self.mine:
            self.say(Text.assemble((f"{safe(body.author.name)}> ", "bold green"), safe(body.content)))

    def _started(self, event: Event, body: RunStarted) -> None:
        self._answer(event)

    def _text(self, event: Event, body: Chunk | WholeMessage) -> None:
        answer = self._answer(event)
        if answer.message != body.messageId:
            self._print(answer, answer.blocks.rest)
            answer.message, answer.blocks, answer.going_on = body.messageId, Blocks(), False
        self._print(answer, answer.blocks.add(safe(body.content)))

    def _doing(self, event: Event, body: ToolCallStart | Progress) -> None:
        what = body.toolCallName if isinstance(body, ToolCallStart) else body.message or f"{body.progress:.0%}"
        self._answer(event).doing = f"… {safe(what)}"

    def _removed(self, event: Event, body: MessageRemoved) -> None:
        self.answers.pop(event.runId or "", None)
        self.say(Text(f"— {safe(event.agentId or '')} begins anew —", style="dim"))

    def _failed(self, event: Event, body: RunError) -> None:
        self._flush(event)
        self.say(Text(f"{safe(event.agentId or '')}: {safe(body.message)}", style="red"))

    def _finished(self, event: Event, body: RunFinished) -> None:
        self._flush(event)
        self.answers.pop(event.runId or "", None)
        if body.stopReason not in SILENT_ENDS:
            self.say(Text(f"— {body.stopReason} —", style="dim"))
        self.ended.add(event.runId or "")
        self.move()

    def _asks(self, event: Event, body: Interrupt) -> None:
        self._flush(event)
        self.questions[body.id] = event
        hint = wanted(body.responseSchema)
        self.say(Text.assemble((asks(event, body), "bold yellow"), (f" ({hint})" if hint else "", "dim")))
        self.move()

    def _closed(self, event: Event, body: InterruptResolved) -> None:
        if self.questions.pop(body.interruptId, None) is not None:
            self.say(Text(f"— {closed(body)} —", style="dim"))
        self.move()

    def _unknown(self, event: Event, body: Unknown) -> None:
        if body.name == RunFinished.type:
            self._finished(event, RunFinished("", "end_turn"))

    def _answer(self, event: Event) -> Open:
        return self.answers.setdefault(event.runId or "", Open(agent=event.agentId or ""))

    def _flush(self, event: Event) -> None:
        answer = self._answer(event)
        rest, answer.blocks = answer.blocks.rest, Blocks()
        self._print(answer, rest)

    def _print(self, answer: Open, text: str) -> None:
        """Print a finished piece of an answer for good, under its agent's name where it is the first."""
        if not text.strip():
            return
        if not answer.titled or len(self.answers) > 1:  # two at once are told apart
            self.say(answer.title())
            answer.titled, answer.going_on = True, False
        if answer.going_on:
            self.say(Text())
        self.say(markdown(text))
        answer.going_on = True


SHOWN: dict[type[Body], Callable[..., None]] = {
    UserMessage: Screen._asked,
    RunStarted: Screen._started,
    Chunk: Screen._text,
    WholeMessage: Screen._text,
    ToolCallStart: Screen._doing,
    Progress: Screen._doing,
    MessageRemoved: Screen._removed,
    RunError: Screen._failed,
    RunFinished: Screen._finished,
    Interrupt: Screen._asks,
    InterruptResolved: Screen._closed,
    Unknown: Screen._unknown,
}
