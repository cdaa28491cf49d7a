"""The types of the JavaScript client: scripts/client_types/write.py makes them from hub/messages."""

import os
import subprocess
import sys

from support.documents import ROOT

PROGRAM = ROOT / "scripts" / "client_types" / "write.py"


def test_the_types_are_those_of_the_messages() -> None:
    """After a change of hub/messages, `make client-types` writes the file again."""
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    check = subprocess.run([sys.executable, str(PROGRAM), "--check"], env=environ, capture_output=True, text=True)
    assert check.returncode == 0, check.stderr
