"""What the tests of adapters share."""

from collections.abc import AsyncIterator

import pytest
from support.model_endpoint import KEY, Stranger, endpoint


@pytest.fixture
async def stranger(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stranger]:
    """An endpoint of a stranger on a real socket, whose key is in the environment."""
    for name in ("OPENAI_BASE_URL", "OPENAI_MODEL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    async with endpoint() as stranger:
        yield stranger
