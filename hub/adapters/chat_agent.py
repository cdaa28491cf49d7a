"""Answer runs with requests to a model's endpoint: retry failures, and adapt the requests to the endpoint."""

import asyncio
import random
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from typing import Any

import aiohttp
import attrs
import orjson
import structlog
from yarl import URL

from hub.adapters.chat_address import post
from hub.adapters.chat_body import make_body
from hub.adapters.chat_calls import ToolCalls
from hub.adapters.chat_errors import OptionRefused, RequestFacts, WrongAddress, connection_error, response_error
from hub.adapters.chat_files import FileLoader
from hub.adapters.chat_form import RequestForm
from hub.adapters.chat_options import ChatEndpoint, LocateEndpoint, Options
from hub.adapters.chat_request import list_client_options, make_options
from hub.adapters.chat_stream import AnswerReader, read_answer
from hub.adapters.chat_window import window_messages
from hub.errors import AgentError
from hub.hosting.contract import AgentOutput, Finish, Run
from hub.observe.tracing import trace_model_request

MAX_RETRY_WAIT_MS = 10_000  # if Retry-After is longer, the user gets the error at once
RETRY_CODES = {"model_rate_limited", "model_unavailable", "model_unreachable", "model_aborted"}
FINISH_REASON_PATTERN = re.compile(r"[a-z0-9_.-]{1,60}")

log = structlog.get_logger(__name__)


@attrs.define(eq=False, kw_only=True)
class ChatAgent:
    """An agent that sends the conversation to an endpoint, and yields the answer of the model.

    The model gets the tools of clients only with *takes_tools*, and images and other parts only with *takes_parts*.
    """

    options: Options
    http: aiohttp.ClientSession
    locate: LocateEndpoint
    takes_tools: bool = True
    takes_parts: bool = True
    _file_loader: FileLoader = attrs.Factory(FileLoader)
    _forms: dict[URL, RequestForm] = attrs.Factory(dict)  # the adapted forms in use, by configured URL
    _logged_reasons: set[str] = attrs.Factory(set)

    async def answer(self, run: Run) -> AsyncIterator[AgentOutput]:
        """Stream the answer. Raises AgentError.

        A failure before the first output is retried with backoff, if a retry may help.
        """
        attempt, has_output = 0, False
        while True:
            try:
                async with aclosing(self._request_with_adaptation(run)) as outputs:
                    async for output in outputs:
                        has_output = True
                        yield output
                return
            except AgentError as error:
                will_retry = not has_output and attempt < self.options.retries and _is_retry_useful(error)
                notes = getattr(error, "__notes__", [])
                log.warning(
                    "model failed",
                    agent=run.agent,
                    run=run.id,
                    code=error.code,
                    detail=notes,
                    will_retry=will_retry,
                )
                if not will_retry:
                    raise
                await asyncio.sleep(self._retry_delay(attempt, error))
                attempt += 1

    def _retry_delay(self, attempt: int, error: AgentError) -> float:
        backoff: float = self.options.retry_seconds * 2**attempt * random.uniform(0.5, 1.0)
        return backoff + (error.retry_after_ms or 0) / 1000

    async def _request_with_adaptation(self, run: Run) -> AsyncGenerator[AgentOutput, None]:
        """Send the request. After each refusal of the URL or an option, adapt the request and send it again.

        Raises the refusal if the answer has begun, or if there is no other form to try.
        """
        endpoint = await self.locate()
        form = self._forms.get(endpoint.url) or RequestForm(endpoint.url)
        forms, has_output = [form], False
        while True:
            try:
                async with aclosing(self._request(run, endpoint, form)) as outputs:
                    async for output in outputs:
                        if not has_output:
                            self._remember_form(run.agent, endpoint, form)
                            has_output = True
                        yield output
                return
            except (WrongAddress, OptionRefused) as error:
                next_form = form.adapt(error, list_client_options(run.request))
                if has_output or next_form is None or next_form in forms:
                    for url in dict.fromkeys(form.url.with_query(None) for form in forms):
                        error.add_note(f"at {url}")
                    raise
                forms.append(form := next_form)

    async def _request(self, run: Run, endpoint: ChatEndpoint, form: RequestForm) -> AsyncGenerator[AgentOutput, None]:
        """Make one request, and yield its output.

        Closing this generator closes the connection, so the endpoint stops.
        """
        options = form.apply(make_options(self.options, run.request, takes_tools=self.takes_tools))
        facts = RequestFacts(
            path=form.url.path, model=endpoint.model, options=frozenset(options), key_env=self.options.api_key_env
        )
        calls = ToolCalls(run_id=run.id, used_ids={call.id for past in run.history for call in past.tool_calls})
        reader = AnswerReader(request=facts, report_unknown_reason=self._reason_logger(run.agent), calls=calls)
        headers = {"Content-Type": "application/json", "Accept": "text/event-stream"}
        if endpoint.authorization:
            headers["Authorization"] = endpoint.authorization
        with trace_model_request(endpoint.model, form.url.host, form.url.port, headers) as span:
            try:
                fields = {"model": endpoint.model, "stream": True, **options}
                async with self._post(run, form.url, fields, headers) as response:
                    if response.status != 200:
                        raise await response_error(response, facts)
                    async with aclosing(read_answer(response.content, reader)) as outputs:
                        async for output in outputs:
                            if span is not None and isinstance(output, Finish):
                                span.note_finish(output.reason, output.usage)
                            yield output
            except (TimeoutError, aiohttp.ClientError, ValueError, RecursionError) as error:
                raise connection_error(error, form.url) from None  # the cause may hold the request, and so the key

    @asynccontextmanager
    async def _post(
        self, run: Run, url: URL, fields: dict[str, Any], headers: dict[str, str]
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send the conversation with *fields*, and yield the response. The files are in memory until its head comes."""
        async with AsyncExitStack() as stack:
            files: dict[str, bytes] = {}
            if self.takes_parts:
                run, files = await stack.enter_async_context(self._file_loader.load(run, self.options))
            messages = window_messages(run, self.options, takes_parts=self.takes_parts)
            body = make_body(orjson.dumps({**fields, "messages": messages}), files)
            headers = {**headers, "Content-Length": str(len(body))}
            async with post(self.http, url, data=body, headers=headers) as response:
                await stack.aclose()
                yield response

    def _remember_form(self, agent: str, endpoint: ChatEndpoint, form: RequestForm) -> None:
        """Use this form from now on. If it is another form than before, log how to change the agent's file."""
        previous = self._forms.get(endpoint.url) or RequestForm(endpoint.url)
        if form != previous:
            self._forms[endpoint.url] = form
            log.warning(
                "the endpoint refused the request, and accepted an adapted one; change the agent's file",
                agent=agent,
                write=form.toml_lines(previous),
            )

    def _reason_logger(self, agent: str) -> Callable[[str], None]:
        def log_once(reason: str) -> None:
            word = reason if FINISH_REASON_PATTERN.fullmatch(reason) else "(no word)"
            if word not in self._logged_reasons:
                self._logged_reasons.add(word)
                log.warning("unknown finish_reason; it counts as stop", agent=agent, finish_reason=word)

        return log_once


def _is_retry_useful(error: AgentError) -> bool:
    return error.retryable and error.code in RETRY_CODES and (error.retry_after_ms or 0) <= MAX_RETRY_WAIT_MS
