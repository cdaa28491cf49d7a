"""docs/ is one book: it has an index, each page has a purpose and a next chapter, and terms are explained."""

import re
from pathlib import Path

import pytest
from support.documents import DOCS, README, README_ZH, ROOT

CHAPTERS = list(DOCS.values())
# Each word of the field, with the page that explains it.
WORDS = {
    "backpressure": "protocol",
    "catch-up": "architecture",
    "cursor": "protocol",
    "fan-out": "architecture",
    "graceful shutdown": "operations",
    "head": "architecture",
    "heartbeat": "protocol",
    "high-water mark": "architecture",
    "idempotency key": "protocol",
    "rate limit": "protocol",
    "replay": "protocol",
    "retention": "operations",
    "retry with backoff": "clients",
    "slot": "agents",
    "write-ahead log": "operations",
}


def paragraphs(page: Path) -> list[str]:
    """Return the paragraphs of a page, each on one line."""
    return [" ".join(part.split()) for part in page.read_text(encoding="utf-8").strip().split("\n\n")]


def index(page: Path) -> list[str]:
    """Return the pages of docs/ that the first cells of a README's tables link to, in order."""
    return re.findall(r"^\| \[[^\]]+\]\((docs/[^)]+)\) \|", page.read_text(encoding="utf-8"), re.MULTILINE)


def test_every_page_of_docs_is_a_chapter() -> None:
    """The list in tests/support/documents.py has all pages, in order."""
    assert sorted(CHAPTERS) == sorted((ROOT / "docs").glob("*.md"))


@pytest.mark.parametrize("page", [README, README_ZH], ids=lambda page: page.name)
def test_the_index_has_every_chapter_in_order(page: Path) -> None:
    """Both READMEs have the index."""
    assert index(page) == [str(chapter.relative_to(ROOT)) for chapter in CHAPTERS]


@pytest.mark.parametrize("page", CHAPTERS, ids=lambda page: page.name)
def test_a_chapter_begins_with_its_purpose(page: Path) -> None:
    """It names its title, its readers, and their benefit."""
    title, purpose, *_ = paragraphs(page)
    assert re.fullmatch(r"# [A-Z].*", title)
    assert re.match(r"This page is for .+\. Afterwards .+\.", purpose), purpose


@pytest.mark.parametrize("page", CHAPTERS, ids=lambda page: page.name)
def test_a_chapter_ends_with_the_next_one(page: Path) -> None:
    """The last chapter leads back to the index."""
    chapter = CHAPTERS.index(page) + 1
    following = CHAPTERS[chapter].name if chapter < len(CHAPTERS) else "../README.md#the-book"
    last = paragraphs(page)[-1]
    assert last.startswith("Next: ") and f"]({following})" in last, last


@pytest.mark.parametrize(("word", "page"), WORDS.items())
def test_a_search_for_a_word_of_the_field_finds_its_explanation(word: str, page: str) -> None:
    """The word is on the page that explains it."""
    assert re.search(rf"\b{word}\b", DOCS[page].read_text(encoding="utf-8"), re.IGNORECASE)


def test_the_architecture_page_names_code_that_exists() -> None:
    """Each `path` is a file of the repository, and each `name` in or of a path is in that file."""
    text = " ".join(DOCS["architecture"].read_text(encoding="utf-8").split())
    paths = set(re.findall(r"`((?:[a-z_0-9]+/)+[a-z_0-9]+\.py)`", text))
    files = {
        path: next((root / path for root in (ROOT, ROOT / "hub") if (root / path).exists()), None) for path in paths
    }
    assert None not in files.values(), files
    for name, path in re.findall(r"`(\w+)` (?:in|of) `((?:[a-z_0-9]+/)+[a-z_0-9]+\.py)`", text):
        file = files[path]
        assert file is not None and re.search(rf"\b{name}\b", file.read_text(encoding="utf-8")), f"{name} in {path}"
