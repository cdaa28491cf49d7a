"""How a command of the terminal fails: with one line."""


class CommandFailed(Exception):
    """The message is the line, which says what to do."""
