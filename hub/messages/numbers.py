"""Read JSON numbers without a loss of digits, or raise ValueError."""

import math
from decimal import Context, Decimal, InvalidOperation
from typing import Any

from hub.limits import Limits
from hub.text import cut

MAX_INTEGER = Limits().max_integer


def check_finite(value: Any) -> None:
    """Raise ValueError if *value* contains NaN or an infinity, which orjson would write as null."""
    if isinstance(value, (dict, list, tuple)):
        for item in value.values() if isinstance(value, dict) else value:
            check_finite(item)
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value} is not a JSON number: send null or a string")


def read_integer(text: str) -> int:
    """Convert the text of a JSON integer; raises ValueError if it is above 2^53 or below -2^53."""
    if len(text) > len(str(-MAX_INTEGER)) or abs(int(text)) > MAX_INTEGER:
        raise ValueError(f"the integer {cut(text, 40, '…')} is past 2^53: send it as a string")
    return int(text)


def read_float(text: str) -> float:
    """Convert the text of a JSON number to a float; raises ValueError if a float cannot hold all of its digits.

    The exact value of the float, rounded to the number of digits in *text*, must be the number in *text*. So 0.1 and
    0.10000000000000001 are both allowed, and are the same float.
    """
    number = float(text)
    if text in (repr(number), f"{number:.17g}"):  # the forms in which nearly all programs write floats
        return number
    try:
        exact = Decimal(text)
        decimal_of_float = Context(prec=len(exact.as_tuple().digits)).plus(Decimal(number))
    except InvalidOperation:  # the exponent is too large even for Decimal
        decimal_of_float = exact = Decimal("NaN")
    if decimal_of_float != exact:
        raise ValueError(f"a float of 64 bits cannot hold {cut(text, 40, '…')} exactly: send it as a string")
    return number
