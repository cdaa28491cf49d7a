"""Answers in the form of OpenAI's chat completions to conversations that are in no session: whole, or streamed."""

import secrets
from collections.abc import AsyncIterator
from time import time
from typing import Any

import attrs
from aiohttp import web

from hub.commands import table as commands
from hub.commands.complete import AnswerChunks, Conversation
from hub.errors import AgentError
from hub.messages import Body, Request, Usage
from hub.protocols import openai_chat
from hub.protocols.openai_chat import AnswerForm, format_chunk
from hub.protocols.openai_conversation import Prompt
from hub.protocols.openai_deltas import AnswerCollector, DeltaMaker, count_message_bytes
from hub.protocols.openai_errors import openai_error_of
from hub.protocols.splitting import split_body, split_text
from hub.web.doorkeeper import principal_of
from hub.web.loss import while_connected
from hub.web.routes import HUB_KEY, limits_of
from hub.web.sse_response import SseResponse


@attrs.frozen(kw_only=True)
class Completion:
    """A request for an answer: what is new, what the client asks for, and how it wants the answer."""

    prompt: Prompt
    request: Request
    form: AnswerForm
    is_streamed: bool = False
    session_id: str | None = None
    client_msg_id: str | None = None


async def answer_conversation(request: web.Request, completion: Completion) -> web.StreamResponse:
    """Answer a conversation that is in no session. If the client disconnects, the hub stops the agent."""
    prompt, completion_id = completion.prompt, f"chatcmpl-{secrets.token_hex(12)}"
    conversation = Conversation(
        run_id=completion_id,
        message=prompt.message,
        history=prompt.history,
        parts=prompt.results or prompt.parts,
        request=completion.request,
    )
    hub, principal, form = request.app[HUB_KEY], principal_of(request), completion.form
    async with await commands.complete(hub, principal, form.model, conversation) as outputs:
        if completion.is_streamed:
            return await _stream_answer(request, form, completion_id, outputs)
        async with while_connected(request):
            return web.json_response(await _collect_answer(form, completion_id, outputs))


async def _collect_answer(form: AnswerForm, completion_id: str, outputs: AnswerChunks) -> dict[str, Any]:
    """Wait for the complete answer, and return its body."""
    answer, reason = AnswerCollector(tool_names=form.tool_names), "end_turn"
    usage: Usage | None = None
    async for output in outputs:
        if isinstance(output, (str, Body)):
            answer.add(output)
        else:
            reason, usage = output.reason, output.usage
    message = answer.make_message()
    counts = openai_chat.usage_body(usage, form.prompt_bytes, count_message_bytes(message))
    return openai_chat.completion_body(form, completion_id, message, reason, counts)


async def _stream_answer(
    request: web.Request, form: AnswerForm, completion_id: str, outputs: AnswerChunks
) -> web.StreamResponse:
    """Write the answer as server-sent events while it grows. The response begins at once, so an error is an event.

    Raises ConnectionError if the client does not read, or has disconnected.
    """
    head = openai_chat.chunk_head(completion_id, int(time()), form.model)
    async with SseResponse(request) as stream:
        try:
            async with while_connected(request):
                await stream.write(format_chunk(openai_chat.delta_chunk(head, openai_chat.FIRST_DELTA)))
                async for fields in _make_chunks(form, head, outputs, limits_of(request).out_frame_bytes // 2):
                    await stream.write(format_chunk(fields))
        except AgentError as error:
            await stream.write(format_chunk(openai_error_of(error).body))
        await stream.write(openai_chat.STREAM_END)
    return stream.response


async def _make_chunks(
    form: AnswerForm, head: dict[str, Any], outputs: AnswerChunks, max_bytes: int
) -> AsyncIterator[dict[str, Any]]:
    """Yield the chunks of an answer. A longer text than *max_bytes* comes in several chunks."""
    deltas, answer_bytes = DeltaMaker(tool_names=form.tool_names), 0
    async for output in outputs:
        if isinstance(output, (str, Body)):
            for piece in split_text(output, max_bytes) if isinstance(output, str) else split_body(output, max_bytes):
                if (delta := deltas.make(piece)) is not None:
                    answer_bytes += count_message_bytes(delta)
                    yield openai_chat.delta_chunk(head, delta)
        else:
            counts = openai_chat.usage_body(output.usage, form.prompt_bytes, answer_bytes)
            for fields in openai_chat.final_chunks(head, output.reason, counts if form.wants_usage else None):
                yield fields
