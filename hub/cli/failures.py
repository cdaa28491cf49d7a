"""The error of a command of the terminal."""


class CommandFailed(Exception):
    """A command failed: the message is one line for the user, and names the remedy."""
