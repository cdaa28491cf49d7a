"""The input line of a terminal: its keys, its history, and its echo."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

import click
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent


def open_history() -> History:
    """Return the history of input lines: in a file, or in memory if the file cannot be written."""
    folder = Path(click.get_app_dir("hubbub"))
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        (folder / "history").touch(mode=0o600)
    except OSError:
        return InMemoryHistory()
    return FileHistory(str(folder / "history"))


def make_key_bindings() -> KeyBindings:
    """Return the key bindings of the input line: Alt-Enter starts a new line."""
    bindings = KeyBindings()

    @bindings.add("escape", "enter")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    return bindings


@contextlib.contextmanager
def hide_keys() -> Iterator[None]:
    """Do not show pressed keys while the context is open. The next prompt gets these keys."""
    try:
        import termios
    except ImportError:  # Windows
        yield
        return
    terminal = sys.stdin.fileno()
    original = termios.tcgetattr(terminal)
    attributes = termios.tcgetattr(terminal)
    attributes[3] &= ~termios.ECHO  # index 3: the local modes
    termios.tcsetattr(terminal, termios.TCSANOW, attributes)
    try:
        yield
    finally:
        termios.tcsetattr(terminal, termios.TCSANOW, original)
