"""Read the file .env of the current folder."""

import logging
from pathlib import Path

from dotenv import dotenv_values

from hub.setting_sources import ENV_FILE
from hub.settings import ConfigError


def read_env_file(folder: Path) -> dict[str, str]:
    """Return the variables of .env. A line that is no assignment is ignored, with a warning. Raises ConfigError."""
    logging.getLogger("dotenv.main").addFilter(_add_file_name)
    try:
        variables = {name: text for name, text in dotenv_values(folder / ENV_FILE).items() if text is not None}
    except (OSError, ValueError) as error:  # ValueError: not UTF-8
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"{ENV_FILE} cannot be read: {reason}") from None
    if any("\0" in name + text for name, text in variables.items()):
        raise ConfigError(f"{ENV_FILE} cannot be read: embedded null byte")
    return variables


def _add_file_name(record: logging.LogRecord) -> bool:
    record.msg = f"{ENV_FILE}: {record.msg}"
    return True
