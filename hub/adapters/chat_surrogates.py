"""Join UTF-16 surrogate pairs that an endpoint splits between two chunks."""

import attrs

REPLACEMENT = "\ufffd"


def join_surrogates(text: str) -> str:
    """Return *text* with each surrogate pair as one character, and each lone surrogate as U+FFFD."""
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


@attrs.define
class SurrogateJoiner:
    """Hold back a high surrogate at the end of a chunk until the next chunk of the same key.

    A key names a stream of text: a kind of delta, or a tool call.
    """

    _pending: dict[str, str] = attrs.Factory(dict)

    def join(self, key: str, text: str) -> str:
        """Return *text* after what was held back for *key*. Hold back a high surrogate at the end of *text*."""
        text = self._pending.pop(key, "") + text
        if text and "\ud800" <= text[-1] <= "\udbff":
            self._pending[key] = text[-1]
            text = text[:-1]
        return join_surrogates(text)

    def flush(self) -> dict[str, str]:
        """Return U+FFFD for each key whose low surrogate never came."""
        pending, self._pending = self._pending, {}
        return dict.fromkeys(pending, REPLACEMENT)
