"""Make text whole whose UTF-16 surrogates come in two chunks."""

import attrs

LONE = "\ufffd"


def repair(text: str) -> str:
    """Return *text* with its surrogates joined to characters; one without its other half becomes U+FFFD."""
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


@attrs.define
class Halves:
    """The first half of a character, held until the next chunk of its channel brings the second one."""

    _held: dict[str, str] = attrs.Factory(dict)

    def join(self, channel: str, text: str) -> str:
        """Return what can be said of the channel now."""
        text = self._held.pop(channel, "") + text
        if text and "\ud800" <= text[-1] <= "\udbff":
            self._held[channel] = text[-1]
            text = text[:-1]
        return repair(text)

    def rest(self) -> dict[str, str]:
        """Return, by channel, U+FFFD for each half whose other one never came."""
        channels, self._held = self._held, {}
        return dict.fromkeys(channels, LONE)
