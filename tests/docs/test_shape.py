"""docs/ has every command, event, code, limit and setting of the hub, with the hub's values."""

import re
import tomllib
from pathlib import Path
from typing import Any, get_args

import attrs
import msgspec
import pytest
from support.documents import DOCS, README, README_ZH, ROOT, blocks, rows

from hub.adapters import openai_chat
from hub.cli.main import cli
from hub.errors import HubError
from hub.hosting.contract import Marks, Run
from hub.limits import KiB, Limits, MiB, Seconds, SecondsOrZero
from hub.messages import BODIES, COMMANDS, NOTICES, StopReason, codes, pieces
from hub.setting_sources import ENVIRONMENT_PREFIX, LIMIT_TYPES, SETTING_TYPES, flag_name
from hub.settings import Settings

UNITS = {"MiB": MiB, "KiB": KiB, "s": 1}


def names_in_tables(page: Path) -> set[str]:
    """Return the names in the first column of the page's tables."""
    return {name for row in rows(page) for name in re.findall(r"`([^`]+)`", row[0])}


def errors(kind: type[HubError]) -> set[str]:
    return {kind.code}.union(*(errors(one) for one in kind.__subclasses__()))


def fields_of(kind: type[Any]) -> list[str]:
    fields = attrs.fields(kind) if attrs.has(kind) else msgspec.structs.fields(kind)
    return [field.name for field in fields if not field.name.startswith("_")]


@pytest.mark.parametrize("name", sorted({*COMMANDS, *BODIES, *NOTICES}))
def test_every_command_event_and_notice_is_on_the_protocol_page(name: str) -> None:
    """By its name, and with each of its fields."""
    text = DOCS["protocol"].read_text()
    assert f"`{name}`" in text
    kinds = [table[name] for table in (COMMANDS, BODIES, NOTICES) if name in table]
    missing = [
        field for kind in kinds for field in fields_of(kind) if f"`{field}`" not in text and f'"{field}"' not in text
    ]
    assert not missing, f"{name} has {missing}, which the page does not name"


def test_every_command_has_a_row() -> None:
    """The table of commands is complete."""
    assert COMMANDS.keys() <= names_in_tables(DOCS["protocol"])


def test_every_event_has_a_row_with_its_fields() -> None:
    """The table of events is complete."""
    table = {row[0].strip("`"): row[1] for row in rows(DOCS["protocol"]) if len(row) == 4}
    for name, kind in BODIES.items():
        assert not [field for field in fields_of(kind) if f"`{field}`" not in table[name]], name


@pytest.mark.parametrize("code", sorted(errors(HubError)))
def test_every_error_code_is_on_the_protocol_page(code: str) -> None:
    """A client can look up each code."""
    assert f"`{code}`" in DOCS["protocol"].read_text()


def test_every_code_of_agents_and_models_is_on_the_agents_page() -> None:
    """The tables have the codes that the code contains."""
    code = "".join(path.read_text() for path in (DOCS["agents"].parent.parent / "hub").rglob("*.py"))
    used = set(re.findall(r'"((?:model|agent|answer)_[a-z_]+)"', code)) - {
        "agent_broken",
        "agent_threads",
        "answer_gone",
        "model_not_found",
    }
    used = {name for name in used if re.search(rf'"{name}"(?:,|\)|\s*\n?\s*\))', code)}
    assert {"model_refused", "agent_bad_output", "answer_too_long"} <= used
    assert used <= names_in_tables(DOCS["agents"]), used - names_in_tables(DOCS["agents"])


def documented_limits() -> dict[str, str]:
    """Return the default of each limit, as the table of the protocol page has it."""
    documented: dict[str, str] = {}
    for row in rows(DOCS["protocol"]):
        names, values = re.findall(r"`([a-z_]+)`", row[0]), row[1].split(", ")
        if names and set(names) <= set(fields_of(Limits)):
            assert documented.keys().isdisjoint(names), names
            documented.update(zip(names, values, strict=True))
    return documented


def test_every_limit_is_on_the_protocol_page_with_its_value() -> None:
    """The table has the numbers of the hub, each limit once."""
    assert {name: amount(text) for name, text in documented_limits().items()} == attrs.asdict(Limits())


@pytest.mark.parametrize("name", fields_of(Limits))
def test_every_limit_has_its_unit_on_the_protocol_page(name: str) -> None:
    """By its type and its name: seconds, bytes, or a number without a unit."""
    _, _, unit = documented_limits()[name].partition(" ")
    if LIMIT_TYPES[name] in (Seconds, SecondsOrZero):
        assert unit == "s" and name.endswith("_seconds")
    else:
        assert unit in ({"KiB", "MiB"} if name.endswith("_bytes") else {""})


def amount(text: str) -> float:
    number, _, unit = text.partition(" ")
    base, _, power = number.partition("^")
    return float(float(base) ** float(power or 1) * UNITS.get(unit, 1))


def test_every_setting_is_on_the_start_page_with_its_default_variable_and_flag() -> None:
    """The table has the settings that the hub reads."""
    table = {row[0].strip("`"): [cell.strip("`") for cell in row[1:]] for row in rows(DOCS["start"]) if len(row) == 5}
    del table["hubbub.toml"]
    assert table.keys() == SETTING_TYPES.keys()
    flags = {option for parameter in cli.commands["serve"].params for option in parameter.opts}
    for name, (variable, flag, default, _) in table.items():
        assert variable == ENVIRONMENT_PREFIX + name.upper()
        assert flag == flag_name(name) and flag in flags
        value = getattr(Settings(), name)
        if isinstance(value, (str, Path)):
            assert default == (str(value) or "-")
        elif name == "log":
            assert Settings().log_url == "sqlite:///data/hub.db" and default == "hub.db` in the data folder"
        elif name == "cache":
            assert default == "$XDG_CACHE_HOME/hubbub`, else `~/.cache/hubbub"
        elif value is None:
            assert default == "-"
        else:
            assert tomllib.loads(f"it = {default}")["it"] == (list(value) if isinstance(value, tuple) else value)


def test_every_option_and_mark_and_part_of_a_run_is_on_the_agents_page() -> None:
    """An author need not read the code."""
    page = names_in_tables(DOCS["agents"])
    assert set(fields_of(openai_chat.Options)) <= page
    assert set(fields_of(Marks)) <= page
    assert {f"run.{name}" for name in fields_of(Run)} <= page


def test_the_defaults_of_options_on_the_agents_page_are_the_adapters() -> None:
    """The table has each default that is a number."""
    table = {row[0].strip("`"): row[1] for row in rows(DOCS["agents"])}
    for field in attrs.fields(openai_chat.Options):
        if isinstance(field.default, (int, float)):
            assert tomllib.loads(f"it = {table[field.name]}")["it"] == field.default, field.name


@pytest.mark.parametrize("reason", get_args(StopReason))
def test_every_stop_reason_is_on_the_protocol_page_and_has_words_in_the_console(reason: str) -> None:
    """In English and in Chinese; a complete answer needs none."""
    assert reason in names_in_tables(DOCS["protocol"])
    words = (ROOT / "hub" / "console" / "words.js").read_text(encoding="utf-8")
    assert len(re.findall(rf"\b{reason}: '", words)) == (0 if reason == "end_turn" else 2)


def test_both_readmes_have_the_same_examples() -> None:
    """The Chinese text has the same code."""
    english, chinese = blocks(README), blocks(README_ZH)
    assert [(block.info, block.text) for block in english] == [(block.info, block.text) for block in chinese]


def test_both_readmes_link_to_the_same_places() -> None:
    """They also link to each other."""
    links = [set(re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8"))) for page in (README, README_ZH)]
    assert links[0] - {"README.zh-CN.md"} == links[1] - {"README.md"}
    assert "README.zh-CN.md" in links[0] and "README.md" in links[1]


def test_both_clients_have_the_same_tables() -> None:
    """Both agree on final close codes and errors, and on the fields that come in pieces."""
    folder = ROOT / "hub" / "client_js"
    assert codes.write_codes_javascript() in (folder / "codes.js").read_text()
    assert pieces.write_fields_javascript() in (folder / "pieces.js").read_text()


def test_the_close_codes_on_the_protocol_page_say_what_the_clients_do() -> None:
    """A row says yes unless its code is final."""
    text = DOCS["protocol"].read_text()
    table = text[text.index("## Close codes") : text.index("## Limits")]
    lines = re.findall(r"^\| ([0-9, ]+) \|.*\| ([^|]+) \|$", table, re.MULTILINE)
    assert len(lines) >= 6
    for numbers, advice in lines:
        for number in map(int, numbers.split(", ")):
            assert codes.is_final(number) is not advice.startswith("yes"), number


def test_the_retryable_codes_are_on_the_protocol_page() -> None:
    """One sentence lists them."""
    text = " ".join(DOCS["protocol"].read_text().split())
    assert "Try again after " + ", ".join(f"`{code}`" for code in codes.RETRYABLE) in text


@pytest.mark.parametrize("code", codes.RETRYABLE)
def test_a_retryable_code_is_an_error_code(code: str) -> None:
    """It is the code of an error, or reserved."""
    assert code in errors(HubError) | {"internal", "rate_limited"}
