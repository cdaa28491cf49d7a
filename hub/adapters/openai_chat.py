"""The adapter `openai_chat`: its agents use OpenAI's chat completions, from an endpoint or from the local model."""

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
from hub.adapters.chat_address import completions_url
from hub.adapters.chat_agent import ChatAgent
from hub.adapters.chat_options import OPENAI_KEY, ChatEndpoint, Options
from hub.hosting.contract import Adapter, AgentOutput, AgentPaths, AnswerFunction, Run

OPENAI_URL = "https://api.openai.com/v1"
OPENAI_MODEL = "gpt-4o-mini"
LOCAL_SYSTEM = "You are a helpful assistant. Answer in a few short sentences."  # 135M parameters fail on longer texts
LOCAL_PENALTY = 0.5  # without a penalty the small model may repeat one emoji to the token limit
LOCAL_TEMPERATURE = 0.2  # as the authors of the model recommend
CONNECT_SECONDS = 10.0
NO_MODEL_ANSWER = (
    "No model is configured, so this answer is always the same. To get a model, set OPENAI_BASE_URL and "
    "OPENAI_API_KEY for an OpenAI-compatible endpoint, or run `hubbub model` for a small local one; then restart the "
    "hub."
)

__all__ = ["Options", "check", "open", "takes_tools"]

log = structlog.get_logger(__name__)


@asynccontextmanager
async def open(options: Options, paths: AgentPaths) -> AsyncIterator[AnswerFunction]:
    """Yield the function that answers runs. Raises ValueError for bad options.

    The answers come from the endpoint in the TOML file, else from the endpoint in the environment, else from the local
    model. If there is none of them, the answer says so. The local model loads in the background: the first answer waits
    for it.
    """
    endpoint = check(options)
    if endpoint is not None:
        async with _http_session(options, is_local=endpoint.url.host in ("localhost", "127.0.0.1", "::1")) as http:
            yield ChatAgent(options=options, http=http, locate=lambda: asyncio.sleep(0, endpoint)).answer
    elif local_model.is_installed(paths.cache, paths.data):
        async with open_local(options, paths) as answer:
            yield answer
    else:
        log.warning("no model is configured: set OPENAI_BASE_URL, or run `hubbub model`", agent=paths.agent)
        yield answer_without_model


def check(options: Options) -> ChatEndpoint | None:
    """Return the endpoint, or None if none is configured. Opens no connection. Raises ValueError for bad options."""
    _check_options(options)
    base_url = options.base_url or os.environ.get("OPENAI_BASE_URL") or _openai_url(options)
    return remote_endpoint(options, base_url) if base_url else None


def takes_tools(options: Options) -> bool:
    """Return whether the model gets the tools of clients: the local model does not. Raises the errors of check()."""
    return check(options) is not None


def _check_options(options: Options) -> None:
    if len((options.system or "").encode()) > options.window_bytes // 2:
        raise ValueError(
            f"`system` takes more than half of `window_bytes` ({options.window_bytes}): shorten it, or raise that limit"
        )
    if options.api_key_env != OPENAI_KEY and not os.environ.get(options.api_key_env):
        raise ValueError(
            f"`api_key_env` names the variable {options.api_key_env}, which is not set: set it before the hub starts"
        )


def _openai_url(options: Options) -> str | None:
    if options.api_key_env != OPENAI_KEY:
        raise ValueError("`api_key_env` needs a `base_url`: the key of another endpoint is never sent to OpenAI")
    return OPENAI_URL if os.environ.get(OPENAI_KEY) else None


def remote_endpoint(options: Options, base_url: str) -> ChatEndpoint:
    """Return the endpoint for *base_url* and the key. Raises ValueError if the URL or the key is invalid.

    Credentials in the URL are sent in a header. No error and no log line has them.
    """
    try:
        base = URL(base_url.strip())
    except ValueError:
        base = URL()
    if base.scheme not in ("http", "https") or not base.host:
        raise ValueError("the model's base URL must look like https://example.com/v1 or http://localhost:11434/v1")
    key = os.environ.get(options.api_key_env, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise ValueError(f"the variable {options.api_key_env} holds characters that no key has: set it again")
    authorization = f"Bearer {key}" if key else None
    if base.user is not None or base.password is not None:
        authorization = aiohttp.encode_basic_auth(base.user or "", base.password or "")
    model = options.model or os.environ.get("OPENAI_MODEL") or OPENAI_MODEL
    return ChatEndpoint(completions_url(base.with_user(None)), model, authorization)


@asynccontextmanager
async def open_local(options: Options, paths: AgentPaths) -> AsyncIterator[AnswerFunction]:
    """Yield the function that answers from the local model, with options limited to what this model can do.

    Raises ValueError if `system` is too long for this model.
    """
    local_options = attrs.evolve(
        options,
        system=options.system or LOCAL_SYSTEM,
        window_bytes=min(options.window_bytes, local_model.WINDOW_BYTES),
        temperature=LOCAL_TEMPERATURE if options.temperature is None else options.temperature,
        frequency_penalty=LOCAL_PENALTY if options.frequency_penalty is None else options.frequency_penalty,
        max_tokens=min(options.max_tokens or local_model.ANSWER_TOKENS, local_model.ANSWER_TOKENS),
    )
    _check_options(local_options)

    async def locate() -> ChatEndpoint:
        child = await model.endpoint()
        url = URL(child.base_url) / "chat" / "completions"
        return ChatEndpoint(url, local_model.MODEL_NAME, f"Bearer {child.key}")

    async with local_model.share(paths.cache, paths.data) as model, _http_session(options, is_local=True) as http:
        agent = ChatAgent(options=local_options, http=http, locate=locate, takes_tools=False, takes_parts=False)
        yield agent.answer


async def answer_without_model(run: Run) -> AsyncIterator[AgentOutput]:
    """Answer that no model is configured."""
    yield NO_MODEL_ANSWER


def _http_session(options: Options, *, is_local: bool) -> aiohttp.ClientSession:
    # After a stream, llama.cpp closes the connection, but no header says so. A second request on the same connection
    # would be lost.
    # Slots limit the number of answers, so the number of connections has no limit (limit=0).
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, force_close=is_local),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=options.timeout),
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=not is_local,  # an endpoint may be behind the proxy in HTTPS_PROXY
    )


if TYPE_CHECKING:  # mypy checks the contract here; this must stand below `open`, or mypy would not check `open`
    from hub.adapters import openai_chat

    _: Adapter = openai_chat
