"""The options of an agent's TOML file for a model, and the endpoint that they select."""

from collections.abc import Awaitable, Callable
from typing import Literal

import attrs
from attrs.validators import ge, gt, optional
from yarl import URL

OPENAI_KEY = "OPENAI_API_KEY"


@attrs.frozen(kw_only=True)
class Options:
    """The keys for a model in an agent's TOML file.

    For a key that is None, the environment, the endpoint or the local model has the default.
    """

    base_url: str | None = None
    model: str | None = None
    api_key_env: str = OPENAI_KEY
    system: str | None = None
    history: int = attrs.field(default=20, validator=ge(0))  # the model gets at most this number of earlier messages
    window_bytes: int = attrs.field(default=256 * 1024, validator=ge(1024))  # of text that the model gets
    temperature: float | None = attrs.field(default=None, validator=optional(ge(0)))
    max_tokens: int | None = attrs.field(default=None, validator=optional(ge(1)))
    max_tokens_name: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"  # the second is for newer models
    stream_options: bool = True  # request the token counts
    frequency_penalty: float | None = None
    timeout: float = attrs.field(default=120.0, validator=gt(0))  # seconds of silence
    retries: int = attrs.field(default=2, validator=ge(0))
    retry_seconds: float = attrs.field(default=0.5, validator=ge(0))  # before the first retry; each retry doubles it


@attrs.frozen
class ChatEndpoint:
    """The address of chat completions, the model, and the value of the Authorization header.

    *url* has no user name and no password.
    """

    url: URL
    model: str
    authorization: str | None = attrs.field(repr=False)


# Called before each attempt to answer a run: the local model gets a new address when its process is restarted.
LocateEndpoint = Callable[[], Awaitable[ChatEndpoint]]
