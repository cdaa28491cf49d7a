"""Agents that ask a model over OpenAI's chat completions: a remote endpoint, or the local model."""

import asyncio
import os
import random
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from itertools import groupby
from typing import TYPE_CHECKING

import aiohttp
import attrs
import orjson
import structlog
from attrs.validators import ge, gt, optional
from yarl import URL

from hub.adapters import local_model
from hub.adapters.chat_errors import lost, refusal
from hub.adapters.chat_stream import read
from hub.errors import AgentError
from hub.hosting.contract import Adapter, Answer, Piece, Place, Run
from hub.pools import hub_work

OPENAI = "https://api.openai.com/v1"
OPENAI_KEY = "OPENAI_API_KEY"
OPENAI_MODEL = "gpt-4o-mini"
LOCAL_SYSTEM = "You are a helpful assistant. Answer in a few short sentences."  # 135M parameters follow no more
LOCAL_PENALTY = 0.5  # without it the small model may say one emoji until its tokens are used up
LOCAL_TEMPERATURE = 0.2  # its authors' advice
MESSAGE_BYTES = 16  # what a model's template may put around a message
CONNECT_SECONDS = 10.0
PATIENCE_MS = 10_000  # a Retry-After beyond it is told to the user, not waited for
RETRIED = {"model_rate_limited", "model_unavailable", "model_unreachable", "model_stream_broken"}
OFFLINE = (
    "No model is set up here, so this answer is always the same. To get a real one, set OPENAI_BASE_URL and "
    "OPENAI_API_KEY to any OpenAI-compatible endpoint, or run `make model` for a small local one; then restart the hub."
)

log = structlog.get_logger(__name__)


@attrs.frozen(kw_only=True)
class Options:
    """What an agent's TOML file may say; what is None is chosen from the environment or left to the endpoint."""

    base_url: str | None = None
    model: str | None = None
    api_key_env: str = OPENAI_KEY
    system: str | None = None
    history: int = attrs.field(default=20, validator=ge(0))  # earlier messages
    window_bytes: int = attrs.field(default=256 * 1024, validator=ge(1024))  # of text that the model sees
    temperature: float | None = attrs.field(default=None, validator=optional(ge(0)))
    max_tokens: int | None = attrs.field(default=None, validator=optional(ge(1)))
    frequency_penalty: float | None = None
    timeout: float = attrs.field(default=120.0, validator=gt(0))  # seconds of silence
    retries: int = attrs.field(default=2, validator=ge(0))
    retry_seconds: float = attrs.field(default=0.5, validator=ge(0))  # before the first retry; doubled for each more


@attrs.frozen
class Endpoint:
    """Where a request goes; *url* holds no credentials."""

    url: URL
    model: str
    authorization: str | None = attrs.field(repr=False)


# Asked before each request: the local model has a new address whenever its process was started again.
Locate = Callable[[], Awaitable[Endpoint]]


@asynccontextmanager
async def open(options: Options, place: Place) -> AsyncIterator[Answer]:
    """Choose the endpoint: the TOML's, the environment's, the local model, or none; raises ValueError for bad options.

    The local model is not waited for: the first answer waits.
    """
    endpoint = check(options)
    if endpoint is not None:
        async with _session(options, local=endpoint.url.host in ("localhost", "127.0.0.1", "::1")) as http:
            yield Chat(options, http, lambda: asyncio.sleep(0, endpoint)).answer
    elif local_model.installed(place.cache, place.data):
        async with local(options, place) as answer:
            yield answer
    else:
        log.warning("no model is there: set OPENAI_BASE_URL, or run `make model`", agent=place.agent)
        yield offline


def check(options: Options) -> Endpoint | None:
    """Return the endpoint, where one is named; raises ValueError for bad options. Starts nothing."""
    _check(options)
    base_url = options.base_url or os.environ.get("OPENAI_BASE_URL") or _openai(options)
    return remote(options, base_url) if base_url else None


def _check(options: Options) -> None:
    if len((options.system or "").encode()) > options.window_bytes // 2:
        raise ValueError(f"`system` takes more than half of the {options.window_bytes} bytes that the model may see")
    if options.api_key_env != OPENAI_KEY and not os.environ.get(options.api_key_env):
        raise ValueError(
            f"`api_key_env` names {options.api_key_env}, which is not set: export it before the hub starts"
        )


def _openai(options: Options) -> str | None:
    if options.api_key_env != OPENAI_KEY:
        raise ValueError("`api_key_env` needs `base_url` beside it: the key of another endpoint is not for OpenAI")
    return OPENAI if os.environ.get(OPENAI_KEY) else None


def remote(options: Options, base_url: str) -> Endpoint:
    """Read *base_url* and the key; credentials in the address are sent in the header and shown nowhere."""
    try:
        base = URL(base_url.strip())
    except ValueError:
        base = URL()
    if base.scheme not in ("http", "https") or not base.host:
        raise ValueError("the model's base URL must look like https://example.com/v1 or http://localhost:11434/v1")
    key = os.environ.get(options.api_key_env, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise ValueError(f"{options.api_key_env} holds characters that no key has")
    authorization = f"Bearer {key}" if key else None
    if base.user is not None:
        authorization = aiohttp.encode_basic_auth(base.user, base.password or "")
    url = base.with_user(None).joinpath("chat", "completions").with_query(base.query)
    return Endpoint(url, options.model or os.environ.get("OPENAI_MODEL") or OPENAI_MODEL, authorization)


@asynccontextmanager
async def local(options: Options, place: Place) -> AsyncIterator[Answer]:
    """Answer from the local model, which loads in the background; what does not fit it is made to fit."""
    fitting = attrs.evolve(
        options,
        system=options.system or LOCAL_SYSTEM,
        window_bytes=min(options.window_bytes, local_model.WINDOW_BYTES),
        temperature=LOCAL_TEMPERATURE if options.temperature is None else options.temperature,
        frequency_penalty=LOCAL_PENALTY if options.frequency_penalty is None else options.frequency_penalty,
        max_tokens=min(options.max_tokens or local_model.ANSWER_TOKENS, local_model.ANSWER_TOKENS),
    )
    _check(fitting)

    async def locate() -> Endpoint:
        at = await model.endpoint()
        return Endpoint(URL(at.base_url) / "chat" / "completions", local_model.NAME, f"Bearer {at.key}")

    async with local_model.use(place.cache, place.data) as model, _session(options, local=True) as http:
        yield Chat(fitting, http, locate).answer


async def offline(run: Run) -> AsyncIterator[Piece]:
    """Say that there is no model."""
    yield OFFLINE


def _session(options: Options, *, local: bool) -> aiohttp.ClientSession:
    # llama.cpp closes a connection after its stream without saying so, and the next request on it would be lost.
    # The runs are limited elsewhere, so the connections are not (limit=0).
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, force_close=local),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=options.timeout),
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=not local,  # HTTPS_PROXY
    )


def window(run: Run, options: Options) -> list[dict[str, str]]:
    """Return the newest messages that fit, the question last; a question too long for the window loses its beginning.

    Neighbours of one role become one message, and an answer never comes first: many models' templates refuse both.
    """
    told = [options.system, *(past.content for past in run.history if past.role == "system")]
    instructions = "\n\n".join(text for text in told if text)
    room = options.window_bytes - len(instructions.encode()) - 2 * MESSAGE_BYTES
    question = run.message.encode()[-room:].decode(errors="ignore")
    kept = [("user", question)]
    room -= len(question.encode())
    count = options.history
    for past in reversed(run.history[-count:] if count else ()):
        room -= len(past.content.encode()) + MESSAGE_BYTES
        if room < 0:
            break
        if past.content and past.role != "system":
            kept.append((past.role, past.content))
    while kept[-1][0] == "assistant":
        kept.pop()
    system = [{"role": "system", "content": instructions}] if instructions else []
    return system + [
        {"role": role, "content": "\n\n".join(text for _, text in turns)}
        for role, turns in groupby(reversed(kept), key=lambda turn: turn[0])
    ]


@attrs.frozen
class Chat:
    """One agent: a conversation goes to the endpoint, what it says comes back in pieces."""

    options: Options
    http: aiohttp.ClientSession
    locate: Locate

    async def answer(self, run: Run) -> AsyncIterator[Piece]:
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

    async def _ask(self, run: Run) -> AsyncGenerator[Piece, None]:
        """Make one request. Closing this generator closes the connection, and the endpoint stops its work."""
        at = await self.locate()
        headers = {"Content-Type": "application/json", "Accept": "text/event-stream"}
        if at.authorization:
            headers["Authorization"] = at.authorization
        try:
            async with await self._post(at, self._body(run, at), headers) as response:
                if response.status != 200 or response.content_type in ("application/json", "text/html"):
                    raise await refusal(response, self.options.api_key_env, at.model)
                async with aclosing(read(response.content)) as pieces:
                    async for piece in pieces:
                        yield piece
        except (TimeoutError, aiohttp.ClientError, ValueError, RecursionError) as error:
            raise lost(error, at.url) from None  # it may hold the request, and so the key

    async def _post(self, at: Endpoint, body: bytes, headers: dict[str, str]) -> aiohttp.ClientResponse:
        with hub_work():  # DNS, and what is asked of proxies: agents may hold all threads of theirs
            return await self.http.post(at.url, data=body, headers=headers, allow_redirects=False)

    def _body(self, run: Run, at: Endpoint) -> bytes:
        names = ("temperature", "max_tokens", "frequency_penalty")
        chosen = {name: getattr(self.options, name) for name in names}
        return orjson.dumps(
            {
                "model": at.model,
                "messages": window(run, self.options),
                "stream": True,
                "stream_options": {"include_usage": True},
                **{name: value for name, value in chosen.items() if value is not None},
            }
        )


def _worth_waiting(error: AgentError) -> bool:
    return error.retryable and error.code in RETRIED and (error.retry_after_ms or 0) <= PATIENCE_MS


if TYPE_CHECKING:  # mypy checks the contract; before the definition of `open` it would skip that function
    from hub.adapters import openai_chat

    _: Adapter = openai_chat
