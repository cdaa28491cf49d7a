"""What one run says: each piece an agent gives is checked, counted and given to the outbox, where it belongs."""

import asyncio
from collections.abc import Callable, Iterable
from typing import cast

import attrs
import msgspec
import orjson

from hub.errors import AgentError
from hub.hosting.contract import Finish
from hub.hosting.contract import Message as Whole
from hub.hosting.contract import Shelf
from hub.hosting.faults import is_count, refuse, said_too_much, utf8
from hub.hosting.output import KINDS
from hub.limits import Limits, size_text
from hub.messages import (
    FINISH_REASONS,
    Body,
    Fault,
    HistoryMessage,
    Interrupt,
    Reasoning,
    StopReason,
    ToolCallResult,
    Usage,
    WholeMessage,
)
from hub.messages.parts import Parts, Plain, plain
from hub.pools import hub_work
from hub.sessions.outbox import Outbox, PendingEvent
from hub.text import cut


def _is_sound(finish: Finish) -> bool:
    """Tell whether the log can hold what an agent made by hand."""
    usage = finish.usage
    if usage is not None and not isinstance(usage, Usage):
        return False
    counts = () if usage is None else (usage.inputTokens, usage.outputTokens)
    return finish.reason in FINISH_REASONS and all(count is None or is_count(count) for count in counts)


@attrs.define(eq=False, repr=False, kw_only=True)
class Speech:
    """The messages of one run as they come to be, and what it says between them.

    *texts* are the finished ones, *message_id* is the one that streams or will be next. *pending* counts the bytes that
    the log does not hold yet; *turned* says that the loop has gone round since it was last unset. All methods are
    called in the loop; what does not fit raises AgentError. Once *closed*, it says nothing more.
    """

    agent: str
    run: str
    user_message_id: str
    message_id: str
    outbox: Outbox
    limits: Limits
    shelf: Shelf
    new_id: Callable[[str], str]
    texts: list[HistoryMessage] = attrs.Factory(list)
    finish: Finish = Finish()
    pending: int = 0
    turned: bool = True
    closed: bool = False
    _parts: list[str] = attrs.Factory(list)
    _offset: int = 0
    _thought: str = ""
    _total: int = 0
    _room: asyncio.Future[None] | None = None

    # --- text -------------------------------------------------------------------------------------------------------

    def say(self, text: str) -> None:
        """Stream a piece of text."""
        if self.closed or not text:
            return
        size, limits = len(text) if text.isascii() else len(utf8(self.agent, text)), self.limits
        # What follows is counted and put here, not in functions of their own: it is done for every token.
        total = self._total + size
        if total > limits.run_bytes:
            raise self._too_much()
        if size > limits.chunk_bytes:
            step = limits.chunk_bytes // 4  # a code point takes at most 4 bytes
            for at in range(0, len(text), step):
                self.say(text[at : at + step])
            return
        self._total, self._thought = total, ""
        self.pending += size
        self.outbox.put_text(self.run, self.agent, self.message_id, self._offset, text, size, self._landed)
        self._parts.append(text)
        self._offset += len(text)

    def _landed(self, size: int) -> None:
        self.pending -= size
        self.turned = True  # the loop has: an agent of which something lands between two pieces waits by itself
        if self._room is not None:
            self._tell_room()

    async def until_room(self) -> None:
        """Wait, as the agent must, while the log is slower than it."""
        while self.pending > self.limits.pending_bytes // 2 and not self.closed:
            self._room = asyncio.get_running_loop().create_future()
            await self._room

    def _tell_room(self) -> None:
        waited, self._room = self._room, None
        if waited is not None and not waited.done():
            waited.set_result(None)

    # --- what is no text --------------------------------------------------------------------------------------------

    async def take(self, piece: object) -> None:
        """Say any piece; the agent waits while what a tool gave is kept as a file, where it is large."""
        if isinstance(piece, str):
            self.say(str.__str__(piece))  # of a class of the agent's own no method is called, and the log takes none
        elif isinstance(piece, Whole) and isinstance(piece.content, str):
            self._whole(piece)
        elif isinstance(piece, Finish) and _is_sound(piece):
            self.finish = piece
        elif type(piece) is ToolCallResult:
            self._content(await self._shortened(piece))
        elif type(piece) in KINDS:
            self._content(cast(Body, piece))
        elif piece is not None:
            raise refuse(self.agent, piece)

    def _whole(self, whole: Whole) -> None:
        """Log a message that came in one piece; it ends the streamed one before it."""
        if self.closed:
            return
        parts, content = self._parts_of(whole), str.__str__(whole.content)
        size = len(utf8(self.agent, content))
        self._count(size)
        self.pause()
        self.texts.append(self._message(content, parts))
        body = WholeMessage(self.message_id, content, parts)
        self.pending += size
        self.outbox.put(PendingEvent(self.agent, self.run, body, on_result=lambda _: self._landed(size)))
        self.message_id = self.new_id("m")

    def _parts_of(self, whole: Whole) -> Plain | None:
        """Return a copy of the parts that the agent cannot change any more, and that the log can hold."""
        if not whole.parts:
            return None
        try:
            data = orjson.dumps(whole.parts)
            if len(whole.parts) > self.limits.message_parts:
                raise ValueError(f"more than {self.limits.message_parts} of them")
            parts = plain(msgspec.json.decode(data, type=Parts))
        except (TypeError, ValueError) as wrong:
            raise AgentError(f"agent {self.agent} gave a message with bad parts: {wrong}", "agent_bad_output") from None
        self._count(len(data))
        self._check_size(len(data), "message with parts")
        return parts

    def _content(self, piece: Body) -> None:
        """Log what is no text; it ends the streamed message before it."""
        if self.closed:
            return
        body, size = self._copy(piece)
        if isinstance(body, Reasoning):
            self._close_message()
            self._thought = self._thought or self.new_id("m")
            body = attrs.evolve(body, messageId=self._thought)
        else:
            self.pause()
        self.pending += size
        self.outbox.put(PendingEvent(self.agent, self.run, body, on_result=lambda _: self._landed(size)))

    async def _shortened(self, result: ToolCallResult) -> ToolCallResult:
        content, limits = result.content, self.limits
        if self.closed or not isinstance(content, str) or len(content) <= limits.result_bytes // 4:
            return result
        with hub_work():
            data = await asyncio.to_thread(utf8, self.agent, content)  # of 32 MiB it takes long enough to be felt
        if len(data) <= limits.result_bytes or self.closed:
            return result
        if len(data) > limits.file_bytes:
            most = size_text(limits.file_bytes)
            raise AgentError(f"agent {self.agent} gave a tool's result of more than {most}", "answer_too_long")
        name = "tool-result.txt"[: limits.file_name_length]
        file_id = await self.shelf.keep(name, "text/plain; charset=utf-8", data)
        end = min(limits.result_start_bytes, limits.result_bytes)
        whole = data[:end].decode(errors="ignore")  # all code points that fit
        return attrs.evolve(result, content=cut(content, len(whole)), fileId=file_id, size=len(data))

    def question(self, asked: Interrupt) -> Interrupt:
        """Return a question as it is kept, with an id of its own; the Questions of the run say it."""
        body, _ = self._copy(attrs.evolve(asked, id=self.new_id("i")))
        return cast(Interrupt, body)

    def _copy(self, piece: Body) -> tuple[Body, int]:
        """Return what an agent made as it is kept, and its bytes, which count."""
        try:
            # A copy that the agent cannot change any more, and that the log can hold: one commit carries all sessions.
            data = orjson.dumps(attrs.asdict(piece))
            body = msgspec.convert(orjson.loads(data), type(piece))
        except (TypeError, RecursionError, msgspec.ValidationError) as wrong:
            raise AgentError(f"agent {self.agent} gave a bad {piece.type}: {wrong}", "agent_bad_output") from None
        self._count(len(data))
        if not isinstance(body, ToolCallResult):  # what is large of it is a file by now: see _shortened
            self._check_size(len(data), piece.type)
        return body, len(data)

    # --- what is too much -------------------------------------------------------------------------------------------

    def _count(self, size: int) -> None:
        self._total += size
        if self._total > self.limits.run_bytes:
            raise self._too_much()

    def _too_much(self) -> AgentError:
        return said_too_much(self.agent, self.limits.run_bytes)

    def _check_size(self, size: int, what: str) -> None:
        if size > self.limits.content_bytes:
            most = size_text(self.limits.content_bytes)
            raise AgentError(f"agent {self.agent} gave a {what} of more than {most}", "answer_too_long")

    # --- the ends of messages ---------------------------------------------------------------------------------------

    def pause(self) -> None:
        """End the streamed message and the thought: another event of the run follows."""
        self._thought = ""
        self._close_message()

    def resume(self, said: Iterable[WholeMessage]) -> None:
        """Take what the run said in an earlier process, in order; its end writes these to the history."""
        for message in said:
            self.message_id = message.messageId
            self.texts.append(self._message(message.content, message.parts))

    def end(self) -> str:
        """End the last message, and say nothing more; return the id of that message."""
        last_id = self.message_id if self._parts or not self.texts else self.texts[-1].messageId
        self._close_message()
        self.close()
        return last_id

    def history(self, reason: StopReason, error: Fault | None) -> tuple[HistoryMessage, ...]:
        """Return the messages for the history.

        If the answer did not end by itself, the last message has *reason* and *error*; it is empty if there is no text.
        """
        if reason == "end_turn":
            return tuple(self.texts)
        *before, last = self.texts or [self._message("")]
        return (*before, attrs.evolve(last, stopReason=reason, error=error))

    def close(self) -> None:
        """Say nothing more."""
        self.closed = True
        self._tell_room()

    def _close_message(self) -> None:
        if self._parts:
            self.texts.append(self._message("".join(self._parts)))
            self._parts, self._offset = [], 0
            self.message_id = self.new_id("m")

    def _message(self, content: str, parts: Plain | None = None) -> HistoryMessage:
        return HistoryMessage(
            messageId=self.message_id,
            role="assistant",
            content=content,
            agentId=self.agent,
            runId=self.run,
            author=None,
            parts=parts,
            userMessageId=self.user_message_id,
        )
