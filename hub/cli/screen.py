"""A session on a terminal: answers grow at the bottom as Markdown; complete blocks are printed above, for good."""

import asyncio
from collections.abc import Callable

import attrs
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.segment import Segment
from rich.text import Text

from hub.cli.markdown import draw_markdown
from hub.cli.questions import describe_answers, question_text, reply_text
from hub.cli.text import BlockSplitter, to_printable
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

REDRAW_SECONDS = 1 / 30
SILENT_REASONS = ("end_turn", "max_tokens", "error")  # for "error", run_error was shown just before


@attrs.define
class BottomLines:
    """Draws only the last lines of an output, as many as fit on the screen."""

    inner: RenderableType

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        height = max(1, console.size.height - 2)
        # Narrower than the console, so that rich wraps code, not the terminal.
        narrower_options = options.update(width=max(1, options.max_width - 1), height=None)
        for line in console.render_lines(self.inner, narrower_options, pad=False)[-height:]:
            yield from line
            yield Segment.line()


@attrs.define(kw_only=True)
class RunningAnswer:
    """A running answer, with its text that is not printed yet.

    *message* is the id of its current message. *activity* is shown while this message has no unprinted text.
    """

    agent: str
    message: str = ""
    blocks: BlockSplitter = attrs.Factory(BlockSplitter)
    has_title: bool = False  # the name of the agent was printed
    has_text: bool = False  # a block of this message was printed: a blank line comes before the next block
    activity: str = "…"

    def make_title(self) -> Text:
        return Text(f"{to_printable(self.agent)}:", style="bold cyan")

    def render(self) -> RenderableType:
        head = [] if self.has_title else [self.make_title()]
        if self.has_text:
            head.append(Text())
        body = draw_markdown(self.blocks.rest) if self.blocks.rest.strip() else Text(self.activity, style="dim")
        return Group(*head, body)


@attrs.define(eq=False, kw_only=True)
class Screen:
    """Shows the events of a session. *say* prints above the input line and the running answers."""

    console: Console
    say: Callable[[RenderableType], None]
    # The clientMsgIds of messages that were typed here: the screen shows these messages already.
    own_messages: set[str] = attrs.Factory(set)
    answers: dict[str, RunningAnswer] = attrs.Factory(dict)  # by the id of the run
    questions: dict[str, Event] = attrs.Factory(dict)  # by the id of the question: the open questions, oldest first
    live: Live | None = None
    ended_runs: set[str] = attrs.Factory(set)
    has_ended: bool = False  # no more events come
    _change: asyncio.Event = attrs.Factory(asyncio.Event)
    _timer: asyncio.TimerHandle | None = None

    def show(self, event: Event | Reset) -> None:
        """Show an event of the session, or start again after a reset."""
        if isinstance(event, Reset):
            self.clear()
            self.say(Text("— this session starts again —", style="dim"))
            return
        handle = EVENT_HANDLERS.get(type(event.body))
        if handle is not None:
            handle(self, event, event.body)
        self._schedule_draw()

    def clear(self) -> None:
        """Drop all running answers and open questions: after a reset, before another session, or at the last event."""
        self.answers.clear()
        self.questions.clear()
        self.notify()

    def end(self) -> None:
        """Clear the screen after its last event, and wake the tasks that wait for another one."""
        self.has_ended = True
        self.clear()

    async def wait_for_end(self, run: str) -> None:
        """Wait until the end of a run is shown, or until no more events come."""
        await self.wait_until(lambda: run in self.ended_runs or self.has_ended)
        self.ended_runs.discard(run)

    async def wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait until *condition* returns True. The method calls *condition* first, and again after each notify()."""
        while not condition():
            self._change.clear()
            await self._change.wait()

    def notify(self) -> None:
        self._change.set()

    def open_live(self) -> Live:
        """Return the region at the bottom in which answers grow, as a context manager."""
        self.live = Live(
            console=self.console,
            get_renderable=self._render,
            auto_refresh=False,  # no thread: the event loop calls _draw() after a change
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        return self.live

    def close_live(self) -> None:
        self.live = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _render(self) -> RenderableType:
        return BottomLines(Group(*(answer.render() for answer in self.answers.values())))

    def _schedule_draw(self) -> None:
        if self.live is not None and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(REDRAW_SECONDS, self._draw)

    def _draw(self) -> None:
        self._timer = None
        if self.live is not None:
            self.live.refresh()

    # --- one short function for each event --------------------------------------------------------------------------

    def _on_user_message(self, event: Event, body: UserMessage) -> None:
        if body.clientMsgId not in self.own_messages:
            self.say(Text.assemble((f"{to_printable(body.author.name)}> ", "bold green"), to_printable(body.content)))

    def _on_run_started(self, event: Event, body: RunStarted) -> None:
        self._get_answer(event)

    def _on_text(self, event: Event, body: Chunk | WholeMessage) -> None:
        answer = self._get_answer(event)
        if answer.message != body.messageId:
            self._print(answer, answer.blocks.rest)
            answer.message, answer.blocks, answer.has_text = body.messageId, BlockSplitter(), False
        self._print(answer, answer.blocks.add(to_printable(body.content)))

    def _on_activity(self, event: Event, body: ToolCallStart | Progress) -> None:
        activity = body.toolCallName if isinstance(body, ToolCallStart) else body.message or f"{body.progress:.0%}"
        self._get_answer(event).activity = f"… {to_printable(activity)}"

    def _on_message_removed(self, event: Event, body: MessageRemoved) -> None:
        self.answers.pop(event.runId or "", None)
        self.say(Text(f"— {to_printable(event.agentId or '')} starts again —", style="dim"))

    def _on_run_error(self, event: Event, body: RunError) -> None:
        self._flush(event)
        self.say(Text(f"{to_printable(event.agentId or '')}: {to_printable(body.message)}", style="red"))

    def _on_run_finished(self, event: Event, body: RunFinished) -> None:
        self._flush(event)
        self.answers.pop(event.runId or "", None)
        if body.stopReason not in SILENT_REASONS:
            self.say(Text(f"— {body.stopReason} —", style="dim"))
        self.ended_runs.add(event.runId or "")
        self.notify()

    def _on_interrupt(self, event: Event, body: Interrupt) -> None:
        self._flush(event)
        self.questions[body.id] = event
        hint = describe_answers(body.responseSchema)
        self.say(Text.assemble((question_text(event, body), "bold yellow"), (f" ({hint})" if hint else "", "dim")))
        self.notify()

    def _on_interrupt_resolved(self, event: Event, body: InterruptResolved) -> None:
        if self.questions.pop(body.interruptId, None) is not None:
            self.say(Text(f"— {reply_text(body)} —", style="dim"))
        self.notify()

    def _on_unknown(self, event: Event, body: Unknown) -> None:
        if body.name == RunFinished.type:
            self._on_run_finished(event, RunFinished("", "end_turn"))

    def _get_answer(self, event: Event) -> RunningAnswer:
        return self.answers.setdefault(event.runId or "", RunningAnswer(agent=event.agentId or ""))

    def _flush(self, event: Event) -> None:
        answer = self._get_answer(event)
        rest, answer.blocks = answer.blocks.rest, BlockSplitter()
        self._print(answer, rest)

    def _print(self, answer: RunningAnswer, text: str) -> None:
        """Print blocks of an answer. Print the agent's name before the first block.

        While several answers run, print the name before each *text*.
        """
        if not text.strip():
            return
        if not answer.has_title or len(self.answers) > 1:
            self.say(answer.make_title())
            answer.has_title, answer.has_text = True, False
        if answer.has_text:
            self.say(Text())
        self.say(draw_markdown(text))
        answer.has_text = True


EVENT_HANDLERS: dict[type[Body], Callable[..., None]] = {
    UserMessage: Screen._on_user_message,
    RunStarted: Screen._on_run_started,
    Chunk: Screen._on_text,
    WholeMessage: Screen._on_text,
    ToolCallStart: Screen._on_activity,
    Progress: Screen._on_activity,
    MessageRemoved: Screen._on_message_removed,
    RunError: Screen._on_run_error,
    RunFinished: Screen._on_run_finished,
    Interrupt: Screen._on_interrupt,
    InterruptResolved: Screen._on_interrupt_resolved,
    Unknown: Screen._on_unknown,
}
