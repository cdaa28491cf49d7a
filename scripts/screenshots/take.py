"""Take the screenshots of the console for the docs: `make screenshots`. Needs Chromium."""

import asyncio
import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
from playwright.async_api import Browser, Page, ViewportSize, async_playwright

from hub.messages import COMMANDS

HERE = Path(__file__).parent
IMAGES = HERE.parent.parent / "docs" / "images"
DESK: ViewportSize = {"width": 1200, "height": 760}
PHONE: ViewportSize = {"width": 390, "height": 760}
QUESTION = "How do I read a stream line by line?"
EARLIER_MESSAGES = (
    "Plan a week of meals for two",
    "Why does my test hang?",
    "Translate the release notes",
    "Name three rivers",
)

Scene = Callable[[Page, str], Awaitable[None]]


@attrs.frozen
class RunningHub:
    """A hub in a process of its own: its address, and the folder with its data."""

    url: str
    folder: str

    def make_link(self, name: str) -> str:
        """Return a link that signs an admin with this name in."""
        command = [sys.executable, "-m", "hub", "invite", name, "--role", "admin", "--data", "data"]
        output = subprocess.run(command, cwd=self.folder, stdout=subprocess.PIPE, text=True, check=True).stdout
        match = re.search(r"#hi_\w+", output)
        assert match, output
        return f"{self.url}/sign-in{match[0]}"


@contextlib.contextmanager
def hub(is_sign_in_on: bool = False) -> Iterator[RunningHub]:
    """Run a hub with the agents beside this file."""
    environment = {**os.environ, "HUBBUB_SIGN_IN": str(is_sign_in_on).lower()}
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(HERE / "agents", Path(folder) / "agents", ignore=shutil.ignore_patterns("__pycache__"))
        command = [sys.executable, "-m", "hub", "serve", "--host", "127.0.0.1", "--port", "0"]
        with subprocess.Popen(
            [*command, "--agents", "agents", "--data", "data"],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout
            match = re.search(r"http://[0-9.:]+", process.stdout.readline())
            assert match
            yield RunningHub(match[0], folder)
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
    await say(page, "怎样逐行读取一个流？")
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


# --- the scenes with sign-in ------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class Talk:
    """A conversation of a host and a guest with the agent `main`. *suffix* ends the names of its pictures."""

    suffix: str
    locale: str
    host: str
    guest: str
    first: str
    second: str


TALKS = (
    Talk(
        suffix="",
        locale="en-GB",
        host="Ann",
        guest="Bob",
        first="Which night train gets us to Venice before nine?",
        second="I sleep badly on trains. Are there quiet beds left?",
    ),
    Talk(
        suffix="-chinese",
        locale="zh-CN",
        host="安妮",
        guest="小波",
        first="坐哪一班夜车能在九点之前到威尼斯？",
        second="我在火车上睡不好。还有安静的床位吗？",
    ),
)


async def take_sign_in_screenshots(browser: Browser, names: list[str]) -> None:
    """Take the pictures of the page to sign in, of the members of a session, and of a conversation with names."""
    with hub(is_sign_in_on=True) as running:
        for talk in TALKS:
            async with open_page(browser, locale=talk.locale, viewport=DESK) as host:
                link = await start_talk(host, running, talk)
                async with open_page(browser, locale=talk.locale, viewport=DESK) as guest:
                    await join_talk(guest, link, talk, names)
                    await show_talk(host, talk, names)


async def start_talk(page: Page, running: RunningHub, talk: Talk) -> str:
    """Sign the host in, write the first message, and return an invite link."""
    await page.goto(running.make_link(talk.host))
    await page.locator("button.main").click()
    await page.locator(".account b").wait_for()
    await page.goto(f"{running.url}/?session=trip{talk.suffix}")
    await say(page, talk.first)
    await wait_until_answered(page)
    await page.locator("header .quiet").click()
    await page.locator(".sheet form .main").click()
    link = await page.locator(".made input").input_value()
    await page.keyboard.press("Escape")
    return link


async def join_talk(page: Page, link: str, talk: Talk, names: list[str]) -> None:
    """Take the picture of the page to sign in, then join and write a message as the guest."""
    await page.goto(link)
    await page.locator("input[name=name]").fill(talk.guest)
    await save(page, "sign-in", talk, names)
    await page.locator("button.main").click()
    await page.locator("article").first.wait_for()
    await say(page, talk.second)
    await wait_until_answered(page)


async def show_talk(page: Page, talk: Talk, names: list[str]) -> None:
    await page.locator(".asked.other").wait_for()
    await page.locator("article.done").nth(1).wait_for()
    await page.locator("#message").focus()
    await page.wait_for_timeout(700)
    await save(page, "names", talk, names)
    await page.locator("header .quiet").click()
    await page.locator(".sheet form .main").click()
    await page.locator(".made input").wait_for()
    await page.wait_for_timeout(400)
    await save(page, "members", talk, names)


async def save(page: Page, name: str, talk: Talk, names: list[str]) -> None:
    """Take a picture at the width of a desk; for the English one, also at the width of a phone."""
    if names and name not in names:
        return
    for size, suffix in ((DESK, talk.suffix), (PHONE, f"{talk.suffix}-phone")):
        await page.set_viewport_size(size)
        await page.wait_for_timeout(300)
        await page.screenshot(path=IMAGES / f"console-{name}{suffix}.png", animations="disabled")
        print(f"docs/images/console-{name}{suffix}.png")
    await page.set_viewport_size(DESK)


# --- all scenes -------------------------------------------------------------------------------------------------------


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
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        with hub() as running:
            await take_screenshots(browser, running.url, names)
        await take_sign_in_screenshots(browser, names)
        await browser.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
