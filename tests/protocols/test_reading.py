"""Errors about the fields of clients are for people."""

from typing import Any

import pytest

from hub.commands.operator import OPERATOR_COMMANDS
from hub.errors import BadFrame
from hub.limits import Limits
from hub.messages import COMMANDS, Chat
from hub.protocols.choices import type_info
from hub.protocols.reading import TEXT_FORMS, convert
from hub.web.app import ROUTES


def find_patterns(data: Any) -> set[str]:
    """Return the regular expressions in the description of a type."""
    if isinstance(data, (list, tuple)):
        return {pattern for item in data for pattern in find_patterns(item)}
    if isinstance(data, dict):
        return find_patterns([*data.values()])
    fields = {name: getattr(data, name, None) for name in getattr(data, "__struct_fields__", ())}
    own = {str(fields["pattern"])} if fields.get("pattern") else set()
    return own | find_patterns(fields)


def test_each_form_of_a_text_has_a_name() -> None:
    """Errors show it instead of the regular expression."""
    kinds = [*COMMANDS.values(), *(command.arguments for command in OPERATOR_COMMANDS.values())]
    kinds += [kind for route in ROUTES for kind in (route.query, route.body) if isinstance(kind, type)]
    patterns = {pattern for kind in kinds for pattern in find_patterns(type_info(kind))}
    assert patterns == {*TEXT_FORMS}


@pytest.mark.parametrize(
    ("kind", "fields", "words"),
    [
        (OPERATOR_COMMANDS["read_usage"].arguments, {"since": "x"}, "Expected a day such as 2026-11-30 - at `$.since`"),
        (
            OPERATOR_COMMANDS["create_key"].arguments,
            {"name": "x", "agents": ["a/b"]},
            "Expected an id: use 1 to 128 of the characters A-Z a-z 0-9 . _ : @ - - at `$.agents[0]`",
        ),
        (
            Chat,
            {"message": "x", "parts": [{"type": "image", "source": {"type": "data", "mimeType": "png", "value": ""}}]},
            "Expected a media type such as image/png - at `$.parts[0].source.mimeType`",
        ),
    ],
)
def test_an_error_names_the_form_of_a_text(kind: Any, fields: dict[str, Any], words: str) -> None:
    with pytest.raises(BadFrame) as refusal:
        convert(fields, kind, Limits())
    assert words in refusal.value.message and "regex" not in refusal.value.message
