"""scripts/choose_python chooses the Python that `make` creates .venv with."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.documents import ROOT

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no make")
SYSTEM = "/usr/bin/python3"
CHECK = "import ensurepip, venv, sys; sys.exit(sys.version_info < (3, 11))"


def choose(folder: Path, python3: str) -> str:
    """Return the choice if python3 is a shell script with the line *python3*."""
    program = folder / "python3"
    program.write_text(f"#!/bin/sh\n{python3}\n")
    program.chmod(0o755)
    path = f"{folder}{os.pathsep}{os.environ['PATH']}"
    process = subprocess.run(
        [str(ROOT / "scripts" / "choose_python")], env={"PATH": path}, capture_output=True, text=True, check=True
    )
    return process.stdout.strip()


def test_an_optimized_python_is_chosen(tmp_path: Path) -> None:
    """Its build configuration contains --enable-optimizations."""
    configure = "import sysconfig; sysconfig.get_config_vars()['CONFIG_ARGS'] = '--enable-optimizations'"
    assert choose(tmp_path, f'exec {sys.executable} -c "{configure}; $2"') == "python3"


def test_the_systems_python_is_preferred_to_one_without_optimizations(tmp_path: Path) -> None:
    """If the system has no suitable one, the first one is chosen."""
    configure = "import sysconfig; sysconfig.get_config_vars()['CONFIG_ARGS'] = '--prefix=/x'"
    is_suitable = os.path.exists(SYSTEM) and subprocess.run([SYSTEM, "-c", CHECK], capture_output=True).returncode == 0
    assert choose(tmp_path, f'exec {sys.executable} -c "{configure}; $2"') == (SYSTEM if is_suitable else "python3")
