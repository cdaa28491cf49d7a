"""Streams events to an HTTP client as server-sent events."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from functools import partial
from types import TracebackType
from typing import Annotated

import structlog
from aiohttp import web
from msgspec import Meta

from hub.commands.client import ClientHandle, attach
from hub.errors import BadId, HubError
from hub.ids import ID_PATTERN
from hub.messages import Error
from hub.protocols.sse import PING, RunStream, open_sse_protocol
from hub.web.access_log import STREAM_BYTES_KEY
from hub.web.doorkeeper import principal_of
from hub.web.handshake import refuse_http_1_0
from hub.web.routes import HUB_KEY

log = structlog.get_logger()

EVENT_ID_PATTERN = re.compile(rf"({ID_PATTERN}):([0-9]{{1,15}})")
LastEventId = Annotated[
    str, Meta(description="The cursor: the id of the last received event, `EPOCH:SEQ`. The stream resumes after it.")
]
STREAM_HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-cache",
    "X-Accel-Buffering": "no",  # nginx would buffer the tokens
}


def wants_stream(request: web.Request) -> bool:
    return "text/event-stream" in request.headers.get("Accept", "")


def read_last_event_id(request: web.Request) -> tuple[str, int] | None:
    """Return the epoch and the seq of the cursor, or None if the request has no cursor.

    The header `Last-Event-ID` has precedence over the query. Raises BadId if the cursor is malformed.
    """
    text = request.headers.get("Last-Event-ID") or request.query.get("lastEventId")
    if not text:
        return None
    match = EVENT_ID_PATTERN.fullmatch(text)
    if match is None:
        raise BadId("Last-Event-ID is not EPOCH:SEQ: send the id of the last received event, or leave it out")
    return match[1], int(match[2])


class EventStream:
    """The stream of one client, as an async context.

    open() starts the response; the exit of the context closes the client and ends the response. The constructor raises
    an error for HTTP/1.0, and TooManyConnections, so create the stream before a command changes a session. An error
    before open() leaves the context, and sets the status of the response. A HubError after open() is sent as the last
    event.
    """

    def __init__(self, request: web.Request) -> None:
        refuse_http_1_0(request)
        request.app[HUB_KEY].check_connection_count(principal_of(request))
        self._request = request
        self.response = web.StreamResponse(headers=STREAM_HEADERS)
        self._client: ClientHandle | None = None
        self._run: RunStream | None = None

    async def __aenter__(self) -> "EventStream":
        return self

    async def open(self, run: RunStream | None = None) -> ClientHandle:
        """Start the response and return its client. With *run*, the client gets only what that stream carries.

        Raises ConnectionResetError if the client has disconnected.
        """
        request, response = self._request, self.response
        size = request.app[HUB_KEY].limits.out_frame_bytes
        if run is not None:
            run.out_frame_bytes = size
        protocol = open_sse_protocol(size) if run is None else run
        request.app[HUB_KEY].check_connection_count(principal_of(request))  # others may have been opened meanwhile
        response.enable_chunked_encoding()
        response.force_close()  # the hub writes to the socket without aiohttp, so no response may follow on it
        await response.prepare(request)
        client = attach(request.app[HUB_KEY], principal_of(request), protocol, request.transport, self._ping)
        self._client, self._run = client, run
        if run is not None:
            run.is_question_open = client.has_open_question
        return client

    async def serve(self, end: Callable[[], Awaitable[object]] | None = None) -> None:
        """Wait until the client or the hub ends the stream.

        With *end*, wait at most until *end* returns and all events so far are written. Raises the errors of *end*.
        """
        client = self._client
        assert client is not None
        leave_task = asyncio.create_task(client.wait_until_unsubscribed())
        end_task = asyncio.ensure_future(end()) if end is not None else leave_task
        try:
            await asyncio.wait([leave_task, end_task], return_when=asyncio.FIRST_COMPLETED)
            if end is not None and end_task.done():
                end_task.result()
                await client.wait_until_caught_up()
        finally:
            end_task.cancel()
            leave_task.cancel()

    async def serve_run(self, run_id: str) -> None:
        """Wait until a run has ended and its events are written, or the stream ends earlier, as at a question."""
        await self.serve(partial(self._wait_for_run, run_id))

    async def _wait_for_run(self, run_id: str) -> None:
        assert self._client is not None
        waits = [self._client.wait_for_run(run_id)] + ([self._run.end_event.wait()] if self._run is not None else [])
        tasks = [asyncio.ensure_future(wait) for wait in waits]
        try:
            ended_tasks, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            ended_tasks.pop().result()
        finally:
            for task in tasks:
                task.cancel()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if self._client is None:
            return False
        is_reported = isinstance(error, HubError)
        try:
            if isinstance(error, HubError):  # for example: the log cannot be read, or the session was deleted
                log.warning("a stream failed", connection=self._client.id, reason=error.message)
                self._client.answer(Error(code=error.code, message=error.message))
        finally:
            await self._client.close(self._end_response)
            self._request[STREAM_BYTES_KEY] = self._client.written_bytes
        return is_reported

    async def _ping(self) -> None:
        if self._client is not None:
            self._client.write(PING)
            self._client.record_activity()  # nothing else counts as activity: server-sent events have no pong

    async def _end_response(self) -> None:
        try:
            async with asyncio.timeout(self._request.app[HUB_KEY].limits.close_seconds):
                await self.response.write_eof()
        except (TimeoutError, ConnectionError):
            pass
