"""The line that one writes on: its keys, what it remembers, and how it is kept quiet."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

import click
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent


def history() -> History:
    """Keep what was written for the next time, where that can be kept."""
    place = Path(click.get_app_dir("hubbub"))
    try:
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
        (place / "history").touch(mode=0o600)
    except OSError:
        return InMemoryHistory()
    return FileHistory(str(place / "history"))


def keys() -> KeyBindings:
    bindings = KeyBindings()

    @bindings.add("escape", "enter")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    return bindings


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep keys that are pressed meanwhile off the screen; the next prompt gets them."""
    try:
        import termios
    except ImportError:  # Windows
        yield
        return
    terminal = sys.stdin.fileno()
    before = termios.tcgetattr(terminal)
    mute = termios.tcgetattr(terminal)
    mute[3] &= ~termios.ECHO
    termios.tcsetattr(terminal, termios.TCSANOW, mute)
    try:
        yield
    finally:
        termios.tcsetattr(terminal, termios.TCSANOW, before)
