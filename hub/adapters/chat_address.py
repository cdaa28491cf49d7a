"""Where chat completions are: from the base URL as people write it, through redirects, with `/v1` or without."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from yarl import URL

from hub.adapters.chat_errors import redirect_error
from hub.pools import use_hub_threads

ROUTE = "/chat/completions"
REDIRECTS = (301, 302, 307, 308)
HOPS = 3


def address_of(base: URL) -> URL:
    """Return the address of chat completions; *base* may end with slashes, or be that address already."""
    path = base.path.rstrip("/").removesuffix(ROUTE).rstrip("/")
    return base.with_path(path + ROUTE, keep_query=True).with_fragment(None)


def base_of(address: URL) -> str:
    """Return the `base_url` that leads to this address, without its query, which may hold a key."""
    path = address.path.rstrip("/").removesuffix(ROUTE)
    return str(address.with_user(None).with_path(path)).rstrip("/")


def other_version(address: URL) -> URL:
    """Return the same address without its `/v1`, or with one where it has none."""
    path = address.path.removesuffix(ROUTE)
    other, count = re.subn(r"/v[0-9][0-9a-z]*$", "", path)
    return address.with_path((other if count else path + "/v1") + ROUTE, keep_query=True)


@asynccontextmanager
async def post(http: aiohttp.ClientSession, address: URL, **request: Any) -> AsyncIterator[aiohttp.ClientResponse]:
    """Send a request, also after redirects, which other clients follow with a GET; raises AgentError for a bad one.

    The key goes to no other host, and from https to no http.
    """
    for _ in range(HOPS):
        with use_hub_threads():  # DNS, and what is asked of proxies: agents may hold all threads of theirs
            answer = await http.post(address, allow_redirects=False, **request)
        async with answer as response:
            target = response.headers.get("Location", "")
            if response.status not in REDIRECTS or not target:
                yield response
                return
            address = target_of(response.url, target)
    raise redirect_error(f"more than {HOPS} redirects, the last one to {base_of(address)}")


def target_of(address: URL, location: str) -> URL:
    """Return where a redirect leads; raises AgentError where the key must not go there."""
    try:
        target = address.join(URL(location))
    except ValueError:
        raise redirect_error("a redirect to an address that makes no sense") from None
    if not target.path.rstrip("/").endswith(ROUTE):
        raise redirect_error(f"a redirect to {target.host}, where no chat completions are: check the base URL")
    is_upgrade = target.host == address.host and target.scheme == "https" and target.port in (443, address.port)
    if not is_upgrade and target.origin() != address.origin():
        raise redirect_error(f'write base_url = "{base_of(target)}"')
    return target
