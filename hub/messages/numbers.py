"""Read the numbers of JSON exactly, or refuse them."""

import math
from decimal import Context, Decimal, InvalidOperation
from typing import Any

from hub.limits import Limits
from hub.text import cut

MAX_INTEGER = Limits().max_integer


def check_finite(value: Any) -> None:
    """Raise ValueError if *value* has a float that JSON does not have: orjson would write it as null."""
    if isinstance(value, (dict, list, tuple)):
        for item in value.values() if isinstance(value, dict) else value:
            check_finite(item)
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value} is not a JSON number: send null or a string")


def read_integer(text: str) -> int:
    """Return the integer that is written *text* in JSON; raise ValueError if it is past 2^53."""
    if len(text) > len(str(-MAX_INTEGER)) or abs(int(text)) > MAX_INTEGER:
        raise ValueError(f"the integer {cut(text, 40, '…')} is past 2^53: send it as a string")
    return int(text)


def read_float(text: str) -> float:
    """Return the float that is written *text* in JSON; raise ValueError if a float cannot hold all of its digits.

    Surplus digits are allowed if they are those of the float: 0.10000000000000001 is 0.1.
    """
    number = float(text)
    if text in (repr(number), f"{number:.17g}"):  # as nearly all programs write floats
        return number
    try:
        written = Decimal(text)
        rounded = Context(prec=len(written.as_tuple().digits)).plus(Decimal(number))
    except InvalidOperation:  # the exponent is too large even for Decimal
        rounded = written = Decimal("NaN")
    if rounded != written:
        raise ValueError(f"a float of 64 bits cannot hold {cut(text, 40, '…')} exactly: send it as a string")
    return number
