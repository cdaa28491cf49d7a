"""People who use the console of a site, each in a browser context of its own."""

import asyncio
import json
import re
from contextlib import AsyncExitStack

from playwright.async_api import async_playwright, expect
from support.browser import ARGUMENTS, CHROMIUM, Tab
from support.proxy_servers import HOST
from support.sites import Site


async def use_console(site: Site, visitors: int = 1) -> None:
    """Let visitors sign in with links, open the console and chat, all at the same time. No page may have an error."""
    arguments = [*ARGUMENTS, f"--host-resolver-rules=MAP {HOST} 127.0.0.1"]
    async with async_playwright() as playwright, AsyncExitStack() as stack:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        stack.push_async_callback(browser.close)
        tabs = [Tab(await (await browser.new_context(ignore_https_errors=True)).new_page()) for _ in range(visitors)]
        await asyncio.gather(*(_visit(site, tab, number) for number, tab in enumerate(tabs)))


async def _visit(site: Site, tab: Tab, number: int) -> None:
    status = tab.page.get_by_role("status")
    await tab.page.goto(await site.invite(f"Visitor {number}"))
    await tab.page.get_by_role("button", name="Sign in").click()
    await expect(status).to_have_text(re.compile("Connected"))
    await tab.page.goto(f"{site.url}/?agent=echo&session=console-{number}")
    await expect(status).to_have_text(re.compile("Connected"))
    await tab.say("one two")
    await expect(tab.answers).to_have_text(["one two"])
    errors = [line for line in tab.errors if "status of 401" not in line]  # the page learns that nobody is signed in
    assert not errors, json.dumps(errors)
    assert all(url.split("/")[2] == f"{HOST}:{site.place.port}" for url in tab.urls), tab.urls
