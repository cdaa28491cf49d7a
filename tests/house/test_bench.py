"""The load program of `make bench` works against the hub as it is; what it measures is for `make bench` itself."""

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
    """A hub of its own, over a log that has something in it already."""
    from extras import growth_of
    from load import Work

    result = await asyncio.to_thread(growth_of, tmp_path / "data", Work(2, 3, 20, 0.01, seconds=20), kept=1000)
    assert (result["delivered"], result["missing"], result["surplus"]) == (120, 0, 0)


async def test_a_late_join_is_whole(tmp_path: Path) -> None:
    """It says itself where a token is lost."""
    from extras import late_join

    assert (await asyncio.to_thread(late_join, tmp_path / "data"))["frames"] <= 5
