"""Close codes after which a client must not reconnect, and error codes after which it may send a command again.

The Python client uses these tables. Tests compare them with the JavaScript client and with docs/protocol.md.
"""

from hub.messages.words import FINISH_REASONS

# Close codes (RFC 6455, 7.4.1) after which a client must not reconnect: the close was intended, or the client made an
# error. After all other codes, the client reconnects. Of the hub's own codes, 4500 to 4999 are final.
FINAL_CLOSES = (1000, 1002, 1003, 1007, 1008, 1009, 1010)
FINAL_FROM, FINAL_TO = 4500, 4999
# What a client says after a final close of the hub: what is wrong, and what to do.
WRONG_TOKEN, NO_TOKEN, REVOKED_TOKEN = 4500, 4502, 4503
CLOSE_TEXTS = {
    WRONG_TOKEN: "the hub does not accept the token of this client: use another one",
    NO_TOKEN: "the hub needs a token, and this client has none: connect with a key or another token",
    REVOKED_TOKEN: "the token of this client was revoked: use another one",
    4504: "the principal of this client has too many connections: close one first",
    4507: "this client may not read what it asked for: ask the operator of the hub",
}
# Codes of errors after which the client may send the command again. After other errors, it may do so only if the error
# has a `retryAfterMs`.
RETRYABLE = ("busy", "draining", "internal", "rate_limited", "storage_unavailable", "unavailable")


def is_final(close_code: int) -> bool:
    """Return whether a client must not reconnect after this close code."""
    return close_code in FINAL_CLOSES or FINAL_FROM <= close_code <= FINAL_TO


def write_codes_javascript() -> str:
    """Return the lines of hub/client_js/codes.js that define these tables and the finish reasons."""
    closes = ", ".join(map(str, FINAL_CLOSES))
    errors = ", ".join(f"'{code}'" for code in RETRYABLE)
    texts = "".join(f"  [{code}, '{text}'],\n" for code, text in CLOSE_TEXTS.items())
    reasons = ", ".join(f"'{reason}'" for reason in FINISH_REASONS)
    return (
        f"export const FINAL_CLOSES = new Set([{closes}])\n"
        f"export const [FINAL_FROM, FINAL_TO] = [{FINAL_FROM}, {FINAL_TO}]\n"
        f"export const [WRONG_TOKEN, NO_TOKEN] = [{WRONG_TOKEN}, {NO_TOKEN}]\n"
        f"export const CLOSE_TEXTS = new Map([\n{texts}])\n"
        f"export const RETRYABLE = new Set(['disconnected', {errors}])\n"
        f"export const COMPLETE_REASONS = new Set([{reasons}])\n"
    )
