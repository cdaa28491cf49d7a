"""The files of the console: their HTTP headers, their checksums, and their functions without a page."""

import hashlib
import re
import shutil
import subprocess
from pathlib import Path

import aiohttp
import pytest
from multidict import CIMultiDictProxy
from support.documents import rows
from support.hub import Hub
from support.node import CONSOLE, SCRIPTS, needs_node
from support.waiting import PATIENCE

VENDOR = CONSOLE / "vendor"


async def get(hub: Hub, path: str, **headers: str) -> tuple[int, str, CIMultiDictProxy[str]]:
    async with aiohttp.ClientSession() as http, http.get(hub.url + path, headers=headers) as answer:
        return answer.status, await answer.text(), answer.headers


async def test_the_policy_allows_only_the_hub_itself(hub: Hub) -> None:
    """It forbids other origins, inline scripts, markup made of text, and frames around the page."""
    await hub.start()
    status, page, headers = await get(hub, "/")
    assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    rules = dict(rule.strip().split(" ", 1) for rule in headers["Content-Security-Policy"].split(";"))
    assert rules == {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "img-src": "'self'",
        "connect-src": f"'self' ws://127.0.0.1:{hub.port}/api/v1/ws",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
        "require-trusted-types-for": "'script'",
        "trusted-types": "'none'",
    }
    assert (
        "<style" not in page and "style=" not in page and page.count("<script") == page.count('src="./console/app.js"')
    )


@pytest.mark.parametrize("host", ["localhost:1; script-src *", "localhost, x", "[::1]:9527"])
async def test_an_unknown_host_adds_nothing_to_the_policy(hub: Hub, host: str) -> None:
    """The policy stays the same, even if the hub accepts that Host."""
    await hub.start()
    status, _, headers = await get(hub, "/", Host=host)
    assert status == 403 or "connect-src 'self'; " in headers["Content-Security-Policy"]


async def test_each_file_is_served_with_its_media_type(hub: Hub) -> None:
    """A browser must not guess the type, and revalidates each file; other files of the folder are not served."""
    await hub.start()
    kinds = {".js": "text/javascript", ".css": "text/css"}
    files = [path for path in CONSOLE.rglob("*") if path.suffix in kinds]
    assert len(files) > 15
    for path in files:
        status, text, headers = await get(hub, f"/console/{path.relative_to(CONSOLE)}")
        assert (status, text) == (200, path.read_text(encoding="utf-8"))
        assert headers["Content-Type"] == f"{kinds[path.suffix]}; charset=utf-8"
        assert headers["X-Content-Type-Options"] == "nosniff" and headers["Cache-Control"] == "no-cache"
        assert headers["Referrer-Policy"] == "no-referrer"
    for missing in (
        "/console/",
        "/console/vendor/README.md",
        "/console/%2e%2e/app.py",
        "/console/client.js",
        "/hello.js",
    ):
        assert (await get(hub, missing))[0] == 404
    status, icon, headers = await get(hub, "/favicon.ico")
    assert (status, headers["Content-Type"]) == (200, "image/svg+xml; charset=utf-8") and icon.startswith("<svg")


def test_vendored_files_are_unchanged() -> None:
    """The table has each file and its checksum; the licence is beside the file."""
    table = {row[0].strip("`"): row for row in rows(VENDOR / "README.md") if row[0].startswith("`")}
    assert table.keys() == {path.name for path in VENDOR.glob("*.js")}
    for name, (_, _, version, _, licence, digest) in table.items():
        assert hashlib.sha256((VENDOR / name).read_bytes()).hexdigest() == digest.strip("`"), name
        text = (VENDOR / name).with_suffix(".LICENSE").read_text()
        assert (
            "Apache License" if licence == "Apache-2.0" else "MIT License"
        ) in text or "Permission is hereby" in text
        assert version[0].isdigit()


def test_the_code_never_makes_markup_from_text() -> None:
    """The policy forbids it at run time; the code does not contain it either."""
    for path in CONSOLE.rglob("*.js"):
        if "vendor" not in path.parts:
            assert not [
                word for word in ("innerHTML", "outerHTML", "insertAdjacent", "eval(") if word in path.read_text()
            ]


TEXTS = {
    "ground": ("text", "soft", "accent", "bad", "ask"),
    "raised": ("text", "soft", "accent", "bad"),
    "sunken": ("text", "soft"),
    "tint": ("tint-text",),
    "accent": ("on-accent",),
    "bad-tint": ("bad",),
    "ask-tint": ("text", "soft", "ask"),
}


def test_text_has_enough_contrast() -> None:
    """In light and dark the contrast is at least 4.5 to 1, as WCAG AA requires."""
    style = (CONSOLE / "style.css").read_text()
    themes = [
        dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", part)) for part in style.split("prefers-color-scheme")[:2]
    ]
    for theme in themes:
        for ground, texts in TEXTS.items():
            for text in texts:
                light, dark = sorted((luminance(theme[ground]), luminance(theme[text])), reverse=True)
                assert (light + 0.05) / (dark + 0.05) >= 4.5, (text, ground, theme)


def luminance(colour: str) -> float:
    """Return the relative luminance of WCAG 2."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@needs_node
@pytest.mark.parametrize(
    "script", ["console_session.mjs", "console_markdown.mjs", "console_cut.mjs", "console_conversation.mjs"]
)
def test_functions_without_a_page(script: str, tmp_path: Path) -> None:
    """Scripts of tests/support/javascript/ test the functions of the console that need no page."""
    shutil.copytree(CONSOLE, tmp_path / "console")
    (tmp_path / "package.json").write_text('{"type": "module"}')
    shutil.copy(SCRIPTS / script, tmp_path)
    done = subprocess.run(["node", script], cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
