"""Install what the requirements.txt beside the agents asks for into this Python's environment.

    python scripts/install_requirements.py

Does nothing, quickly, where all of it is there. Where it cannot be had, says so and exits with 0: the hub starts, and
names the agents that lack it. Needs pip.
"""

import os
import subprocess
import sys
from pathlib import Path

from dotenv import load_dotenv

from hub.cli.requirements import FILE, has_others, missing
from hub.settings import ConfigError, load


def main() -> int:
    """Install what is missing; return the exit status."""
    load_dotenv(Path(".env"))
    try:
        file = load({}, os.environ, Path.cwd()).agents / FILE
    except ConfigError as wrong:
        raise SystemExit(f"hubbub: {wrong}") from None
    if not missing(file) and not has_others(file):
        return 0
    print(f"Installing what {file} asks for ...", flush=True)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", str(file)]
    if subprocess.run(command).returncode:
        print(f"The hub will run without what {file} asks for; to try again later: make run", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
