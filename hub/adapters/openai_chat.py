"""Agents that ask a model over OpenAI's chat completions: a remote endpoint, or the local model."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import aiohttp
import attrs
import structlog
from yarl import URL

from hub.adapters import local_model
from hub.adapters.chat_address import address_of
from hub.adapters.chat_agent import Chat
from hub.adapters.chat_options import OPENAI_KEY, Endpoint, Options
from hub.hosting.contract import Adapter, AgentOutput, AgentPaths, AnswerFunction, Run

OPENAI = "https://api.openai.com/v1"
OPENAI_MODEL = "gpt-4o-mini"
LOCAL_SYSTEM = "You are a helpful assistant. Answer in a few short sentences."  # 135M parameters follow no more
LOCAL_PENALTY = 0.5  # without it the small model may say one emoji until its tokens are used up
LOCAL_TEMPERATURE = 0.2  # its authors' advice
CONNECT_SECONDS = 10.0
OFFLINE = (
    "No model is set up here, so this answer is always the same. To get a real one, set OPENAI_BASE_URL and "
    "OPENAI_API_KEY to any OpenAI-compatible endpoint, or run `make model` for a small local one; then restart the hub."
)

__all__ = ["Options", "check", "open"]

log = structlog.get_logger(__name__)


@asynccontextmanager
async def open(options: Options, paths: AgentPaths) -> AsyncIterator[AnswerFunction]:
    """Choose the endpoint: the TOML's, the environment's, the local model, or none; raises ValueError for bad options.

    The local model is not waited for: the first answer waits.
    """
    endpoint = check(options)
    if endpoint is not None:
        async with _session(options, local=endpoint.url.host in ("localhost", "127.0.0.1", "::1")) as http:
            yield Chat(options=options, http=http, locate=lambda: asyncio.sleep(0, endpoint)).answer
    elif local_model.installed(paths.cache, paths.data):
        async with local(options, paths) as answer:
            yield answer
    else:
        log.warning("no model is there: set OPENAI_BASE_URL, or run `make model`", agent=paths.agent)
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
    return Endpoint(
        address_of(base.with_user(None)), options.model or os.environ.get("OPENAI_MODEL") or OPENAI_MODEL, authorization
    )


@asynccontextmanager
async def local(options: Options, paths: AgentPaths) -> AsyncIterator[AnswerFunction]:
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

    async with local_model.use(paths.cache, paths.data) as model, _session(options, local=True) as http:
        yield Chat(options=fitting, http=http, locate=locate).answer


async def offline(run: Run) -> AsyncIterator[AgentOutput]:
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


if TYPE_CHECKING:  # mypy checks the contract; before the definition of `open` it would skip that function
    from hub.adapters import openai_chat

    _: Adapter = openai_chat
