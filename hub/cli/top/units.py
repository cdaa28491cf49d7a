"""Format the numbers of the picture, each with its unit."""

NO_VALUE = "-"


def format_duration(seconds: float | None) -> str:
    if seconds is None:
        return NO_VALUE
    if seconds < 1:
        return f"{seconds * 1000:.{1 if seconds < 0.01 else 0}f} ms"
    return f"{seconds:.1f} s" if seconds < 120 else format_span(seconds)


def format_span(seconds: float) -> str:
    """Return a long time in its two largest units."""
    minutes, hours, days = (int(seconds // size) for size in (60, 3600, 86_400))
    if days:
        return f"{days} d {hours % 24} h"
    if hours:
        return f"{hours} h {minutes % 60} min"
    return f"{minutes} min {int(seconds % 60)} s" if minutes else f"{int(seconds)} s"


def format_rate(rate: float | None) -> str:
    if rate is None:
        return NO_VALUE
    return f"{rate:.1f}" if rate < 100 else f"{rate:,.0f}"


def format_bytes(size: float | None) -> str:
    if size is None:
        return NO_VALUE
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.{0 if unit == 'B' else 1}f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"


def format_share(share: float | None) -> str:
    return NO_VALUE if share is None else f"{share:.0%}"
