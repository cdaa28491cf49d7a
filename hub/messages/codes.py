"""What the codes of closes and errors mean for a client: the one table that both clients, the docs and a test read."""

from hub.messages.words import FINISH_REASONS

# Close codes after which connecting again does not help: the end was wanted, or the client must be mended first. All
# others do (RFC 6455, 7.4.1); of the hub's own, 4000 to 4499 reconnect, and 4500 to 4999 do not.
FINAL_CLOSES = (1000, 1002, 1003, 1007, 1008, 1009, 1010)
FINAL_FROM, FINAL_TO = 4500, 4999
# Error codes of what the hub refuses now and may take in a moment. An error with `retryAfterMs` is retryable, too.
RETRYABLE = ("busy", "draining", "internal", "rate_limited", "storage_unavailable", "unavailable")


def is_final(close_code: int) -> bool:
    """Return whether this close code forbids connecting again."""
    return close_code in FINAL_CLOSES or FINAL_FROM <= close_code <= FINAL_TO


def write_codes_javascript() -> str:
    """Return the tables as the lines of hub/client_js/codes.js that hold them."""
    closes = ", ".join(map(str, FINAL_CLOSES))
    errors = ", ".join(f"'{code}'" for code in RETRYABLE)
    reasons = ", ".join(f"'{reason}'" for reason in FINISH_REASONS)
    return (
        f"export const FINAL_CLOSES = new Set([{closes}])\n"
        f"export const [FINAL_FROM, FINAL_TO] = [{FINAL_FROM}, {FINAL_TO}]\n"
        f"export const RETRYABLE = new Set(['disconnected', {errors}])\n"
        f"export const COMPLETE_REASONS = new Set([{reasons}])\n"
    )
