"""Find the URL of chat completions: from a base URL with or without `/v1`, and through redirects."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from yarl import URL

from hub.adapters.chat_errors import redirect_error
from hub.pools import use_hub_threads

COMPLETIONS_PATH = "/chat/completions"
REDIRECT_STATUSES = (301, 302, 307, 308)
MAX_REQUESTS = 3  # the first request, and one request for each redirect


def completions_url(base: URL) -> URL:
    """Return the URL of chat completions for a base URL. Slashes at the end of the base URL are dropped.

    The base URL may already be the URL of chat completions.
    """
    path = base.path.rstrip("/").removesuffix(COMPLETIONS_PATH).rstrip("/")
    return base.with_path(path + COMPLETIONS_PATH, keep_query=True).with_fragment(None)


def base_url_of(url: URL) -> str:
    """Return the `base_url` of a URL of chat completions, without user, password and query: these may hold a key."""
    path = url.path.rstrip("/").removesuffix(COMPLETIONS_PATH)
    return str(url.with_user(None).with_path(path)).rstrip("/")


def toggle_version(url: URL) -> URL:
    """Remove the version (such as `/v1`) from a URL of chat completions. If the URL has no version, add `/v1`."""
    path = url.path.removesuffix(COMPLETIONS_PATH)
    path_without_version, count = re.subn(r"/v[0-9][0-9a-z]*$", "", path)
    return url.with_path((path_without_version if count else path + "/v1") + COMPLETIONS_PATH, keep_query=True)


@asynccontextmanager
async def post(http: aiohttp.ClientSession, url: URL, **request: Any) -> AsyncIterator[aiohttp.ClientResponse]:
    """Send a POST request, and yield the response. For each redirect, repeat the request at its target.

    The repeated request is always a POST; other clients follow some redirects with a GET. Raises AgentError after
    MAX_REQUESTS redirects, and the errors of redirect_target() and of ClientSession.post().
    """
    for _ in range(MAX_REQUESTS):
        with use_hub_threads():  # for DNS and proxies: agents may use all of their own threads
            pending = await http.post(url, allow_redirects=False, **request)
        async with pending as response:
            location = response.headers.get("Location", "")
            if response.status not in REDIRECT_STATUSES or not location:
                yield response
                return
            url = redirect_target(response.url, location)
    raise redirect_error(f"{MAX_REQUESTS} redirects in a row, the last one to {base_url_of(url)}: check base_url")


def redirect_target(url: URL, location: str) -> URL:
    """Return the URL that a redirect names.

    Raises AgentError if that URL is invalid, serves no chat completions, or has another origin: the key must not go to
    another origin. One change of the origin is allowed: to https on the same host, at port 443 or the same port.
    """
    try:
        target = url.join(URL(location))
        origin = target.origin()
    except ValueError:
        raise redirect_error("the endpoint redirects to an invalid URL: check base_url") from None
    if not target.path.rstrip("/").endswith(COMPLETIONS_PATH):
        raise redirect_error(f"a redirect to {target.host}, which is no URL of chat completions: check base_url")
    is_upgrade = target.host == url.host and target.scheme == "https" and target.port in (443, url.port)
    if not is_upgrade and origin != url.origin():
        raise redirect_error(f'write base_url = "{base_url_of(target)}"')
    return target
