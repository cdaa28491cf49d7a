"""Which Python .venv is made with."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.documents import ROOT

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no make")
SYSTEM = "/usr/bin/python3"
WILL_DO = "import ensurepip, venv, sys; sys.exit(sys.version_info < (3, 11))"


def chosen(folder: Path, python3: str) -> str:
    """Ask where python3 is a program of ours, which does *python3*."""
    program = folder / "python3"
    program.write_text(f"#!/bin/sh\n{python3}\n")
    program.chmod(0o755)
    path = f"{folder}{os.pathsep}{os.environ['PATH']}"
    asked = subprocess.run(
        [str(ROOT / "scripts" / "choose_python")], env={"PATH": path}, capture_output=True, text=True, check=True
    )
    return asked.stdout.strip()


def test_an_optimized_python_is_taken(tmp_path: Path) -> None:
    """One that says so of itself."""
    says = "import sysconfig; sysconfig.get_config_vars()['CONFIG_ARGS'] = '--enable-optimizations'"
    assert chosen(tmp_path, f'exec {sys.executable} -c "{says}; $2"') == "python3"


def test_one_that_is_not_gives_way_to_the_systems(tmp_path: Path) -> None:
    """Where there is one that will do; otherwise it is taken all the same."""
    says = "import sysconfig; sysconfig.get_config_vars()['CONFIG_ARGS'] = '--prefix=/x'"
    will_do = os.path.exists(SYSTEM) and subprocess.run([SYSTEM, "-c", WILL_DO], capture_output=True).returncode == 0
    assert chosen(tmp_path, f'exec {sys.executable} -c "{says}; $2"') == (SYSTEM if will_do else "python3")
