"""Load the file .env of the current folder into the environment."""

import logging
from pathlib import Path

from dotenv import load_dotenv

from hub.settings import ConfigError

ENV_FILE = ".env"


def load_env_file() -> None:
    """Add the variables of .env to the environment, whose own variables win.

    A line that is no assignment is ignored, with a warning. Raises ConfigError if the file cannot be read.
    """
    logging.getLogger("dotenv.main").addFilter(_add_file_name)
    try:
        load_dotenv(Path(ENV_FILE))
    except (OSError, ValueError) as error:  # ValueError: not UTF-8, or U+0000 in a value
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"{ENV_FILE} cannot be read: {reason}") from None


def _add_file_name(record: logging.LogRecord) -> bool:
    record.msg = f"{ENV_FILE}: {record.msg}"
    return True
