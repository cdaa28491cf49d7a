"""`hubbub chat` at a terminal: an input line, growing answers, and the messages of other people in the session."""

import asyncio
import re
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from secrets import token_hex
from urllib.parse import quote as quote_url

import attrs
from prompt_toolkit import PromptSession
from prompt_toolkit.application import run_in_terminal
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from hub.access.principal import LOCAL
from hub.cli.failures import CommandFailed
from hub.cli.hubs import choose_agent, open_client, report_losses, request_json
from hub.cli.keyboard import keep_keys, make_key_bindings, open_history, open_keyboard
from hub.cli.markdown import draw_markdown
from hub.cli.questions import parse_answer
from hub.cli.records import author_name, end_note
from hub.cli.screen import Screen
from hub.cli.text import to_printable
from hub.client import Answer, Client, Closed, Failure, Session
from hub.client.addresses import public_url
from hub.ids import quote
from hub.messages import Event, Interrupt, Reset

HELP = """\
/agents [NAME]   list the agents, or chat with another one
/session [ID]    show the id of this session, or join another one
/share           show how others join this session
/answer TEXT     answer the oldest open question
/cancel          stop all answers in this session
/history [N]     show the last messages (20)
/help            show this list
/quit            leave; Ctrl-D and pressing Ctrl-C twice do the same
Enter sends, Alt-Enter starts a new line. Ctrl-C stops an answer."""


async def chat_at_terminal(url: str, agent: str | None, session: str | None) -> int:
    """Chat until the person leaves, and return the exit code.

    Raises CommandFailed with the cause if the chat cannot start or continue.
    """
    async with open_client(url) as hub:
        chat = TerminalChat(hub=hub, url=url, agent=choose_agent(hub, agent))
        async with report_losses(hub, lambda line: chat.say(Text(f"— {line} —", style="yellow"))):
            with keep_keys():
                return await chat.run(session or f"s_{token_hex(6)}")


@attrs.define(eq=False, kw_only=True)
class TerminalChat:
    """One person at a terminal, in one session at a time."""

    hub: Client
    url: str
    agent: str
    console: Console = attrs.Factory(lambda: Console(highlight=False))
    prompt: PromptSession[str] = attrs.field(init=False)
    screen: Screen = attrs.field(init=False)
    session: Session = attrs.field(init=False)
    is_leaving: bool = False  # the next Ctrl-C ends the chat
    presses: asyncio.Queue[None] = attrs.Factory(asyncio.Queue)  # one item for each Ctrl-C outside the prompt `you>`
    _read_task: asyncio.Task[None] | None = None

    def __attrs_post_init__(self) -> None:
        self.prompt = PromptSession(history=open_history(), key_bindings=make_key_bindings(), input=open_keyboard())
        self.screen = Screen(console=self.console, say=self.say)

    async def run(self, session: str) -> int:
        """Join a session, chat until the person leaves, and return the exit code.

        Raises CommandFailed if the hub refuses the session, or closes for good.
        """
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, self._on_interrupt_signal)
        try:
            await self._join(session)
            self.say(Text(f"{self.agent} in session {session}; /help lists the commands", style="dim"))
            while await self._handle_line():
                pass
        except Failure as failure:
            raise CommandFailed(failure.message) from None
        finally:
            if self._read_task is not None:
                self._read_task.cancel()
                await asyncio.wait([self._read_task])
        return 0

    async def _handle_line(self) -> bool:
        """Read and handle one message or command; return False to leave."""
        line = await self._read_line()
        if line is None:
            return False
        self.is_leaving = self.is_leaving and not line
        word, _, rest = line.strip().partition(" ")
        if word in CHAT_COMMANDS:
            try:
                return await CHAT_COMMANDS[word](self, rest.strip())
            except (Failure, ValueError) as failure:
                self.say(Text(to_printable(str(failure)), style="red"))
        elif word.startswith("/") and "/" not in word[1:]:
            self.say(Text(f"there is no command {to_printable(word)}: /help lists the commands", style="red"))
        elif line.strip():
            return await self._send(line)
        return True

    async def _read_line(self) -> str | None:
        """Return the input line, or None to leave. The first Ctrl-C only clears the line."""
        try:
            if not self.presses.empty():  # Ctrl-C was pressed between an answer and the prompt
                self.presses.get_nowait()
                raise KeyboardInterrupt
            return await self.prompt.prompt_async("you> ", handle_sigint=False)
        except EOFError:
            return None
        except KeyboardInterrupt:
            if self.is_leaving:
                return None
            self.is_leaving = True
            self.say(Text("press Ctrl-C again to leave", style="dim"))
            return ""

    def _on_interrupt_signal(self) -> None:
        """Handle SIGINT like a Ctrl-C. At a prompt, the keyboard's Ctrl-C is a key, not a signal."""
        app = self.prompt.app
        if not app.is_running:
            self.presses.put_nowait(None)
        elif not app.is_done:
            app.exit(exception=KeyboardInterrupt())

    async def _send(self, message: str) -> bool:
        """Send a message, and wait until its answer has ended. Return False after a second Ctrl-C.

        Meanwhile, show all answers in the session, and prompt for a reply to each question of the awaited answer.
        Raises Closed. Raises Failure if the events of the session have ended, and the hub refuses a new subscription.
        """
        if self.screen.has_ended:
            await self._join(self.session.id)
        client_msg_id = token_hex(16)
        self.screen.own_messages.add(client_msg_id)
        answer = self.session.chat(message, agent=self.agent, client_msg_id=client_msg_id)
        read_task = asyncio.create_task(self._read_answer(answer))
        try:
            while not read_task.done():
                if not await self._wait_for_question(answer, read_task):
                    return False
                for question in self._open_questions(answer)[:1]:
                    await self._ask_for_reply(answer, question)
            read_task.result()
        except Closed:
            raise
        except Failure as failure:
            self.say(Text(to_printable(failure.message), style="red"))
        finally:
            read_task.cancel()
            await asyncio.wait([read_task])
        return True

    async def _wait_for_question(self, answer: Answer, read_task: asyncio.Task[None]) -> bool:
        """Wait until an answer ends or asks a question, and return True.

        The first Ctrl-C stops the answer. At the second Ctrl-C, return False.
        """
        stop_task = asyncio.create_task(self._stop_on_press(answer))
        question_task = asyncio.create_task(self.screen.wait_until(lambda: bool(self._open_questions(answer))))
        try:
            with self.screen.open_live():
                await asyncio.wait([read_task, stop_task, question_task], return_when=asyncio.FIRST_COMPLETED)
            return not stop_task.done()
        finally:
            self.screen.close_live()
            for task in (stop_task, question_task):
                task.cancel()
            await asyncio.wait([stop_task, question_task])

    async def _read_answer(self, answer: Answer) -> None:
        async for _ in answer:
            self.screen.notify()  # the run's id is known now; _show_events() shows the event
        if answer.accepted is not None:
            await self.screen.wait_for_end(answer.accepted.runId)

    async def _stop_on_press(self, answer: Answer) -> None:
        """Stop an answer at the first Ctrl-C, and return at the second."""
        await self.presses.get()
        self.say(Text("stopping; press Ctrl-C again to leave", style="dim"))
        cancel_task = asyncio.create_task(answer.cancel())
        try:
            await self.presses.get()
        finally:
            cancel_task.cancel()
            await asyncio.wait([cancel_task])

    # --- questions of agents ------------------------------------------------------------------------------------------

    def _open_questions(self, answer: Answer) -> list[Interrupt]:
        """Return the questions of an answer that are open on the screen, oldest first."""
        run = answer.accepted and answer.accepted.runId
        return [_interrupt_of(event) for event in self.screen.questions.values() if event.runId == run]

    async def _ask_for_reply(self, answer: Answer, question: Interrupt) -> None:
        """Prompt for a reply, and send the reply. The prompt also ends when the question is closed otherwise.

        Ctrl-D declines the question. Ctrl-C stops the answer. Raises Closed.
        """
        try:
            line = await self._read_reply(question)
        except EOFError:
            line = None
        except KeyboardInterrupt:
            for open_question in self._open_questions(answer):  # do not prompt for these questions again
                del self.screen.questions[open_question.id]
            self.presses.put_nowait(None)
            return
        if question.id in self.screen.questions:
            try:
                await self._reply(question, line)
            except (Failure, ValueError) as failure:
                if isinstance(failure, Closed):
                    raise
                self.say(Text(to_printable(str(failure)), style="red"))

    async def _read_reply(self, question: Interrupt) -> str | None:
        resolution_task = asyncio.create_task(self.screen.wait_until(lambda: question.id not in self.screen.questions))

        def end_prompt() -> None:
            if resolution_task.done() and self.prompt.app.is_running and not self.prompt.app.is_done:
                self.prompt.app.exit(result="")

        resolution_task.add_done_callback(lambda _: end_prompt())
        try:
            self.say(Text("Enter answers, Ctrl-D declines, Ctrl-C stops", style="dim"))
            return await self.prompt.prompt_async("answer> ", handle_sigint=False, pre_run=end_prompt)
        finally:
            resolution_task.cancel()
            await asyncio.wait([resolution_task])

    async def _reply(self, question: Interrupt, line: str | None) -> None:
        """Send a reply, or decline if *line* is None. Then wait until the question is closed.

        Raises ValueError if the question does not allow the reply. Raises Failure if the hub refuses the reply, or the
        connection is lost.
        """
        status = "cancelled" if line is None else "resolved"
        reply = {} if line is None else {"payload": parse_answer(question.responseSchema, line)}
        fields = {"sessionId": self.session.id, "interruptId": question.id, "status": status}
        try:
            await self.hub.command(type="resume", **fields, **reply)
        except Failure as failure:
            if not failure.retryable:  # after a retryable failure, the person can reply again
                self.screen.questions.pop(question.id, None)
            raise
        await self.screen.wait_until(lambda: question.id not in self.screen.questions)

    def say(self, output: RenderableType) -> None:
        """Print above the input line, or above the growing answers."""
        if self.prompt.app.is_running:
            run_in_terminal(lambda: self.console.print(output, crop=False))
        else:
            self.console.print(output, crop=False)  # rich prints above a Live

    async def _join(self, session: str) -> None:
        is_same = self._read_task is not None and session == self.session.id
        if is_same and not self.screen.has_ended:
            return
        events = self.hub.subscribe(session=session)  # before session(), to show a running answer from its start
        joined_session = await self.hub.session(session, agent=self.agent)
        if self._read_task is not None:
            self._read_task.cancel()
            await asyncio.wait([self._read_task])
            if not is_same:
                self.session.leave()
            self.screen.clear()
        self.session, self.screen.has_ended = joined_session, False
        self._read_task = asyncio.create_task(self._show_events(events))

    async def _show_events(self, events: AsyncIterator[Event | Reset]) -> None:
        try:
            async for event in events:
                self.screen.show(event)
        except Failure as error:  # the next message subscribes again
            self.say(Text(f"— {to_printable(error.message)} —", style="red"))
        self.screen.end()

    # --- one short function for each command: it returns False to leave, else True ------------------------------------

    async def show_agents(self, name: str = "") -> bool:
        agents = {str(agent["agentId"]): agent for agent in (self.hub.welcome.agents if self.hub.welcome else ())}
        if name:
            if name in agents:
                self.agent = name
                self.say(Text(f"you chat with {name}"))
            else:
                self.say(Text(f"there is no agent {to_printable(name)}: /agents lists all"))
            return True
        table = Table("agent", "state", "description")
        for agent_id, agent in agents.items():
            table.add_row(
                Text(to_printable(agent_id)),
                to_printable(agent["status"]),
                Text(to_printable(agent.get("error") or agent["description"])),
            )
        self.say(table)
        return True

    async def answer(self, text: str = "") -> bool:
        """Answer the oldest open question of the session, also a question to another person."""
        if self.screen.questions:
            await self._reply(_interrupt_of(next(iter(self.screen.questions.values()))), text)
        else:
            self.say(Text("there is no open question", style="dim"))
        return True

    async def show_session(self, session: str = "") -> bool:
        if session:
            await self._join(session)
        self.say(Text(f"session {self.session.id}"))
        return True

    async def share(self, _: str = "") -> bool:
        if self.hub.welcome is not None and self.hub.welcome.principal.id != LOCAL.id:
            return await self._share_link()
        self.say(Text(f"hubbub chat --url {public_url(self.url)} --session {self.session.id}"))
        self.say(Text(f"{public_url(self.url)}/?session={self.session.id}"))
        return True

    async def _share_link(self) -> bool:
        """Make an invite link: with sign-in, the address of a session is not enough."""
        path = f"/sessions/{quote_url(self.session.id, safe='')}/invites"
        try:
            invite = await request_json("POST", self.url, path, json={"role": "member"})
        except CommandFailed as error:
            raise ValueError(str(error)) from None
        self.say(Text("whoever opens this link within 7 days joins the session:", style="dim"))
        self.say(Text(invite["link"]))
        return True

    async def cancel(self, _: str = "") -> bool:
        run_ids = await self.session.cancel()
        self.say(Text(f"stopped: {len(run_ids)}" if run_ids else "no answer is running", style="dim"))
        return True

    async def show_history(self, count: str = "") -> bool:
        if count and not re.fullmatch("[1-9][0-9]{0,5}", count):
            raise ValueError(f"/history takes a number from 1 to 999999, such as 50, not {quote(to_printable(count))}")
        for message in await self.session.history(int(count or 20)):
            self.say(Text(f"{to_printable(author_name(message))}:", style="bold"))
            text = to_printable(message["content"])
            self.say(Text(text) if message["role"] == "user" else draw_markdown(text))
            if note := end_note(message):
                self.say(Text(note, style="dim"))
        return True

    async def show_help(self, _: str = "") -> bool:
        self.say(Text(HELP))
        return True

    async def quit(self, _: str = "") -> bool:
        return False


CHAT_COMMANDS: dict[str, Callable[..., Awaitable[bool]]] = {
    "/agents": TerminalChat.show_agents,
    "/session": TerminalChat.show_session,
    "/share": TerminalChat.share,
    "/answer": TerminalChat.answer,
    "/cancel": TerminalChat.cancel,
    "/history": TerminalChat.show_history,
    "/help": TerminalChat.show_help,
    "/quit": TerminalChat.quit,
}


def _interrupt_of(event: Event) -> Interrupt:
    assert isinstance(event.body, Interrupt)
    return event.body
