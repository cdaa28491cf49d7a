"""The page of docs/copilotkit.md, with CopilotKit's components in two browsers."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import pytest
from playwright.async_api import Browser, Locator, expect
from support.browser import Tab, needs_browser
from support.documents import DOCS, of_kind
from support.foreign_clients import INSTALL_SECONDS, RUN_SECONDS, ForeignClient
from support.foreign_pages import serve_component
from support.hub import Hub

(BLOCK,) = of_kind(DOCS["copilotkit"], "jsx", "component")

pytestmark = pytest.mark.timeout(INSTALL_SECONDS + 2 * RUN_SECONDS)

# Asks, calls the page's tool, or waits for the file that the message names.
MAIN = """
import asyncio, pathlib
from hub import AgentError, Run, ToolCallArgs, ToolCallEnd, ToolCallStart, agent

@agent(tools=True)
async def main(run: Run):
    results = [part["content"] for part in run.parts if part["type"] == "tool_result"]
    if results:
        yield f"It is {results[0]}."
    elif run.message == "ask":
        yield "Well. "
        reply = await run.ask("Shall I?")
        yield f"{reply.status} {reply.payload}"
    elif run.message == "paint":
        raise AgentError("There is no paint.", "no_paint")
    elif run.message == "weather":
        yield "I look. "
        yield ToolCallStart("c1", run.request.tools[0].name)
        yield ToolCallArgs("c1", '{"city": "Rome"}')
        yield ToolCallEnd("c1")
    else:
        yield "one "
        while not pathlib.Path(run.message).exists():
            await asyncio.sleep(0.01)
        yield "two"
"""

PAGE = BLOCK.text
WITH_SUGGESTIONS = PAGE.replace("CopilotChat, ", "CopilotChat, useConfigureSuggestions, ", 1).replace(
    "function Tools() {",
    """function Tools() {
  useConfigureSuggestions({ suggestions: [{ title: "Ask", message: "ask" }], available: "always" });""",
)


class ChatTab(Tab):
    """CopilotKit's page in a browser context of its own."""

    @property
    def assistants(self) -> Locator:
        return self.page.get_by_test_id("copilot-assistant-message")

    @property
    def suggestion(self) -> Locator:
        return self.page.get_by_role("button", name="Ask", exact=True)

    @property
    def button(self) -> Locator:
        """The button to send. While there is an answer, it stops the answer; else it is disabled without a text."""
        return self.page.get_by_test_id("copilot-send-button")

    async def say(self, message: str) -> None:
        await self.page.get_by_role("textbox").fill(message)
        await self.page.get_by_role("textbox").press("Enter")

    async def expect_texts(self, *texts: str) -> None:
        """Wait until the messages of the users and the agent are these, in turn, and no answer is being written."""
        await expect(self.page.get_by_test_id("copilot-user-message")).to_have_text(texts[::2])
        await expect(self.assistants).to_have_text(texts[1::2])
        await expect(self.button).to_be_disabled()

    async def expect_running(self, text: str) -> None:
        """Wait until the answer that is being written has this text."""
        await expect(self.assistants.last).to_have_text(text)
        await expect(self.button).to_be_enabled()


@asynccontextmanager
async def open_pages(hub: Hub, browser: Browser, code: str = PAGE) -> AsyncIterator[list[ChatTab]]:
    """Open the page in two browser contexts. At the end, their consoles must be empty.

    All requests go to this machine.
    """
    hub.agent("main.py", MAIN)
    await hub.start()
    async with serve_component(ForeignClient.find("agui", "copilotkit_react"), hub.url, code) as url:
        tabs = [ChatTab(await (await browser.new_context()).new_page()) for _ in range(2)]
        for tab in tabs:
            await tab.page.goto(url)
            await expect(tab.page.get_by_role("textbox")).to_be_visible()
        yield tabs
        for tab in tabs:
            assert tab.errors == []
            assert {urlsplit(address).hostname for address in tab.urls} == {"127.0.0.1"}


@needs_browser
async def test_an_answer_is_complete_after_a_reload_and_in_a_second_browser(hub: Hub, browser: Browser) -> None:
    """Both pages show it while it is written."""
    async with open_pages(hub, browser) as tabs:
        go = hub.folder / "go"
        await tabs[0].say(str(go))
        for tab in tabs:
            await tab.expect_running("one")
        await tabs[0].page.reload()
        await tabs[0].expect_running("one")
        go.touch()
        for tab in tabs:
            await tab.expect_texts(str(go), "one two")
        await tabs[1].say(str(go))
        for tab in tabs:
            await tab.expect_texts(*2 * (str(go), "one two"))


@needs_browser
async def test_pages_show_suggestions_while_no_answer_is_written(hub: Hub, browser: Browser) -> None:
    """In an empty session, after an answer to another page, and after a reload. The page is live all the same."""
    async with open_pages(hub, browser, WITH_SUGGESTIONS) as tabs:
        go = hub.folder / "go"
        for tab in tabs:
            await expect(tab.suggestion).to_be_visible()
        await tabs[0].say(str(go))
        for tab in tabs:
            await tab.expect_running("one")
            await expect(tab.suggestion).to_have_count(0)
        await tabs[1].page.reload()
        await tabs[1].expect_running("one")
        await expect(tabs[1].suggestion).to_have_count(0)
        go.touch()
        for tab in tabs:
            await tab.expect_texts(str(go), "one two")
            await expect(tab.suggestion).to_be_visible()
        await tabs[1].page.reload()
        await tabs[1].suggestion.click()
        for tab in tabs:
            await tab.page.get_by_role("button", name="Yes").click(trial=True)


@needs_browser
async def test_a_message_waits_for_the_end_of_an_answer_to_another_page(hub: Hub, browser: Browser) -> None:
    """CopilotKit sends it then."""
    async with open_pages(hub, browser) as tabs:
        go = hub.folder / "go"
        await tabs[0].say(str(go))
        await tabs[1].expect_running("one")
        await tabs[1].say(str(go))
        await expect(tabs[1].page.get_by_role("textbox")).to_have_value("")
        go.touch()
        for tab in tabs:
            await tab.expect_texts(*2 * (str(go), "one two"))


@needs_browser
@pytest.mark.parametrize("number", [0, 1], ids=["its_page", "another_page"])
async def test_the_button_stops_an_answer(hub: Hub, browser: Browser, number: int) -> None:
    """The run of the hub is cancelled, and the next message is answered at once."""
    async with open_pages(hub, browser) as tabs:
        go, never = hub.folder / "go", hub.folder / "never"
        go.touch()
        socket = await hub.connect("?sessionId=s1", extended=True)
        await tabs[0].say(str(never))
        for tab in tabs:
            await tab.expect_running("one")
        await tabs[number].button.click()
        assert (await socket.until_type("run_finished"))["stopReason"] == "cancelled"
        for tab in tabs:
            await tab.expect_texts(str(never), "one")
        await tabs[0].say(str(go))
        for tab in tabs:
            await tab.expect_texts(str(never), "one", str(go), "one two")


@needs_browser
@pytest.mark.parametrize("button, reply", [("Yes", "resolved True"), ("Decline", "cancelled None")])
async def test_a_question_is_answered_in_another_browser(hub: Hub, browser: Browser, button: str, reply: str) -> None:
    """Also after a reload."""
    async with open_pages(hub, browser) as tabs:
        await tabs[0].say("ask")
        for tab in tabs:
            await expect(tab.page.get_by_role("group", name="Shall I?")).to_be_visible()
        await tabs[1].page.reload()
        await tabs[1].page.get_by_role("button", name=button).click()
        for tab in tabs:
            await expect(tab.page.get_by_role("group")).to_have_count(0)
            await expect(tab.assistants.last).to_have_text(reply)
            await expect(tab.page.get_by_text("Well.")).to_have_count(1)


@needs_browser
async def test_both_pages_show_the_error_of_a_failed_answer(hub: Hub, browser: Browser) -> None:
    """CopilotKit also logs it."""
    async with open_pages(hub, browser) as tabs:
        await tabs[0].say("paint")
        for tab in tabs:
            await expect(tab.page.get_by_role("alert")).to_contain_text("There is no paint.")
            await tab.page.get_by_role("button", name="Close").click()
            await expect(tab.page.get_by_role("alert")).to_have_count(0)
            assert all("There is no paint." in error for error in tab.errors)
            tab.errors.clear()


@needs_browser
async def test_the_page_runs_its_tool_for_the_agent(hub: Hub, browser: Browser) -> None:
    """The agent goes on with the result. The other page shows the call, and does not run the tool again."""
    async with open_pages(hub, browser) as tabs:
        socket = await hub.connect("?sessionId=s1", extended=True)
        await tabs[0].say("weather")
        for tab in tabs:
            await expect(tab.assistants.last).to_have_text("It is sunny in Rome.")
            await expect(tab.page.get_by_text("The weather of Rome: sunny in Rome")).to_have_count(1)
        for reason in ("tool_calls", "end_turn"):
            assert (await socket.until_type("run_finished"))["stopReason"] == reason
        await tabs[1].page.reload()
        await expect(tabs[1].page.get_by_text("The weather of Rome: sunny in Rome")).to_have_count(1)
