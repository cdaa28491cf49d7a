"""The command `hubbub`. `python -m hub` runs it too."""

import sys
from importlib.util import find_spec

CLI_PACKAGES = ("click", "dotenv", "packaging", "prompt_toolkit", "rich")


def main() -> None:
    """Run the command line. If packages of the extra `cli` are missing, exit and say how to install them."""
    missing = [name for name in CLI_PACKAGES if find_spec(name) is None]
    if missing:
        from hub.extras import make_install_command

        sys.exit(f"hubbub: the command line needs {', '.join(missing)}: run {make_install_command('cli')}")
    from hub.cli.main import cli

    cli(prog_name="hubbub")


if __name__ == "__main__":
    # Python puts the current folder first in sys.path: a random.py in that folder would hide Python's module `random`.
    if not sys.flags.safe_path:
        sys.path.append(sys.path.pop(0))
    main()
