"""Refused options and wrong URLs, and the request that the agent sends after the refusal."""

import json
from typing import Any

import pytest
import structlog
from aiohttp import web
from support.model_endpoint import KEY, PATHS, Reply, Stranger, ask, body, chunk, endpoint, run, status, stream

from hub.adapters import openai_chat
from hub.adapters.chat_options import Options
from hub.errors import AgentError
from hub.hosting.contract import Finish

GOOD = stream(chunk("yes", "stop"), "[DONE]", size=99)
ALL: dict[str, Any] = {"max_tokens": 9, "temperature": 0.5, "frequency_penalty": 0.1}


def picky(**refuses: Reply) -> Reply:
    """Refuse a request that has one of these options, each in its way."""

    async def reply(request: web.Request) -> web.StreamResponse:
        sent = await request.json()
        return await next((refuses[name] for name in refuses if name in sent), GOOD)(request)

    return reply


def openai_error(param: str | None, message: str, code: str = "unsupported_parameter") -> dict[str, Any]:
    return {"error": {"message": message, "type": "invalid_request_error", "param": param, "code": code}}


def in_words(code: int, text: str) -> Reply:
    async def reply(request: web.Request) -> web.StreamResponse:
        return web.Response(status=code, text=text)

    return reply


REFUSALS = {
    "OpenAI, max_tokens": (
        "max_tokens",
        status(
            400,
            openai_error(
                "max_tokens",
                "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens'.",
            ),
        ),
        "max_completion_tokens",
        'max_tokens_name = "max_completion_tokens"',
    ),
    "OpenAI, temperature": (
        "temperature",
        status(400, openai_error("temperature", "Only the default (1) value is supported.", "unsupported_value")),
        None,
        "no `temperature`",
    ),
    "Azure, stream_options": (
        "stream_options",
        status(
            400,
            {
                "detail": "Extra parameters ['stream_options'] are not allowed when extra-parameters is not set or "
                "set to be 'error'."
            },
        ),
        None,
        "stream_options = false",
    ),
    "Mistral, stream_options": (
        "stream_options",
        status(
            422,
            {
                "object": "error",
                "message": {"detail": [{"type": "extra_forbidden", "loc": ["body", "stream_options"]}]},
                "type": "invalid_request_error",
            },
        ),
        None,
        "stream_options = false",
    ),
    "xAI, frequency_penalty": (
        "frequency_penalty",
        status(
            400,
            {
                "code": "Client specified an invalid argument",
                "error": "Argument not supported on this model: frequencyPenalty",
            },
        ),
        None,
        "no `frequency_penalty`",
    ),
    "a server in words": (
        "temperature",
        in_words(400, "unknown field temperature"),
        None,
        "no `temperature`",
    ),
    "OpenRouter, in the stream": (
        "temperature",
        stream('{"error": {"code": 400, "message": "temperature is not supported"}}'),
        None,
        "no `temperature`",
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
async def test_a_refused_option_is_renamed_or_left_out(stranger: Stranger, name: str) -> None:
    """One more request is made; the next answer needs only one, and one log line says what to change."""
    option, refusal, instead, advice = REFUSALS[name]
    stranger.replies = [picky(**{option: refusal})]
    with structlog.testing.capture_logs() as logged:
        async with openai_chat.open(Options(base_url=stranger.url, retries=0, **ALL), PATHS) as answer:
            for _ in range(2):
                assert [piece async for piece in answer(run())] == ["yes", Finish()]
    first, second, third = stranger.bodies
    value = first.pop(option)
    assert second == third == first | ({instead: value} if instead else {})
    assert [line["write"] for line in logged] == [[advice]]


async def test_refused_options_are_replaced_one_by_one(stranger: Stranger) -> None:
    """Options that the endpoint takes are still sent."""
    refusals = {name: status(400, openai_error(name, "no")) for name in ("max_tokens", "temperature", "stream_options")}
    stranger.replies = [picky(**refusals)]
    assert await ask(Options(base_url=stranger.url, retries=0, **ALL)) == ["yes", Finish()]
    assert len(stranger.bodies) == 4
    assert set(stranger.bodies[-1]) == {"model", "messages", "stream", "max_completion_tokens", "frequency_penalty"}


async def test_an_option_refused_by_both_names_is_an_error(stranger: Stranger) -> None:
    """After one more request; the next answer starts with the usual request."""
    text = "max_tokens is too large: 9. This model supports at most 8 completion tokens."
    both = {name: status(400, openai_error(name, text)) for name in ("max_tokens", "max_completion_tokens")}
    stranger.replies = [picky(**both)]
    async with openai_chat.open(Options(base_url=stranger.url, **ALL), PATHS) as answer:
        for _ in range(2):
            with pytest.raises(AgentError, match="HTTP 400") as caught:
                _ = [piece async for piece in answer(run())]
            assert caught.value.code == "model_refused"
    assert ["max_tokens" in sent for sent in stranger.bodies] == [True, False, True, False]


@pytest.mark.parametrize(
    "error",
    [
        openai_error(None, "maximum context length is 8, you asked for 9 in max_tokens", "context_length_exceeded"),
        openai_error("messages", "the word temperature is in the message", "invalid_value"),
        openai_error(None, "max_tokens_per_day and my_temperature are no options", "other"),
    ],
)
async def test_other_refusals_are_not_about_options(stranger: Stranger, error: dict[str, Any]) -> None:
    """One request is made, and the answer fails."""
    stranger.replies = [status(400, error)]
    with pytest.raises(AgentError):
        await ask(Options(base_url=stranger.url, **ALL))
    assert len(stranger.bodies) == 1


@pytest.mark.parametrize("code", [401, 403, 429, 500])
async def test_an_error_of_another_status_is_not_about_options(stranger: Stranger, code: int) -> None:
    """Its text may still name an option."""
    stranger.replies = [status(code, openai_error(None, "worker failed at temperature 0.5"))]
    with pytest.raises(AgentError):
        await ask(Options(base_url=stranger.url, retries=0, **ALL))
    assert len(stranger.bodies) == 1


async def test_an_option_that_was_not_sent_is_not_refused(stranger: Stranger) -> None:
    """The error may still name it."""
    stranger.replies = [status(400, openai_error("temperature", "no"))]
    with pytest.raises(AgentError):
        await ask(Options(base_url=stranger.url))
    assert len(stranger.bodies) == 1


async def test_no_request_is_repeated_after_the_first_output(stranger: Stranger) -> None:
    """An error about an option inside a stream ends the answer."""
    stranger.replies = [stream(chunk("half"), '{"error": {"code": 400, "param": "temperature", "message": "no"}}')]
    heard = []
    async with openai_chat.open(Options(base_url=stranger.url, **ALL), PATHS) as answer:
        with pytest.raises(AgentError):
            async for piece in answer(run()):
                heard.append(piece)
    assert heard == ["half"] and len(stranger.bodies) == 1


async def test_the_form_can_be_set(stranger: Stranger) -> None:
    """With the lines that the log shows; then no request is refused."""
    stranger.replies = [picky(max_tokens=status(400), stream_options=status(400))]
    options = Options(
        base_url=stranger.url, max_tokens=9, max_tokens_name="max_completion_tokens", stream_options=False
    )
    assert await ask(options) == ["yes", Finish()]
    (sent,) = stranger.bodies
    assert sent["max_completion_tokens"] == 9 and "stream_options" not in sent


# --- addresses --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "written", ["/v1", "/v1/", "/v1//", "/v1/chat/completions", "/v1/chat/completions/", "", "/", "/#here"]
)
async def test_a_base_url_may_be_written_in_many_ways(stranger: Stranger, written: str) -> None:
    """With slashes, with the path, without /v1; one log line says what to change if the first request fails."""
    stranger.replies = [GOOD]
    right = stranger.url
    with structlog.testing.capture_logs() as logged:
        base = right.removesuffix("/v1") + written
        async with openai_chat.open(Options(base_url=base), PATHS) as answer:
            for _ in range(2):
                assert [piece async for piece in answer(run())] == ["yes", Finish()]
    assert stranger.paths == ["/v1/chat/completions"] * 2
    assert [line["write"] for line in logged] == ([] if "v1" in written else [[f'base_url = "{right}"']])


WRONG = {
    "404": status(404, {"detail": "Not Found"}),
    "405": status(405, "Method Not Allowed"),
    "OpenAI": status(404, openai_error(None, "Invalid URL (POST /chat/completions)", "")),
    "LM Studio": status(200, {"error": "Unexpected endpoint or method. (POST /chat/completions)"}),
    "a web page": body(b"<!doctype html><title>Open WebUI</title>", "text/html"),
    "JSON of something else": status(200, {"status": "ok"}),
}


@pytest.mark.parametrize("name", WRONG)
async def test_a_missing_route_is_recognized(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The agent then uses the URL with /v1, also for the next answers."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    async with endpoint("/chat/completions", "/v1/chat/completions") as stranger:

        async def reply(request: web.Request) -> web.StreamResponse:
            return await (GOOD if request.path.startswith("/v1/") else WRONG[name])(request)

        stranger.replies = [reply]
        async with openai_chat.open(Options(base_url=stranger.url.removesuffix("/v1")), PATHS) as answer:
            for _ in range(2):
                assert [piece async for piece in answer(run())] == ["yes", Finish()]
    assert stranger.paths == ["/chat/completions", "/v1/chat/completions", "/v1/chat/completions"]


async def test_an_endpoint_without_v1(monkeypatch: pytest.MonkeyPatch) -> None:
    """A base URL with a /v1 too many works, too."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    async with endpoint("/chat/completions") as stranger:
        stranger.replies = [GOOD]
        assert await ask(Options(base_url=stranger.url)) == ["yes", Finish()]


async def test_a_missing_model_is_no_wrong_address(stranger: Stranger) -> None:
    """An error that names the model says to check the model."""
    stranger.replies = [status(404, {"error": {"message": "model 'no-such' not found, try pulling it first"}})]
    with pytest.raises(AgentError, match="no model 'no-such'") as caught:
        await ask(Options(base_url=stranger.url, model="no-such"))
    assert caught.value.code == "model_refused" and len(stranger.bodies) == 1


async def test_if_no_url_works_the_log_names_both(stranger: Stranger) -> None:
    """Without secrets; the error refers to the hub's output."""
    with structlog.testing.capture_logs() as logged, pytest.raises(AgentError, match="the hub's output") as caught:
        await ask(Options(base_url=stranger.url.replace("/v1", "/nothing?key=secret")))
    assert caught.value.code == "model_refused"
    (line,) = logged
    base = stranger.url.removesuffix("/v1")
    assert f"at {base}/nothing/v1/chat/completions" in line["detail"]
    assert f"at {base}/nothing/chat/completions" in line["detail"] and "secret" not in json.dumps(line)


def redirect(code: int, to: str) -> Reply:
    return status(code, {}, Location=to)


@pytest.mark.parametrize("code", [301, 302, 307, 308])
async def test_a_redirect_on_the_same_host(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """It is followed with the same body, method and key."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    async with endpoint("/v1/chat/completions", "/api/v1/chat/completions/") as stranger:
        stranger.replies = [redirect(code, "/api/v1/chat/completions/"), GOOD]
        assert await ask(Options(base_url=stranger.url)) == ["yes", Finish()]
    assert stranger.paths == ["/v1/chat/completions", "/api/v1/chat/completions/"]
    assert stranger.bodies[0] == stranger.bodies[1]
    assert stranger.headers[1]["Authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize(
    ("to", "says"),
    [
        ("https://new.example:8443/v1/chat/completions?key=x", 'write base_url = "https://new.example:8443/v1"'),
        ("http://user:pw@127.0.0.1:1/openai/chat/completions", 'write base_url = "http://127.0.0.1:1/openai"'),
        ("/login?next=/v1", "a redirect to 127.0.0.1, which is no URL of chat completions"),
        ("/v1/chat/completions", "3 redirects in a row, the last one to http://127.0.0.1"),
        ("http://[", "the endpoint redirects to an invalid URL"),
    ],
)
async def test_a_redirect_that_is_not_followed(stranger: Stranger, to: str, says: str) -> None:
    """The key goes to no other host; the hub's output says what to write, and the error refers to it."""
    stranger.replies = [redirect(307, to)]
    with structlog.testing.capture_logs() as logged, pytest.raises(AgentError, match="has moved") as caught:
        await ask(Options(base_url=stranger.url))
    assert caught.value.code == "model_refused" and not caught.value.retryable
    assert len(stranger.bodies) == (3 if "in a row" in says else 1)
    assert says in str(logged[-1]["detail"])
    assert "pw" not in str(logged) and "key=x" not in str(logged)
