"""Random frames of several principals, many of them."""

import os
from pathlib import Path

import pytest
from support.fuzzing import Fuzz
from support.kills import seed
from support.process import HubProcess


@pytest.mark.timeout(3600)
async def test_many_random_frames_break_nothing(tmp_path: Path) -> None:
    """100,000 frames; HUBBUB_TEST_FRAMES sets another number, and HUBBUB_TEST_SEED repeats a run."""
    fuzz = Fuzz(HubProcess(tmp_path), seed())
    try:
        await fuzz.start()
        await fuzz.run(int(os.environ.get("HUBBUB_TEST_FRAMES", 100_000)))
        await fuzz.finish()
    finally:
        await fuzz.hub.kill()
