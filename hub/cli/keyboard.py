"""The keyboard of a terminal: single keys, and the keys, the history and the echo of an input line."""

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.input import Input, create_input
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.keys import Keys


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


def open_keyboard() -> Input:
    """Return the keyboard of a prompt. The prompt gets all keys, also those that are pressed while text is printed.

    Else prompt_toolkit would switch the terminal to its normal mode to print text above the prompt: see keep_keys().
    """
    keyboard = create_input()
    keyboard.cooked_mode = contextlib.nullcontext  # type: ignore[method-assign]
    return keyboard


@contextlib.contextmanager
def keep_keys() -> Iterator[None]:
    """While the context is open, do not show keys that are pressed outside a prompt. The next prompt gets these keys.

    In its normal mode, a terminal waits for whole lines. After a program leaves this mode, it reads an earlier Ctrl-D
    as a NUL. Ctrl-C outside a prompt stays a signal. At its end, the context restores the terminal.
    """
    try:
        import termios
    except ImportError:  # Windows
        yield
        return
    terminal = sys.stdin.fileno()
    original = termios.tcgetattr(terminal)
    attributes = termios.tcgetattr(terminal)
    attributes[0] &= ~termios.ICRNL  # index 0: the input modes
    attributes[3] &= ~(termios.ECHO | termios.ICANON)  # index 3: the local modes
    termios.tcsetattr(terminal, termios.TCSANOW, attributes)
    try:
        yield
    finally:
        termios.tcsetattr(terminal, termios.TCSANOW, original)


@contextlib.contextmanager
def watch_keys(on_key: Callable[[str], None]) -> Iterator[None]:
    """While the context is open, call *on_key* with each pressed key, and do not show it. Ctrl-C is a key too.

    A closed terminal counts as Ctrl-C. The context restores the terminal.
    """
    keyboard = create_input()

    def read() -> None:
        for press in keyboard.read_keys():
            on_key(press.key)
        if keyboard.closed:
            on_key(Keys.ControlC)

    with keyboard.raw_mode(), keyboard.attach(read):
        yield
