"""`hubbub chat` at a terminal: a line to write on, answers as they grow, and what the others in the session say."""

import asyncio
import contextlib
import shlex
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from secrets import token_hex

import attrs
import click
from prompt_toolkit import PromptSession
from prompt_toolkit.application import run_in_terminal
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from hub.client import Answer, Client, Closed, Failure, Session
from hub.terminal.failures import CommandFailed
from hub.terminal.hubs import base, opened
from hub.terminal.records import who
from hub.terminal.screen import Screen, markdown
from hub.terminal.text import safe

HELP = """\
/agents [NAME]   which agents there are; or talk to another one
/session [ID]    which session this is; or join another one
/share           how others join this session
/cancel          stop all that is being answered here
/history [N]     the last messages (20)
/help            this
/quit            leave; so do Ctrl-D, and Ctrl-C twice
Alt-Enter begins a new line, Enter sends. Ctrl-C stops an answer."""


async def talk(url: str, agent: str, session: str | None) -> int:
    async with opened(url) as hub:
        return await Talk(hub, url, agent).run(session or f"s_{token_hex(6)}")


@attrs.define(eq=False)
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
        self.prompt = PromptSession(history=_history(), key_bindings=_keys())
        self.screen = Screen(self.console, self.say)

    async def run(self, session: str) -> int:
        """Join a session, and go on to the end; raises CommandFailed where the hub closes for good."""
        states = asyncio.create_task(self._watch())
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, self._pressed)
        try:
            await self._join(session)
            self.say(Text(f"{self.agent} in session {session}; /help tells what there is", style="dim"))
            while await self._turn():
                pass
        except Failure as failure:
            raise CommandFailed(failure.message) from None
        finally:
            for task in filter(None, (self._reading, states)):
                task.cancel()
                await asyncio.wait([task])
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
                return await COMMANDS[word](self, *shlex.split(rest)[:1])
            except (Failure, ValueError) as failure:
                self.say(Text(str(failure), style="red"))
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
        """Send a message, and show answers as they grow until its own has ended; False where Ctrl-C came twice."""
        client_msg_id = token_hex(16)
        self.screen.mine.add(client_msg_id)
        answer = self.session.chat(message, agent=self.agent, client_msg_id=client_msg_id)
        with _quiet(), self.screen.watch():
            try:
                return await self._until_over(answer)
            except Closed:
                raise
            except Failure as failure:
                self.say(Text(safe(failure.message), style="red"))
                return True
            finally:
                self.screen.unwatch()

    async def _until_over(self, answer: Answer) -> bool:
        """Wait for an answer. The first Ctrl-C stops it, the second does not wait for that."""
        tasks = {asyncio.create_task(self._heard(answer)), asyncio.create_task(self._stopper(answer))}
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            return done.pop().result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def _heard(self, answer: Answer) -> bool:
        async for _ in answer:
            pass  # it is shown with all else of the session
        if answer.accepted is not None:
            await self.screen.over(answer.accepted.runId)
        return True

    async def _stopper(self, answer: Answer) -> bool:
        await self.presses.get()
        self.say(Text("stopping; Ctrl-C once more leaves", style="dim"))
        stopping = asyncio.create_task(answer.cancel())
        try:
            await self.presses.get()
            return False
        finally:
            stopping.cancel()
            await asyncio.wait([stopping])

    def say(self, what: RenderableType) -> None:
        """Print above what is being written, or above the answers that grow."""
        if self.prompt.app.is_running:
            run_in_terminal(lambda: self.console.print(what))
        else:
            self.console.print(what)  # where a Live is on, rich prints above it

    async def _join(self, session: str) -> None:
        joined = await self.hub.session(session, agent=self.agent)
        if self._reading is not None:
            if session == self.session.id:
                return
            self._reading.cancel()
            await asyncio.wait([self._reading])
            self.session.leave()
            self.screen.answers.clear()
        self.session = joined
        self._reading = asyncio.create_task(self._read(joined))

    async def _read(self, session: Session) -> None:
        with contextlib.suppress(Failure):  # who is told of it is the one who asks
            async for event in session.events():
                self.screen.show(event)

    async def _watch(self) -> None:
        """Tell when the connection is lost, and when it is there again."""
        lost = False
        async for state in self.hub.states():
            if state == "waiting" and not lost:
                lost = True
                self.say(Text("— the connection is lost; trying again —", style="yellow"))
            elif state == "live" and lost:
                lost = False
                self.say(Text("— connected again —", style="yellow"))
        self.say(Text(f"— {self.hub.link.closed().message} —", style="red"))

    # --- one short function for each command; each says whether to go on ----------------------------------------------

    async def agents(self, name: str = "") -> bool:
        found = {str(one["agentId"]): one for one in (self.hub.welcome.agents if self.hub.welcome else ())}
        if name:
            if name in found:
                self.agent = name
            self.say(Text(f"you talk to {self.agent}" if name in found else f"there is no agent {safe(name)}"))
            return True
        table = Table("agent", "state", "description")
        for one, about in found.items():
            table.add_row(
                Text(safe(one)), safe(about["status"]), Text(safe(about.get("error") or about["description"]))
            )
        self.say(table)
        return True

    async def which(self, session: str = "") -> bool:
        if session:
            await self._join(session)
        self.say(Text(f"session {self.session.id}"))
        return True

    async def share(self, _: str = "") -> bool:
        self.say(Text(f"hubbub chat --url {base(self.url)} --session {self.session.id}"))
        self.say(Text(f"{base(self.url)}/?session={self.session.id}"))
        return True

    async def cancel(self, _: str = "") -> bool:
        stopped = await self.session.cancel()
        self.say(Text(f"stopped {len(stopped)}" if stopped else "nothing is being answered", style="dim"))
        return True

    async def history(self, count: str = "20") -> bool:
        for message in await self.session.history(int(count)):
            self.say(Text(f"{safe(who(message))}:", style="bold"))
            self.say(markdown(safe(message["content"])))
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
    "/cancel": Talk.cancel,
    "/history": Talk.history,
    "/help": Talk.help,
    "/quit": Talk.quit,
}


def _history() -> History:
    """Keep what was written for the next time, where that can be kept."""
    place = Path(click.get_app_dir("hubbub"))
    try:
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
        (place / "history").touch(mode=0o600)
    except OSError:
        return InMemoryHistory()
    return FileHistory(str(place / "history"))


def _keys() -> KeyBindings:
    keys = KeyBindings()

    @keys.add("escape", "enter")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    return keys


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep keys that are pressed meanwhile off the screen; the next prompt gets them."""
    try:
        import termios
    except ImportError:  # Windows
        yield
        return
    terminal = sys.stdin.fileno()
    before = termios.tcgetattr(terminal)
    quiet = termios.tcgetattr(terminal)
    quiet[3] &= ~termios.ECHO
    termios.tcsetattr(terminal, termios.TCSANOW, quiet)
    try:
        yield
    finally:
        termios.tcsetattr(terminal, termios.TCSANOW, before)
