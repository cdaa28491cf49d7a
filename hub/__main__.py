"""The command `hubbub`, also as `python -m hub`."""

import sys


def main() -> None:
    """Run the command line; says how to install it where its libraries are missing."""
    try:
        from hub.cli import command
    except ModuleNotFoundError as error:
        if error.name not in ("click", "rich"):
            raise
        sys.exit(f"hubbub: the command line needs {error.name}: run pip install 'hubbub[cli]'")
    command(prog_name="hubbub")


if __name__ == "__main__":
    main()
