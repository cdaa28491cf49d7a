"""The page of docs/assistant-ui.md, with assistant-ui in Chromium."""

import contextlib
from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Browser, expect
from support.browser import Tab, needs_browser
from support.documents import DOCS, of_kind
from support.foreign_clients import INSTALL_SECONDS, RUN_SECONDS, ForeignClient
from support.foreign_pages import serve_component
from support.hub import Hub

pytestmark = [needs_browser, pytest.mark.timeout(INSTALL_SECONDS + RUN_SECONDS)]

MAIN = """
import asyncio, pathlib
from hub import Run, ToolCallArgs, ToolCallEnd, ToolCallStart, agent

@agent(tools=True)
async def main(run: Run):
    results = [part["content"] for part in run.parts if part["type"] == "tool_result"]
    if results:
        yield f"I read {' and '.join(results)}."
    elif run.message == "ask":
        yield "I ask. "
        yield f"{(await run.ask('Shall I?')).payload}"
    elif run.message == "fail":
        yield "I try. "
        raise ValueError(run.message)
    elif run.message == "look":
        names = [tool.name for tool in run.request.tools]
        for number, (name, selector) in enumerate([(names[0], "title"), *((name, "nav") for name in names)]):
            yield ToolCallStart(f"c{number}", name)
            yield ToolCallArgs(f"c{number}", f'{{"selector": "{selector}"}}')
            yield ToolCallEnd(f"c{number}")
    else:
        yield "one "
        while not pathlib.Path(run.message).exists():
            await asyncio.sleep(0.01)
        yield "two"
"""


# A tool that waits for a person.
HUMAN_TOOL = """
  confirm: {
    type: "human",
    description: "Asks.",
    parameters: { type: "object" },
    render: ({ result, addResult }) => (result ? null : <button onClick={() => addResult("yes")}>Confirm</button>),
  },
"""


(BLOCK,) = of_kind(DOCS["assistant-ui"], "jsx", "assistant-ui")
PAGE = BLOCK.text
WITH_HUMAN_TOOL = PAGE.replace("const toolkit = {", "const toolkit = {" + HUMAN_TOOL)

# Lines of the page, and those of a page with assistant-ui's own runtime for AG-UI.
OWN_RUNTIME = {
    'import { HubbubAgent } from "hubbub-client/agui";': 'import { HttpAgent } from "@ag-ui/client";',
    'import { useHubbubRuntime } from "hubbub-client/assistant-ui";': """
        import { useAgUiRuntime } from "@assistant-ui/react-ag-ui";
    """,
    "new HubbubAgent(": "new HttpAgent(",
    "const { runtime, questions, answer } = useHubbubRuntime(agent);": """
        const runtime = useAgUiRuntime({ agent });
        const questions = runtime.unstable_getPendingInterrupts();
        const answer = (interruptId, payload) =>
          runtime.unstable_submitInterruptResponses([{ interruptId, status: "resolved", payload }]);
    """,
}


@contextlib.asynccontextmanager
async def open_pages(
    hub: Hub, browser: Browser, code: str = PAGE, program: str = "assistant_ui"
) -> AsyncIterator[list[Tab]]:
    """Open the page in two browser contexts. At the end, their consoles must be empty."""
    hub.agent("main.py", MAIN)
    await hub.start()
    async with serve_component(ForeignClient.find("agui", program), hub.url, code) as url:
        tabs = [Tab(await (await browser.new_context()).new_page()) for _ in range(2)]
        for tab in tabs:
            await tab.page.goto(url)
            await expect(tab.field).to_be_visible()
        yield tabs
        assert [tab.errors for tab in tabs] == [[], []]


async def expect_texts(tabs: list[Tab], *texts: str, button: str = "Send") -> None:
    """Wait until all pages show these messages and this button."""
    for tab in tabs:
        await expect(tab.page.get_by_role("article")).to_have_text(list(texts))
        await expect(tab.page.get_by_role("button", name=button)).to_be_visible()


async def test_a_reloaded_page_and_a_second_browser_show_the_answer(hub: Hub, browser: Browser) -> None:
    """From its start, and then as it comes; also the next messages of each other."""
    gate = hub.folder / "gate"
    async with open_pages(hub, browser) as tabs:
        first, second = tabs
        await first.say(str(gate))
        await expect_texts(tabs, str(gate), "one  ●", button="Stop")
        await first.page.reload()
        await expect_texts(tabs, str(gate), "one  ●", button="Stop")
        gate.touch()
        await expect_texts(tabs, str(gate), "one two")
        await second.say(str(gate))
        await expect_texts(tabs, str(gate), "one two", str(gate), "one two")


@pytest.mark.parametrize("number", [0, 1], ids=["the_page_that_asked", "another_page"])
async def test_the_button_stops_the_answer(hub: Hub, browser: Browser, number: int) -> None:
    """The run ends, and the next message is answered while nobody opens the first gate."""
    gate = hub.folder / "gate"
    gate.touch()
    async with open_pages(hub, browser) as tabs:
        await tabs[0].say("closed")
        await expect_texts(tabs, "closed", "one  ●", button="Stop")
        await tabs[number].page.get_by_role("button", name="Stop").click()
        await expect_texts(tabs, "closed", "one ")
        await tabs[0].say(str(gate))
        await expect_texts(tabs, "closed", "one ", str(gate), "one two")


async def test_any_page_answers_a_question(hub: Hub, browser: Browser) -> None:
    """Also after a reload. Meanwhile the composer does not send."""
    async with open_pages(hub, browser) as tabs:
        first, second = tabs
        await first.say("ask")
        await expect_texts(tabs, "ask", "I ask. ", button="Yes")
        await first.page.reload()
        await expect_texts(tabs, "ask", "I ask. ", button="Yes")
        for tab in tabs:
            await tab.field.fill("too early")
            await expect(tab.page.get_by_role("button", name="Send")).to_be_disabled()
        await second.page.get_by_role("button", name="Yes").click()
        await expect_texts(tabs, "ask", "I ask. True")


async def test_the_page_runs_its_tools_for_the_agent(hub: Hub, browser: Browser) -> None:
    """Only the page that has sent the message runs them, once. The agent gets the results of all calls together."""
    async with open_pages(hub, browser) as tabs:
        await tabs[0].say("look")
        await expect_texts(tabs, "look", "I read Chat and no such element.")
        await tabs[0].page.reload()
        await expect_texts(tabs, "look", "I read Chat and no such element.")
        runs = [[url for url in tab.urls if url.endswith("/agui")] for tab in tabs]
        assert [len(urls) for urls in runs] == [2, 0]  # the message, and the results


@pytest.mark.parametrize("number", [0, 1], ids=["the_page_that_asked", "another_page"])
async def test_a_person_gives_the_result_of_a_tool(hub: Hub, browser: Browser, number: int) -> None:
    """On any page, also after a reload. This page then runs the other tools of the answer, too."""
    async with open_pages(hub, browser, WITH_HUMAN_TOOL) as tabs:
        await tabs[0].say("look")
        await expect_texts(tabs, "look", "Confirm", button="Confirm")
        await tabs[1].page.reload()
        await expect_texts(tabs, "look", "Confirm", button="Confirm")
        await tabs[number].page.get_by_role("button", name="Confirm").click()
        await expect_texts(tabs, "look", "I read Chat and no such element and yes.")


async def test_a_message_instead_of_a_result_has_the_results_so_far(hub: Hub, browser: Browser) -> None:
    """The agent gets those of the tools that the page has run."""
    async with open_pages(hub, browser, WITH_HUMAN_TOOL) as tabs:
        await tabs[0].say("look")
        await expect_texts(tabs, "look", "Confirm", button="Confirm")
        await tabs[0].say("never mind")
        await expect_texts(tabs, "look", "Confirm", "never mind", "I read Chat and no such element.")


async def test_the_page_shows_why_an_answer_failed(hub: Hub, browser: Browser) -> None:
    """With the text so far; the next message is answered."""
    async with open_pages(hub, browser) as tabs:
        await tabs[0].say("fail")
        await expect_texts(tabs, "fail", "I try. agent main failed; the hub's output says why")
        await tabs[1].say("ask")
        await expect_texts(tabs, "fail", "I try. ", "ask", "I ask. ", button="Yes")


async def test_the_page_shows_why_the_hub_refuses_a_message(hub: Hub, browser: Browser) -> None:
    """In the words of the hub."""
    async with open_pages(hub, browser, PAGE.replace("/agents/main/", "/agents/nobody/")) as tabs:
        await tabs[0].say("hello")
        await expect_texts(tabs[:1], "hello", "there is no agent nobody; there are: echo, gated, main")
        for tab in tabs:
            tab.errors.clear()


async def test_assistant_uis_own_runtime_works_with_the_hub(hub: Hub, browser: Browser) -> None:
    """Tools, a question, and stop. The other page shows nothing."""
    gate = hub.folder / "gate"
    gate.touch()
    code = PAGE
    for old, new in OWN_RUNTIME.items():
        assert old in code
        code = code.replace(old, new)
    async with open_pages(hub, browser, code, "react_ag_ui") as (tab, other):
        last = tab.page.get_by_role("article").last
        await tab.say("look")
        await expect(last).to_have_text("I read Chat and no such element.")
        await tab.say("ask")
        await tab.page.get_by_role("button", name="Yes").click()
        await expect(last).to_have_text("True")
        await tab.say("closed")
        await expect(last).to_contain_text("one")
        await tab.page.get_by_role("button", name="Stop").click()
        await tab.say(str(gate))
        await expect(last).to_have_text("one two")
        await expect(other.page.get_by_role("article")).to_have_count(0)
