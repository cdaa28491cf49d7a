"""Give the output of one run to the outbox, as messages and events."""

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import cast

import attrs

from hub.errors import AgentError
from hub.hosting.call_recorder import TOOL_EVENTS, CallRecorder
from hub.hosting.contract import FileAccess, Finish
from hub.hosting.contract import Message as AgentMessage
from hub.hosting.faults import bad_output_error, encode_text
from hub.hosting.output import AGENT_EVENTS
from hub.limits import Limits, format_size
from hub.messages import (
    Body,
    Fault,
    HistoryMessage,
    Interrupt,
    Reasoning,
    StopReason,
    ToolCallResult,
    ToolCallStart,
    WholeMessage,
)
from hub.messages.parts import JsonParts
from hub.pools import use_hub_threads
from hub.sessions.outbox import Outbox
from hub.sessions.output_copier import OutputCopier, is_valid_finish
from hub.sessions.pending import PendingEvent
from hub.text import cut


@attrs.define(eq=False, repr=False, kw_only=True)
class AnswerWriter:
    """Writes the messages and events of one run.

    *messages* are the finished messages, without the parts for their tool calls, which *calls* has. *message_id* is the
    id of the message that streams, or of the next one. *on_first_output* is called when the log holds and has delivered
    the first output; then it is None. *on_event* is called with each event that is not text, before the log holds it.
    *finish* is the agent's last Finish. *pending_bytes* counts the bytes that the log does not hold yet. *has_yielded*
    is True if the event loop has run other tasks since the run cleared the flag.

    All methods are called in the loop. They raise AgentError for output that is invalid or too large. A closed writer
    writes nothing.
    """

    agent_id: str
    run_id: str
    user_message_id: str
    message_id: str
    outbox: Outbox
    limits: Limits
    file_access: FileAccess
    new_id: Callable[[str], str]
    calls: CallRecorder
    on_first_output: Callable[[], None] | None = None
    on_event: Callable[[Body], None] | None = None
    messages: list[HistoryMessage] = attrs.Factory(list)
    finish: Finish = Finish()
    pending_bytes: int = 0
    has_yielded: bool = True
    is_closed: bool = False
    copier: OutputCopier = attrs.field(init=False)
    _pieces: list[str] = attrs.Factory(list)
    _offset: int = 0
    _reasoning_id: str = ""
    _capacity_waiter: asyncio.Future[None] | None = None

    def __attrs_post_init__(self) -> None:
        self.copier = OutputCopier(self.agent_id, self.limits)

    # --- text -------------------------------------------------------------------------------------------------------

    def write_text(self, text: str) -> None:
        """Stream a piece of the current message."""
        if self.is_closed or not text:
            return
        size, limits = len(text) if text.isascii() else len(encode_text(self.agent_id, text)), self.limits
        # This code runs for every token, so it calls no helper to count the text.
        total = self.copier.total_bytes + size
        if total > limits.run_bytes:
            raise self.copier.make_limit_error()
        if size > limits.chunk_bytes:
            step = limits.chunk_bytes // 4  # a code point takes at most 4 bytes
            for start in range(0, len(text), step):
                self.write_text(text[start : start + step])
            return
        self.copier.total_bytes, self._reasoning_id = total, ""
        self.pending_bytes += size
        self.outbox.put_text(self.run_id, self.agent_id, self.message_id, self._offset, text, size, self._on_logged)
        self._pieces.append(text)
        self._offset += len(text)

    def _on_logged(self, size: int) -> None:
        self.pending_bytes -= size
        self.has_yielded = True  # a commit ended between two pieces, so the loop runs other tasks often enough
        if self.on_first_output is not None:
            self.on_first_output()
            self.on_first_output = None
        if self._capacity_waiter is not None:
            self._wake()

    async def wait_for_capacity(self) -> None:
        """Hold the agent back until the pending bytes are at most half of their limit, or the writer is closed."""
        while self.pending_bytes > self.limits.pending_bytes // 2 and not self.is_closed:
            self._capacity_waiter = asyncio.get_running_loop().create_future()
            await self._capacity_waiter

    def _wake(self) -> None:
        waiter, self._capacity_waiter = self._capacity_waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    # --- messages and events ----------------------------------------------------------------------------------------

    async def write(self, output: object) -> None:
        """Write one output of the agent, unless it is None. Wait only to store a large tool result as a file."""
        if isinstance(output, str):
            self.write_text(str.__str__(output))  # a subclass of str may override methods, and the log cannot encode it
        elif isinstance(output, AgentMessage) and isinstance(output.content, str):
            self._write_message(output)
        elif isinstance(output, Finish) and is_valid_finish(output):
            self.finish = output
        elif type(output) is ToolCallResult:
            self._write_event(await self._shorten(output))
        elif type(output) in AGENT_EVENTS:
            self._write_event(cast(Body, output))
        elif output is not None:
            raise bad_output_error(self.agent_id, output)

    def _write_message(self, message: AgentMessage) -> None:
        """End the message that streams, and log *message*, which is complete."""
        if self.is_closed:
            return
        parts, content = self.copier.copy_parts(message), str.__str__(message.content)
        size = len(encode_text(self.agent_id, content))
        self.copier.count_bytes(size)
        self.end_stream()
        self.messages.append(self._make_message(content, parts))
        body = WholeMessage(self.message_id, content, parts)
        self.pending_bytes += size
        self.outbox.put(PendingEvent(self.agent_id, self.run_id, body, on_result=lambda _: self._on_logged(size)))
        self.message_id = self.new_id("m")

    def _write_event(self, event: Body) -> None:
        """End the message that streams, and log an event."""
        if self.is_closed:
            return
        body, size = self.copier.copy(event)
        if isinstance(body, Reasoning):
            self._finish_message()
            self._reasoning_id = self._reasoning_id or self.new_id("m")
            body = attrs.evolve(body, messageId=self._reasoning_id)
        else:
            self.end_stream()
            if isinstance(body, TOOL_EVENTS):
                self._record_call(body)
        if self.on_event is not None:
            self.on_event(body)
        self.pending_bytes += size
        self.outbox.put(PendingEvent(self.agent_id, self.run_id, body, on_result=lambda _: self._on_logged(size)))

    def write_call(self, event: Body) -> None:
        """Log an event of a call to another agent. If the run has reached its limit, drop it: the next output fails."""
        with suppress(AgentError):
            self._write_event(event)

    def _record_call(self, event: Body) -> None:
        """Record an event of a tool call. A call belongs to the last message; the first message may have no text."""
        if isinstance(event, ToolCallStart) and not self.messages:
            self.messages.append(self._make_message(""))
            self.message_id = self.new_id("m")
        if self.messages:
            self.calls.add(event, self.messages[-1].messageId)

    async def _shorten(self, result: ToolCallResult) -> ToolCallResult:
        """Store a large tool result as a file. Return the result with the file's id and only the beginning of its text.

        Return a small result unchanged.
        """
        content, limits = result.content, self.limits
        if self.is_closed or not isinstance(content, str) or len(content) <= limits.result_bytes // 4:
            return result
        with use_hub_threads():
            data = await asyncio.to_thread(
                encode_text, self.agent_id, content
            )  # in a thread: to encode 32 MiB would block the loop
        if len(data) <= limits.result_bytes or self.is_closed:
            return result
        if len(data) > limits.file_bytes:
            limit = format_size(limits.file_bytes)
            raise AgentError(f"agent {self.agent_id} gave a tool's result of more than {limit}", "answer_too_long")
        name = "tool-result.txt"[: limits.file_name_length]
        file_id = await self.file_access.store(name, "text/plain; charset=utf-8", data)
        end = min(limits.result_start_bytes, limits.result_bytes)
        beginning = data[:end].decode(errors="ignore")  # without a code point that the limit cuts
        return attrs.evolve(result, content=cut(content, len(beginning)), fileId=file_id, size=len(data))

    def copy_question(self, question: Interrupt) -> Interrupt:
        """Return a copy of a question that the log can encode, with a new id. The copy is not logged here."""
        body, _ = self.copier.copy(attrs.evolve(question, id=self.new_id("i")))
        return cast(Interrupt, body)

    # --- end of a message -------------------------------------------------------------------------------------------

    def end_stream(self) -> None:
        """End the message and the reasoning that stream, because another event of the run follows."""
        self._reasoning_id = ""
        self._finish_message()

    def restore(self, messages: Iterable[WholeMessage], calls: CallRecorder) -> None:
        """Add the messages and calls that the run logged in an earlier process, in order, for make_history()."""
        self.calls = calls
        for message in messages:
            self.message_id = message.messageId
            self.messages.append(self._make_message(message.content, message.parts))

    def end(self) -> str:
        """End the last message, close the writer, and return the id of that message."""
        last_id = self.message_id if self._pieces or not self.messages else self.messages[-1].messageId
        self._finish_message()
        self.close()
        return last_id

    def make_history(self, reason: StopReason, error: Fault | None) -> tuple[HistoryMessage, ...]:
        """Return the messages for the history, with the parts for their tool calls.

        Unless *reason* is `end_turn`, the last message has *reason* and *error*. If the run has no message, an empty
        one has them.
        """
        messages = tuple(map(self._add_calls, self.messages))
        if reason == "end_turn":
            return messages
        *rest, last = messages or [self._make_message("")]
        return (*rest, attrs.evolve(last, stopReason=reason, error=error))

    def _add_calls(self, message: HistoryMessage) -> HistoryMessage:
        parts = self.calls.make_parts(message.messageId)
        return attrs.evolve(message, parts=(*(message.parts or ()), *parts)) if parts else message

    def close(self) -> None:
        """Drop all later output, and wake the task that waits for capacity."""
        self.is_closed = True
        self._wake()

    def _finish_message(self) -> None:
        """Add the message that streams to *messages*, if it has text."""
        if self._pieces:
            self.messages.append(self._make_message("".join(self._pieces)))
            self._pieces, self._offset = [], 0
            self.message_id = self.new_id("m")

    def _make_message(self, content: str, parts: JsonParts | None = None) -> HistoryMessage:
        return HistoryMessage(
            messageId=self.message_id,
            role="assistant",
            content=content,
            agentId=self.agent_id,
            runId=self.run_id,
            author=None,
            parts=parts,
            userMessageId=self.user_message_id,
        )
