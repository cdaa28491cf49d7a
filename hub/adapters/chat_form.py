"""The form in which an endpoint takes requests: which options, by which names, at which address."""

from typing import Any

import attrs
from yarl import URL

from hub.adapters.chat_address import base_of, other_version
from hub.adapters.chat_errors import OptionRefused, WrongAddress

# What is sent where an endpoint refuses an option: another name for it, or nothing.
INSTEAD: dict[str, str | None] = {
    "max_tokens": "max_completion_tokens",
    "max_completion_tokens": "max_tokens",
    "stream_options": None,
    "temperature": None,
    "frequency_penalty": None,
}


@attrs.frozen
class Form:
    """One way to ask an endpoint; *instead* has a pair for each option that it refuses."""

    url: URL
    instead: tuple[tuple[str, str | None], ...] = ()

    def apply(self, options: dict[str, Any]) -> dict[str, Any]:
        """Return the options as this endpoint takes them, without those that are None."""
        names = dict(self.instead)
        fitting = {names.get(name, name): value for name, value in options.items() if value is not None}
        return {name: value for name, value in fitting.items() if name is not None}

    def mend(self, refusal: WrongAddress | OptionRefused) -> "Form | None":
        """Return the form to try after a refusal; None for an option that was changed already."""
        if isinstance(refusal, WrongAddress):
            return attrs.evolve(self, url=other_version(self.url))
        option = refusal.option
        if option not in INSTEAD or option in dict(self.instead).values():
            return None
        return attrs.evolve(self, instead=(*self.instead, (option, INSTEAD[option])))

    def advice(self, usual: "Form") -> list[str]:
        """Return, as lines of the agent's TOML file, how this form differs from the usual one."""
        lines = [f'base_url = "{base_of(self.url)}"'] if self.url != usual.url else []
        return [*lines, *(line_for(*pair) for pair in self.instead if pair not in usual.instead)]


def line_for(option: str, instead: str | None) -> str:
    """Return the line of a TOML file that sends *instead* at once."""
    if instead is not None:
        return f'max_tokens_name = "{instead}"'
    return "stream_options = false" if option == "stream_options" else f"no `{option}`"
