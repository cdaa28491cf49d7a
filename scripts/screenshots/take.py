"""Take the screenshots of the console for the docs: `make screenshots`. Needs Chromium."""

import asyncio
import contextlib
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

from playwright.async_api import Browser, Page, async_playwright

from hub.messages import COMMANDS

HERE = Path(__file__).parent
IMAGES = HERE.parent.parent / "docs" / "images"
DESK = {"width": 1200, "height": 760}
PHONE = {"width": 390, "height": 760}
QUESTION = "How do I read a stream line by line?"
EARLIER_MESSAGES = (
    "Plan a week of meals for two",
    "Why does my test hang?",
    "Translate the release notes",
    "Name three rivers",
)

Scene = Callable[[Page, str], Awaitable[None]]


@contextlib.contextmanager
def hub() -> Iterator[str]:
    """Run a hub with the agents beside this file; yield its address."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(HERE / "agents", Path(folder) / "agents", ignore=shutil.ignore_patterns("__pycache__"))
        command = [sys.executable, "-m", "hub", "serve", "--host", "127.0.0.1", "--port", "0"]
        with subprocess.Popen(
            [*command, "--agents", "agents", "--data", "data"], cwd=folder, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout
            match = re.search(r"http://[0-9.:]+", process.stdout.readline())
            assert match
            yield match[0]
            process.kill()


async def say(page: Page, message: str) -> None:
    await page.locator("#message").fill(message)
    await page.locator("#message").press("Enter")


async def wait_until_answered(page: Page) -> None:
    await page.locator("article.done .figures").last.wait_for()
    await page.wait_for_timeout(700)  # until the list of sessions is updated


# --- the scenes -------------------------------------------------------------------------------------------------------


async def first(page: Page, url: str) -> None:
    await page.goto(url)
    await page.locator(".empty h2").wait_for()
    await page.wait_for_timeout(700)


async def streaming(page: Page, url: str) -> None:
    await page.goto(f"{url}/?session=streaming")
    await say(page, QUESTION + " Explain it slowly.")
    await page.locator("article.running li").first.wait_for()
    await say(page, "And how do I test it?")
    await page.locator(".queue li").wait_for()
    await page.wait_for_timeout(700)


async def tools(page: Page, url: str) -> None:
    await page.goto(f"{url}/?agent=researcher&session=tools")
    await say(page, "Which are the tallest peaks of each continent? Please wait for all.")
    await page.locator("progress").wait_for()
    await page.locator("details.reasoning summary").click()
    await page.locator("details.tool summary").first.click()
    await page.wait_for_timeout(700)


async def question(page: Page, url: str) -> None:
    await page.goto(f"{url}/?agent=careful&session=question")
    await say(page, "Tidy up my pictures")
    await page.locator(".ask.open").wait_for()
    await page.wait_for_timeout(700)


async def answer(page: Page, url: str) -> None:
    await page.goto(f"{url}/?session=answered")
    await say(page, QUESTION)
    await wait_until_answered(page)


async def chinese(page: Page, url: str) -> None:
    await page.goto(f"{url}/?session=chinese")
    await say(page, "怎样逐行读取一个流?")
    await wait_until_answered(page)


async def sessions(page: Page, url: str) -> None:
    await page.goto(f"{url}/?session=answered")
    await page.locator("article").first.wait_for()
    await page.locator("#menu").click()
    await page.wait_for_timeout(700)


async def failure(page: Page, url: str) -> None:
    await page.goto(f"{url}/?agent=translator&session=failed")
    await say(page, "Translate: good morning")
    await page.locator(".ending.failed").wait_for()
    await page.goto(f"{url}/?agent=nobody&session=failed")
    await page.locator(".ending.failed").wait_for()
    await say(page, "Anybody there?")
    await page.locator(".asked.refused").wait_for()
    await page.wait_for_timeout(700)


async def share(page: Page, url: str) -> None:
    await page.goto(f"{url}/?session=answered")
    await page.locator("article").first.wait_for()
    await page.locator("header .quiet").click()
    await page.wait_for_timeout(400)


SCENES: tuple[tuple[str, Scene, dict[str, Any]], ...] = (
    ("streaming", streaming, {"viewport": DESK}),
    ("tools", tools, {"viewport": DESK}),
    ("question", question, {"viewport": DESK}),
    ("dark", answer, {"viewport": DESK, "color_scheme": "dark"}),
    ("chinese", chinese, {"viewport": DESK, "locale": "zh-CN"}),
    ("phone", answer, {"viewport": PHONE}),
    ("sessions", sessions, {"viewport": PHONE, "color_scheme": "dark"}),
    ("share", share, {"viewport": DESK}),
    ("failed", failure, {"viewport": DESK}),
    ("first", first, {"viewport": DESK}),
    ("first-phone", first, {"viewport": PHONE}),
)


async def take_screenshots(browser: Browser, url: str, names: list[str]) -> None:
    await write_earlier_sessions(browser, url)
    for name, scene, options in SCENES:
        if names and name not in names:
            continue
        if name == "question" and "resume" not in COMMANDS:
            continue  # this version of the hub has no questions
        async with open_page(browser, **options) as page:
            await scene(page, url)
            await page.screenshot(path=IMAGES / f"console-{name}.png", animations="disabled")
        print(f"docs/images/console-{name}.png")


async def write_earlier_sessions(browser: Browser, url: str) -> None:
    """Create sessions for the list of sessions."""
    async with open_page(browser) as page:
        for number, message in enumerate(EARLIER_MESSAGES):
            await page.goto(f"{url}/?session=earlier-{number}")
            await say(page, message)
            await wait_until_answered(page)


@contextlib.asynccontextmanager
async def open_page(browser: Browser, **options: Any) -> AsyncIterator[Page]:
    context = await browser.new_context(**options)
    yield await context.new_page()
    await context.close()


async def main(names: list[str]) -> None:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    with hub() as url:
        async with async_playwright() as playwright:
            browser = await playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
            await take_screenshots(browser, url, names)
            await browser.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
