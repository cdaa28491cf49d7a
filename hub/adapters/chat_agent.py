"""The agent behind a model: asks the endpoint for each run, in the form that it takes, and again where it fails."""

import asyncio
import random
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

import aiohttp
import attrs
import orjson
import structlog
from yarl import URL

from hub.adapters.chat_address import post
from hub.adapters.chat_errors import OptionRefused, RequestFacts, WrongAddress, lost, refusal
from hub.adapters.chat_form import Form
from hub.adapters.chat_options import Endpoint, Locate, Options
from hub.adapters.chat_stream import read
from hub.adapters.chat_window import window
from hub.errors import AgentError
from hub.hosting.contract import AgentOutput, Run

PATIENCE_MS = 10_000  # a Retry-After beyond it is told to the user, not waited for
RETRIED = {"model_rate_limited", "model_unavailable", "model_unreachable", "model_aborted"}
WORD = re.compile(r"[a-z0-9_.-]{1,60}")

log = structlog.get_logger(__name__)


@attrs.define(eq=False, kw_only=True)
class Chat:
    """One agent: a conversation goes to the endpoint, what it says comes back in pieces."""

    options: Options
    http: aiohttp.ClientSession
    locate: Locate
    _forms: dict[URL, Form] = attrs.Factory(dict)  # what was learned of the endpoint, by its address in the settings
    _words: set[str] = attrs.Factory(set)  # that the log has named

    async def answer(self, run: Run) -> AsyncIterator[AgentOutput]:
        """Stream the answer, trying again while nothing of it was said; raises AgentError."""
        attempt, said = 0, False
        while True:
            try:
                async with aclosing(self._ask(run)) as pieces:
                    async for piece in pieces:
                        said = True
                        yield piece
                return
            except AgentError as error:
                again = not said and attempt < self.options.retries and _worth_waiting(error)
                notes = getattr(error, "__notes__", [])
                log.warning("model failed", agent=run.agent, run=run.id, code=error.code, detail=notes, again=again)
                if not again:
                    raise
                await asyncio.sleep(self._pause(attempt, error))
                attempt += 1

    def _pause(self, attempt: int, error: AgentError) -> float:
        backoff: float = self.options.retry_seconds * 2**attempt * random.uniform(0.5, 1.0)
        return backoff + (error.retry_after_ms or 0) / 1000

    async def _ask(self, run: Run) -> AsyncGenerator[AgentOutput, None]:
        """Ask once, and again in another form for each thing that the endpoint refuses of the first one."""
        at = await self.locate()
        form = self._forms.get(at.url) or Form(at.url)
        forms, has_spoken = [form], False
        while True:
            try:
                async with aclosing(self._request(run, at, form)) as pieces:
                    async for piece in pieces:
                        if not has_spoken:
                            self._learn(run.agent, at, form)
                            has_spoken = True
                        yield piece
                return
            except (WrongAddress, OptionRefused) as error:
                another = form.mend(error)
                if has_spoken or another is None or another in forms:
                    for url in dict.fromkeys(form.url.with_query(None) for form in forms):
                        error.add_note(f"at {url}")
                    raise
                forms.append(form := another)

    async def _request(self, run: Run, at: Endpoint, form: Form) -> AsyncGenerator[AgentOutput, None]:
        """Make one request. Closing this generator closes the connection, and the endpoint stops its work."""
        headers = {"Content-Type": "application/json", "Accept": "text/event-stream"}
        if at.authorization:
            headers["Authorization"] = at.authorization
        options = form.apply(self._options())
        facts = RequestFacts(
            path=form.url.path, model=at.model, options=frozenset(options), key_env=self.options.api_key_env
        )
        body = {"model": at.model, "messages": window(run, self.options), "stream": True, **options}
        try:
            async with post(self.http, form.url, data=orjson.dumps(body), headers=headers) as response:
                if response.status != 200:
                    raise await refusal(response, facts)
                async with aclosing(read(response.content, facts, self._unknown_word(run.agent))) as pieces:
                    async for piece in pieces:
                        yield piece
        except (TimeoutError, aiohttp.ClientError, ValueError, RecursionError) as error:
            raise lost(error, form.url) from None  # it may hold the request, and so the key

    def _options(self) -> dict[str, Any]:
        options = self.options
        return {
            "stream_options": {"include_usage": True} if options.stream_options else None,
            options.max_tokens_name: options.max_tokens,
            "temperature": options.temperature,
            "frequency_penalty": options.frequency_penalty,
        }

    def _learn(self, agent: str, at: Endpoint, form: Form) -> None:
        """Ask in this form from now on, and say once what to write so that it is the usual one."""
        usual = self._forms.get(at.url) or Form(at.url)
        if form != usual:
            self._forms[at.url] = form
            log.warning("the endpoint wants another request", agent=agent, write=form.advice(usual))

    def _unknown_word(self, agent: str) -> Callable[[str], None]:
        def note(word: str) -> None:
            shown = word if WORD.fullmatch(word) else "(no word)"
            if shown not in self._words:
                self._words.add(shown)
                log.warning("a finish_reason that is not known counts as stop", agent=agent, finish_reason=shown)

        return note


def _worth_waiting(error: AgentError) -> bool:
    return error.retryable and error.code in RETRIED and (error.retry_after_ms or 0) <= PATIENCE_MS
