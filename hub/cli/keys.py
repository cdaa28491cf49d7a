"""The keys that `hubbub login` keeps: one file for the address of each hub, which only this account can read."""

import contextlib
import os
import tempfile
from pathlib import Path
from urllib.parse import quote

import click

from hub.cli.failures import CommandFailed
from hub.client.addresses import address_of, has_password, origin_of, public_url
from hub.client.tokens import choose_token


def find_key(url: str) -> str | None:
    """Return the key for the hub at *url*: that of HUBBUB_KEY, else the kept one, else None.

    If *url* has a password, the password is used instead of a key.
    """
    if has_password(url):
        return None
    key = choose_token(url, {}, None)
    return key if isinstance(key, str) else read_key(url)


def read_key(url: str) -> str | None:
    """Return the kept key of a hub, or None. Raises CommandFailed if its file cannot be read."""
    try:
        return _find_file(url).read_text(encoding="utf-8").strip() or None
    except (FileNotFoundError, ValueError):  # ValueError: a malformed address, which has no key
        return None
    except OSError as error:
        raise _make_error(error) from None


def store_key(url: str, key: str) -> Path:
    """Keep a key in place of an earlier one, and return its file. Raises CommandFailed.

    The write is atomic: another command reads the old key or the new one.
    """
    path = _find_file(url)
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.parent.chmod(0o700)
        descriptor, name = tempfile.mkstemp(dir=path.parent)  # with the mode 0600
        try:
            with open(descriptor, "w", encoding="utf-8") as file:
                file.write(f"{key}\n")
                file.flush()
                os.fsync(descriptor)
            os.replace(name, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(name)
            raise
    except OSError as error:
        raise _make_error(error) from None
    return path


def forget_key(url: str) -> bool:
    """Delete the kept key of a hub. Return False if there is none. Raises CommandFailed."""
    try:
        _find_file(url).unlink()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise _make_error(error) from None
    return True


def check_address(url: str) -> None:
    """Raise CommandFailed if *url* is not an address, or if it has a password."""
    try:
        origin_of(url)
    except ValueError:
        raise CommandFailed(
            f"{public_url(url)} is not the address of a hub: write one such as http://localhost:9527"
        ) from None
    if has_password(url):
        raise CommandFailed("an address with a password cannot have a key too: leave the password out")


def _find_file(url: str) -> Path:
    """Return the file for the key of a hub. Raises ValueError for a malformed address."""
    return Path(click.get_app_dir("hubbub")) / "keys" / quote(address_of(url), safe="")


def _make_error(error: OSError) -> CommandFailed:
    return CommandFailed(f"{error.filename}: {error.strerror}: correct this, or set HUBBUB_KEY")
