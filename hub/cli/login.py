"""`hubbub login` and `hubbub logout`: keep and forget the key of a hub."""

from hub.cli.failures import CommandFailed
from hub.cli.hubs import get_json
from hub.cli.keys import check_address, forget_key, store_key
from hub.cli.text import to_printable
from hub.client.addresses import address_of


async def keep_key(url: str, key: str) -> int:
    """Check a key at its hub, and keep it. Raises CommandFailed if the hub refuses the key, or has no sign-in."""
    check_address(url)
    if not key.isascii() or not key.isprintable() or not key:
        raise CommandFailed(
            "that is no key: write the line that `hubbub key create` has printed, which begins with hk_"
        )
    principal = await get_json(url, "/me", key=key)
    if not principal["isSignInOn"]:
        raise CommandFailed(f"{address_of(url)} needs no key, because its sign-in is off")
    path = store_key(url, key)
    name, role = (to_printable(str(principal[field])) for field in ("name", "role"))
    print(f"you are {name} ({role}) at {address_of(url)}; the key is in {path}")
    return 0


async def drop_key(url: str) -> int:
    """Forget the key of a hub. Raises CommandFailed if none is kept."""
    check_address(url)
    if not forget_key(url):
        raise CommandFailed(f"no key of {address_of(url)} is kept")
    print(f"the key of {address_of(url)} is forgotten; the hub still accepts it, until it is revoked there")
    return 0
