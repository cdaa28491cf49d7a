"""Adapt requests to an endpoint: change the URL, rename an option, or leave an option out."""

from typing import Any

import attrs
from yarl import URL

from hub.adapters.chat_address import base_url_of, toggle_version
from hub.adapters.chat_errors import OptionRefused, WrongAddress

# For each option that an endpoint may refuse: the name to send it under instead, or None to leave it out.
REPLACEMENTS: dict[str, str | None] = {
    "max_tokens": "max_completion_tokens",
    "max_completion_tokens": "max_tokens",
    "stream_options": None,
    "temperature": None,
    "frequency_penalty": None,
}


@attrs.frozen
class RequestForm:
    """The URL of requests to an endpoint, and the replacement of each option that the endpoint refuses."""

    url: URL
    replacements: tuple[tuple[str, str | None], ...] = ()

    def apply(self, options: dict[str, Any]) -> dict[str, Any]:
        """Return the options that have a value, under the names that the endpoint accepts."""
        names = dict(self.replacements)
        by_name = {names.get(name, name): value for name, value in options.items() if value is not None}
        return {name: value for name, value in by_name.items() if name is not None}

    def adapt(
        self, refusal: WrongAddress | OptionRefused, client_options: frozenset[str] = frozenset()
    ) -> "RequestForm | None":
        """Return the form to try after a refusal.

        Return None if REPLACEMENTS lacks the refused option, or if the option is itself a replacement. An option of
        *client_options* is not left out: the client gets the error, and other clients' requests stay as they are.
        """
        if isinstance(refusal, WrongAddress):
            return attrs.evolve(self, url=toggle_version(self.url))
        option = refusal.option
        if option not in REPLACEMENTS or option in dict(self.replacements).values():
            return None
        if REPLACEMENTS[option] is None and option in client_options:
            return None
        return attrs.evolve(self, replacements=(*self.replacements, (option, REPLACEMENTS[option])))

    def toml_lines(self, previous: "RequestForm") -> list[str]:
        """Return the changes to the agent's TOML file that turn the *previous* form into this one."""
        lines = [f'base_url = "{base_url_of(self.url)}"'] if self.url != previous.url else []
        return [*lines, *(toml_line(*pair) for pair in self.replacements if pair not in previous.replacements)]


def toml_line(option: str, replacement: str | None) -> str:
    """Return the change to a TOML file that puts the replacement into the first request.

    The change is a line to write, or the words "no `OPTION`" for an option to remove.
    """
    if replacement is not None:
        return f'max_tokens_name = "{replacement}"'
    return "stream_options = false" if option == "stream_options" else f"no `{option}`"
