"""Redirects between http and https: the endpoint of the other tests has no https."""

import pytest
from yarl import URL

from hub.adapters.chat_address import redirect_target
from hub.errors import AgentError


def test_a_redirect_to_https_is_followed() -> None:
    """On the same host: servers redirect http to https."""
    target = redirect_target(
        URL("http://models.example/v1/chat/completions"), "https://models.example/v1/chat/completions"
    )
    assert str(target) == "https://models.example/v1/chat/completions"


@pytest.mark.parametrize(
    "to",
    [
        "http://models.example/v1/chat/completions",
        "//other.example/v1/chat/completions",
        "https://models.example:8443/v1/chat/completions",
    ],
)
def test_a_key_stays_on_its_server_and_on_https(to: str) -> None:
    """The error names the base_url to write if the redirect is wanted."""
    with pytest.raises(AgentError) as caught:
        redirect_target(URL("https://models.example/v1/chat/completions"), to)
    assert "write base_url" in caught.value.__notes__[0]


@pytest.mark.parametrize(
    "to", ["mailto:x/chat/completions", "file:///chat/completions", "http://[::1/chat/completions"]
)
def test_a_redirect_to_an_invalid_url_is_reported(to: str) -> None:
    """Also to a URL without a host."""
    with pytest.raises(AgentError) as caught:
        redirect_target(URL("https://models.example/v1/chat/completions"), to)
    assert caught.value.__notes__ == ["the endpoint redirects to an invalid URL: check base_url"]
