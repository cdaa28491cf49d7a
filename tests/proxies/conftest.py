"""What the tests of proxies share: one site for each proxy."""

from collections.abc import AsyncIterator
from typing import cast

import pytest
import pytest_asyncio
from support.proxy_servers import KINDS, ProxyKind, needs_proxy
from support.sites import Site, open_site


@pytest_asyncio.fixture(
    scope="session",
    loop_scope="session",
    params=[pytest.param(kind, marks=needs_proxy(kind), id=kind.name) for kind in KINDS],
)
async def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    """A hub behind each proxy, for all tests: each test has sessions of its own."""
    async with open_site(tmp_path_factory.mktemp("site"), cast(ProxyKind, request.param)) as running:
        yield running
