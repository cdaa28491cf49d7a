"""The load program of `make bench` works with today's hub; its measurements are not tested."""

import asyncio
import sys
from pathlib import Path

import pytest
from support.documents import ROOT

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the benchmark reads /proc")


@pytest.fixture(autouse=True)
def scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "scripts" / "bench"))


async def test_every_client_counts_every_token_once(tmp_path: Path) -> None:
    """The hub starts with a log that contains events."""
    from extras import growth_of
    from load import Work

    result = await asyncio.to_thread(growth_of, tmp_path / "data", Work(2, 3, 20, 0.01, seconds=20), stored=1000)
    assert (result["delivered"], result["missing"], result["surplus"]) == (120, 0, 0)


async def test_a_late_join_receives_all_tokens(tmp_path: Path) -> None:
    """The program fails if a token is lost."""
    from extras import late_join

    assert (await asyncio.to_thread(late_join, tmp_path / "data"))["frames"] <= 5
