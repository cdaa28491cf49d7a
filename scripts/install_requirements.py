"""Install the requirements.txt of the agents into this Python environment.

    python scripts/install_requirements.py

Does nothing if all requirements are installed. If pip fails, prints a message and exits with 0: the hub starts, and
names the agents that cannot work. Needs pip.
"""

import subprocess
import sys

from hub.cli.requirements import REQUIREMENTS_FILE, find_missing_lines, has_pip_lines
from hub.cli.sources import open_sources
from hub.settings import ConfigError


def main() -> int:
    """Install missing requirements; return the exit status."""
    try:
        file = open_sources().load({}, None).settings.agents / REQUIREMENTS_FILE
    except ConfigError as error:
        raise SystemExit(f"hubbub: {error}") from None
    if not find_missing_lines(file) and not has_pip_lines(file):
        return 0
    print(f"Installing the requirements in {file} ...", flush=True)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", str(file)]
    if subprocess.run(command).returncode:
        print(f"The hub will run without the requirements in {file}; to try again later: make run", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
