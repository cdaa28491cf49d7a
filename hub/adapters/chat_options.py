"""What an agent's TOML file may say of a model, and the endpoint that this leads to."""

from collections.abc import Awaitable, Callable
from typing import Literal

import attrs
from attrs.validators import ge, gt, optional
from yarl import URL

OPENAI_KEY = "OPENAI_API_KEY"


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
    max_tokens_name: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"  # newer models of OpenAI: the second
    stream_options: bool = True  # asks for the usage
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
