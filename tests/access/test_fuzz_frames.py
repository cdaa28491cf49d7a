"""Random frames of several principals: the short form of tests/fuzz/test_grammar.py."""

from pathlib import Path

from support.fuzzing import Fuzz
from support.kills import seed
from support.process import HubProcess


async def test_random_frames_break_nothing(tmp_path: Path) -> None:
    """The hub goes on in the same process, and answers as documented. Nobody hears the secret of another principal.

    Meanwhile the answers of a canary are exact, and in the end the log is consistent.
    """
    fuzz = Fuzz(HubProcess(tmp_path), seed())
    try:
        await fuzz.start()
        await fuzz.run(2000)
        await fuzz.finish()
    finally:
        await fuzz.hub.kill()
