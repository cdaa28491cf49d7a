"""`hubbub chat` at a terminal: a line to write on, answers as they grow, and what the others in the session say."""

import asyncio
import re
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from secrets import token_hex

import attrs
from prompt_toolkit import PromptSession
from prompt_toolkit.application import run_in_terminal
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from hub.cli.failures import CommandFailed
from hub.cli.hubs import choose, opened, public_url, watched
from hub.cli.keyboard import history, keys, quiet
from hub.cli.markdown import markdown
from hub.cli.questions import payload
from hub.cli.records import ending, who
from hub.cli.screen import Screen
from hub.cli.text import safe
from hub.client import Answer, Client, Closed, Failure, Session
from hub.ids import quote
from hub.messages import Event, Interrupt, Reset

HELP = """\
/agents [NAME]   which agents there are; or talk to another one
/session [ID]    which session this is; or join another one
/share           how others join this session
/answer TEXT     answer what an agent asks here
/cancel          stop all that is being answered here
/history [N]     the last messages (20)
/help            this
/quit            leave; so do Ctrl-D, and Ctrl-C twice
Alt-Enter begins a new line, Enter sends. Ctrl-C stops an answer."""


async def talk(url: str, agent: str | None, session: str | None) -> int:
    async with opened(url) as hub:
        chat = Talk(hub=hub, url=url, agent=choose(hub, agent))
        async with watched(hub, lambda line: chat.say(Text(f"— {line} —", style="yellow"))):
            return await chat.run(session or f"s_{token_hex(6)}")


@attrs.define(eq=False, kw_only=True)
class Talk:
    """One person at a terminal, in one session at a time."""

    hub: Client
    url: str
    agent: str
    console: Console = attrs.Factory(lambda: Console(highlight=False))
    prompt: PromptSession[str] = attrs.field(init=False)
    screen: Screen = attrs.field(init=False)
    session: Session = attrs.field(init=False)
    warned: bool = False  # that one more Ctrl-C leaves
    presses: asyncio.Queue[None] = attrs.Factory(asyncio.Queue)  # of Ctrl-C, while there is no prompt
    _reading: asyncio.Task[None] | None = None

    def __attrs_post_init__(self) -> None:
        self.prompt = PromptSession(history=history(), key_bindings=keys())
        self.screen = Screen(console=self.console, say=self.say)

    async def run(self, session: str) -> int:
        """Join a session, and go on to the end; raises CommandFailed where the hub closes for good."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, self._pressed)
        try:
            await self._join(session)
            self.say(Text(f"{self.agent} in session {session}; /help tells what there is", style="dim"))
            while await self._turn():
                pass
        except Failure as failure:
            raise CommandFailed(failure.message) from None
        finally:
            if self._reading is not None:
                self._reading.cancel()
                await asyncio.wait([self._reading])
        return 0

    async def _turn(self) -> bool:
        """Take one message or command; say whether there may be another."""
        line = await self._line()
        if line is None:
            return False
        self.warned = self.warned and not line
        word, _, rest = line.strip().partition(" ")
        if word in COMMANDS:
            try:
                return await COMMANDS[word](self, rest.strip())
            except (Failure, ValueError) as failure:
                self.say(Text(safe(str(failure)), style="red"))
        elif word.startswith("/") and "/" not in word[1:]:
            self.say(Text(f"there is no {safe(word)}: /help tells what there is", style="red"))
        elif line.strip():
            return await self._ask(line)
        return True

    async def _line(self) -> str | None:
        """Return what was written; None to leave. A first Ctrl-C only clears the line."""
        try:
            if not self.presses.empty():  # pressed between an answer and the prompt
                self.presses.get_nowait()
                raise KeyboardInterrupt
            return await self.prompt.prompt_async("you> ", handle_sigint=False)
        except EOFError:
            return None
        except KeyboardInterrupt:
            if self.warned:
                return None
            self.warned = True
            self.say(Text("Ctrl-C once more leaves", style="dim"))
            return ""

    def _pressed(self) -> None:
        """Take a Ctrl-C. At a prompt the keyboard's comes as a key; one that comes as a signal is the same there."""
        app = self.prompt.app
        if not app.is_running:
            self.presses.put_nowait(None)
        elif not app.is_done:
            app.exit(exception=KeyboardInterrupt())

    async def _ask(self, message: str) -> bool:
        """Send a message, and show answers as they grow until its own has ended; False where Ctrl-C came twice.

        What its own asks meanwhile is asked here.
        """
        client_msg_id = token_hex(16)
        self.screen.mine.add(client_msg_id)
        answer = self.session.chat(message, agent=self.agent, client_msg_id=client_msg_id)
        heard = asyncio.create_task(self._heard(answer))
        try:
            while not heard.done():
                if not await self._until_asked(answer, heard):
                    return False
                for question in self._questions(answer)[:1]:
                    await self._take_reply(answer, question)
            heard.result()
        except Closed:
            raise
        except Failure as failure:
            self.say(Text(safe(failure.message), style="red"))
        finally:
            heard.cancel()
            await asyncio.wait([heard])
        return True

    async def _until_asked(self, answer: Answer, heard: asyncio.Task[None]) -> bool:
        """Wait until an answer is over or asks. The first Ctrl-C stops it, the second does not wait: then False."""
        stopper = asyncio.create_task(self._stopper(answer))
        asked = asyncio.create_task(self.screen.until(lambda: bool(self._questions(answer))))
        try:
            with quiet(), self.screen.watch():
                await asyncio.wait([heard, stopper, asked], return_when=asyncio.FIRST_COMPLETED)
            return not stopper.done()
        finally:
            self.screen.unwatch()
            for task in (stopper, asked):
                task.cancel()
            await asyncio.wait([stopper, asked])

    async def _heard(self, answer: Answer) -> None:
        async for _ in answer:
            self.screen.move()  # it is shown with all else of the session; and its run is known now
        if answer.accepted is not None:
            await self.screen.over(answer.accepted.runId)

    async def _stopper(self, answer: Answer) -> None:
        await self.presses.get()
        self.say(Text("stopping; Ctrl-C once more leaves", style="dim"))
        stopping = asyncio.create_task(answer.cancel())
        try:
            await self.presses.get()
        finally:
            stopping.cancel()
            await asyncio.wait([stopping])

    # --- what an agent asks -------------------------------------------------------------------------------------------

    def _questions(self, answer: Answer) -> list[Interrupt]:
        """Return what an answer asks, as far as it was shown and is open."""
        run = answer.accepted and answer.accepted.runId
        return [_question(one) for one in self.screen.questions.values() if one.runId == run]

    async def _take_reply(self, answer: Answer, question: Interrupt) -> None:
        """Let a question be answered here, or end the prompt where it is closed meanwhile. Ctrl-C stops the answer."""
        try:
            line = await self._reply_line(question)
        except EOFError:
            line = None
        except KeyboardInterrupt:
            for asked in self._questions(answer):  # none of them is put again
                del self.screen.questions[asked.id]
            self.presses.put_nowait(None)
            return
        if question.id in self.screen.questions:
            try:
                await self._reply(question, line)
            except (Failure, ValueError) as failure:
                if isinstance(failure, Closed):
                    raise
                self.say(Text(safe(str(failure)), style="red"))

    async def _reply_line(self, question: Interrupt) -> str | None:
        gone = asyncio.create_task(self.screen.until(lambda: question.id not in self.screen.questions))

        def leave() -> None:
            if gone.done() and self.prompt.app.is_running and not self.prompt.app.is_done:
                self.prompt.app.exit(result="")

        gone.add_done_callback(lambda _: leave())
        try:
            self.say(Text("Enter answers, Ctrl-D declines, Ctrl-C stops", style="dim"))
            return await self.prompt.prompt_async("answer> ", handle_sigint=False, pre_run=leave)
        finally:
            gone.cancel()
            await asyncio.wait([gone])

    async def _reply(self, question: Interrupt, line: str | None) -> None:
        """Send an answer, None where there will be none. Raises ValueError where it is not one that was asked for."""
        status = "cancelled" if line is None else "resolved"
        said = {} if line is None else {"payload": payload(question.responseSchema, line)}
        about = {"sessionId": self.session.id, "interruptId": question.id, "status": status}
        try:
            await self.hub.command(type="resume", **about, **said)
        except Failure as failure:
            if not failure.retryable:  # else it is asked again
                self.screen.questions.pop(question.id, None)
            raise
        await self.screen.until(lambda: question.id not in self.screen.questions)

    def say(self, what: RenderableType) -> None:
        """Print above what is being written, or above the answers that grow."""
        if self.prompt.app.is_running:
            run_in_terminal(lambda: self.console.print(what, crop=False))
        else:
            self.console.print(what, crop=False)  # where a Live is on, rich prints above it

    async def _join(self, session: str) -> None:
        if self._reading is not None and session == self.session.id:
            return
        events = self.hub.subscribe(session=session)  # before it is heard, so that what is going on is shown whole
        joined = await self.hub.session(session, agent=self.agent)
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait([self._reading])
            self.session.leave()
            self.screen.forget()
        self.session = joined
        self._reading = asyncio.create_task(self._read(events))

    async def _read(self, events: AsyncIterator[Event | Reset]) -> None:
        try:
            async for event in events:
                self.screen.show(event)
        except Closed as closed:
            self.say(Text(f"— {closed.message} —", style="red"))
        except Failure:
            pass  # the next command that a person sends gets the same error
        self.screen.forget()  # nobody is to wait for what will not come

    # --- one short function for each command; each says whether to go on ----------------------------------------------

    async def agents(self, name: str = "") -> bool:
        found = {str(one["agentId"]): one for one in (self.hub.welcome.agents if self.hub.welcome else ())}
        if name:
            if name in found:
                self.agent = name
                self.say(Text(f"you talk to {name}"))
            else:
                self.say(Text(f"there is no agent {safe(name)}: /agents lists all"))
            return True
        table = Table("agent", "state", "description")
        for one, about in found.items():
            table.add_row(
                Text(safe(one)), safe(about["status"]), Text(safe(about.get("error") or about["description"]))
            )
        self.say(table)
        return True

    async def answer(self, text: str = "") -> bool:
        """Answer the oldest open question here, whoever's chat it came of."""
        if self.screen.questions:
            await self._reply(_question(next(iter(self.screen.questions.values()))), text)
        else:
            self.say(Text("nothing is asked", style="dim"))
        return True

    async def which(self, session: str = "") -> bool:
        if session:
            await self._join(session)
        self.say(Text(f"session {self.session.id}"))
        return True

    async def share(self, _: str = "") -> bool:
        self.say(Text(f"hubbub chat --url {public_url(self.url)} --session {self.session.id}"))
        self.say(Text(f"{public_url(self.url)}/?session={self.session.id}"))
        return True

    async def cancel(self, _: str = "") -> bool:
        stopped = await self.session.cancel()
        self.say(Text(f"stopped {len(stopped)}" if stopped else "nothing is being answered", style="dim"))
        return True

    async def history(self, count: str = "") -> bool:
        if count and not re.fullmatch("[1-9][0-9]{0,5}", count):
            raise ValueError(f"/history takes a number from 1 to 999999, such as 50, not {quote(safe(count))}")
        for message in await self.session.history(int(count or 20)):
            self.say(Text(f"{safe(who(message))}:", style="bold"))
            text = safe(message["content"])
            self.say(Text(text) if message["role"] == "user" else markdown(text))
            if note := ending(message):
                self.say(Text(note, style="dim"))
        return True

    async def help(self, _: str = "") -> bool:
        self.say(Text(HELP))
        return True

    async def quit(self, _: str = "") -> bool:
        return False


COMMANDS: dict[str, Callable[..., Awaitable[bool]]] = {
    "/agents": Talk.agents,
    "/session": Talk.which,
    "/share": Talk.share,
    "/answer": Talk.answer,
    "/cancel": Talk.cancel,
    "/history": Talk.history,
    "/help": Talk.help,
    "/quit": Talk.quit,
}


def _question(event: Event) -> Interrupt:
    assert isinstance(event.body, Interrupt)
    return event.body
