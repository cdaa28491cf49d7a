"""Numbers of JSON, which are kept as they were written or refused."""

import math
from decimal import Context, Decimal, InvalidOperation
from typing import Any

from hub.limits import Limits
from hub.text import cut

MOST = Limits().max_integer


def check_finite(value: Any) -> None:
    """Raise ValueError for a float that JSON does not have, which orjson would write as null."""
    if isinstance(value, (dict, list, tuple)):
        for item in value.values() if isinstance(value, dict) else value:
            check_finite(item)
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value} is no number of JSON: send null or a string")


def read_integer(text: str) -> int:
    """Return the integer that JSON writes as *text*; raises ValueError for one that a hub refuses."""
    if len(text) > len(str(-MOST)) or abs(int(text)) > MOST:
        raise ValueError(f"{cut(text, 40, '…')} is past 2^53: the hub takes no such integer")
    return int(text)


def read_float(text: str) -> float:
    """Return the float that JSON writes as *text*; raises ValueError where a float does not hold all of its digits.

    More digits than are needed are taken where they are those of the float: 0.10000000000000001 is 0.1.
    """
    number = float(text)
    if text in (repr(number), f"{number:.17g}"):  # as nearly all who write floats do
        return number
    try:
        written = Decimal(text)
        held = Context(prec=len(written.as_tuple().digits)).plus(Decimal(number))
    except InvalidOperation:  # an exponent past all bounds
        held = written = Decimal("NaN")
    if held != written:
        raise ValueError(f"{cut(text, 40, '…')} is not exact as a float of 64 bits: send it as a string")
    return number
