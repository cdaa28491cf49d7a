"""Answers in the form of OpenAI's chat completions: whole or streamed, in a session or in none."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from time import time
from typing import Any

from aiohttp import web

from hub.access.principal import Principal
from hub.commands import table as commands
from hub.commands.client import ClientHandle
from hub.commands.complete import AnswerChunks, Conversation
from hub.commands.hub import Hub
from hub.errors import AgentError, Draining
from hub.messages import Body, Chat, Past, Role, Usage
from hub.protocols import openai_chat
from hub.protocols.openai_chat import AnswerForm, OpenAIStream, format_chunk
from hub.protocols.openai_errors import EARLY_ENDS, dropped_answer_error, early_end_error, make_final, openai_error_of
from hub.protocols.openai_request import CompletionRequest
from hub.protocols.splitting import split_text
from hub.web.doorkeeper import principal_of
from hub.web.loss import watch_connection
from hub.web.routes import HUB_KEY, limits_of
from hub.web.sse import EventStream
from hub.web.sse_response import SseResponse


async def answer_conversation(
    request: web.Request, completion: CompletionRequest, message: str, history: Sequence[tuple[Role, str]]
) -> web.StreamResponse:
    """Answer a conversation that is in no session. If the client disconnects, the hub stops the agent."""
    hub, completion_id = request.app[HUB_KEY], f"chatcmpl-{secrets.token_hex(12)}"
    past = [Past(role, content) for role, content in history]
    conversation = Conversation(run_id=completion_id, message=message, history=past)
    async with await commands.complete(hub, principal_of(request), completion.model, conversation) as chunks:
        if completion.stream:
            return await _stream_answer(request, completion, completion_id, chunks)
        async with _while_connected(request):
            return await _collect_answer(completion, completion_id, chunks)


@asynccontextmanager
async def _while_connected(request: web.Request) -> AsyncIterator[None]:
    """Cancel the code in this context when the client disconnects. The context then raises TimeoutError.

    aiohttp reports a disconnect only at the next write, and the hub writes nothing while the agent is silent.
    """

    def stop() -> None:
        if not scope.expired():
            scope.reschedule(asyncio.get_running_loop().time())

    async with asyncio.timeout(None) as scope:
        with watch_connection(request, stop):
            yield


async def _collect_answer(completion: CompletionRequest, completion_id: str, chunks: AnswerChunks) -> web.Response:
    """Wait for the complete answer, and return it as one response."""
    texts, reason = [], "end_turn"
    usage: Usage | None = None
    async for chunk in chunks:
        if isinstance(chunk, str):
            texts.append(chunk)
        elif not isinstance(chunk, Body):
            reason, usage = chunk.reason, chunk.usage
    return web.json_response(openai_chat.completion_body(completion.form, completion_id, "".join(texts), reason, usage))


async def _stream_answer(
    request: web.Request, completion: CompletionRequest, completion_id: str, chunks: AnswerChunks
) -> web.StreamResponse:
    """Write the answer as server-sent events while it grows. The response begins at once, so an error is an event.

    Raises ConnectionError if the client does not read, or has disconnected.
    """
    form, answer_bytes, reason = completion.form, 0, "end_turn"
    head = openai_chat.chunk_head(completion_id, int(time()), form.model)
    usage: Usage | None = None
    async with SseResponse(request) as stream:
        try:
            async with _while_connected(request):
                await stream.write(format_chunk(openai_chat.delta_chunk(head, openai_chat.FIRST_DELTA)))
                async for chunk in chunks:
                    if not isinstance(chunk, str):
                        if not isinstance(chunk, Body):
                            reason, usage = chunk.reason, chunk.usage
                        continue
                    answer_bytes += len(chunk.encode())
                    for text in split_text(chunk, limits_of(request).out_frame_bytes // 2):
                        await stream.write(format_chunk(openai_chat.delta_chunk(head, {"content": text})))
            counts = openai_chat.usage_body(usage, form.prompt_bytes, answer_bytes)
            for fields in openai_chat.final_chunks(head, reason, counts if form.wants_usage else None):
                await stream.write(format_chunk(fields))
        except (AgentError, TimeoutError) as error:
            await stream.write(format_chunk(openai_error_of(error).body))
        await stream.write(openai_chat.STREAM_END)
    return stream.response


async def answer_in_session(request: web.Request, completion: CompletionRequest, message: str) -> web.StreamResponse:
    """Chat in a session: the hub has the history, and a disconnect does not stop the run."""
    hub, principal, key = request.app[HUB_KEY], principal_of(request), completion.clientMsgId
    command = Chat(message=message, agentId=completion.model, sessionId=completion.sessionId, clientMsgId=key)
    if not completion.stream:
        return web.json_response(await _ask_in_session(hub, principal, completion.form, command))
    async with EventStream(request) as stream:

        async def open_stream(run_id: str, is_whole: bool) -> ClientHandle:
            return await stream.open(OpenAIStream(completion.form, run_id))

        receipt = await commands.stream_chat(hub, principal, command, open_stream)
        await stream.serve_run(receipt.runId)
    return stream.response


async def _ask_in_session(hub: Hub, principal: Principal, form: AnswerForm, command: Chat) -> dict[str, Any]:
    """Return the body of a complete answer in a session.

    Once the session holds the message, an error is final: a retry would add the message again. With an idempotency key,
    it would get the same answer, which is of use only if the answer is still to come.
    """
    try:
        outcome = await commands.ask(hub, principal, command)
    except Draining as error:
        if "runId" in error.fields and command.clientMsgId is None:
            raise make_final(error) from None
        raise
    if outcome.error is not None:
        raise make_final(AgentError(outcome.error.message, outcome.error.code, retryable=True))
    if outcome.stopReason in EARLY_ENDS:
        raise make_final(early_end_error(outcome.stopReason))
    if outcome.stopReason is None:
        raise dropped_answer_error()
    completion_id = f"chatcmpl-{outcome.runId}"
    return openai_chat.completion_body(form, completion_id, outcome.content, outcome.stopReason, outcome.usage)
