"""The command `hubbub`, also as `python -m hub`."""

import sys
from importlib.util import find_spec

NEEDED = ("click", "dotenv", "packaging", "prompt_toolkit", "rich")


def main() -> None:
    """Run the command line, or say how to install it: it is an extra, so that embedding the hub stays light."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        sys.exit(f"hubbub: the command line needs {', '.join(missing)}: pip install 'hubbub[cli]'")
    from hub.cli.main import cli

    cli(prog_name="hubbub")


if __name__ == "__main__":
    if not sys.flags.safe_path:  # Python puts the current folder first, where its `random.py` would hide Python's own
        sys.path.append(sys.path.pop(0))
    main()
