"""The page of docs/assistant-ui.md, with assistant-ui in Chromium."""

import base64
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
    elif run.message == "read":
        (part,) = [part for part in run.parts if part["type"] != "text"]
        yield f"{part['metadata']['name']} has {(await run.file(part)).decode()}."
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

PNG = base64.b64decode(  # one pixel
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="
)

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


async def test_an_edit_and_a_new_answer_replace_what_follows(hub: Hub, browser: Browser) -> None:
    """On both pages, also for messages of the other page, and after a reload. The page runs its tools for the agent."""
    gate = hub.folder / "gate"
    gate.touch()
    async with open_pages(hub, browser) as tabs:
        first, second = tabs
        await first.say(str(gate))
        await expect_texts(tabs, str(gate), "one two")
        await first.say("fail")
        await expect_texts(tabs, str(gate), "one two", "fail", "I try. agent main failed; the hub's output says why")
        await first.page.get_by_role("button", name="Edit").last.click()
        await first.page.get_by_role("textbox", name="New text").fill("look")
        await first.page.get_by_role("button", name="Save").click()
        await expect_texts(tabs, str(gate), "one two", "look", "I read Chat and no such element.")
        gate.unlink()
        await second.page.get_by_role("button", name="Answer again").first.click()
        await expect_texts(tabs, str(gate), "one  ●", button="Stop")
        gate.touch()
        await expect_texts(tabs, str(gate), "one two")
        await second.page.reload()
        await second.page.get_by_role("button", name="Edit").click()
        await second.page.get_by_role("textbox", name="New text").fill("look")
        await second.page.get_by_role("button", name="Save").click()
        await expect_texts(tabs, "look", "I read Chat and no such element.")


async def test_the_agent_gets_the_attachments(hub: Hub, browser: Browser) -> None:
    """They are files of the hub. Both pages show them, and an edit keeps them."""
    async with open_pages(hub, browser) as tabs:
        first, second = tabs
        async with first.page.expect_file_chooser() as chooser:
            await first.page.get_by_role("button", name="Attach").click()
        await (await chooser.value).set_files({"name": "a.txt", "mimeType": "text/plain", "buffer": b"hello"})
        await first.say("read")
        await expect_texts(tabs, "reada.txt", "a.txt has hello.")
        await second.page.get_by_role("button", name="Edit").click()
        await second.page.get_by_role("button", name="Save").click()
        await expect_texts(tabs, "reada.txt", "a.txt has hello.")


async def test_the_page_shows_why_the_hub_refuses_an_attachment(hub: Hub, browser: Browser) -> None:
    """The message stays in the composer."""
    async with open_pages(hub, browser) as tabs:
        async with tabs[0].page.expect_file_chooser() as chooser:
            await tabs[0].page.get_by_role("button", name="Attach").click()
        await (await chooser.value).set_files({"name": "a.txt", "mimeType": "text/plain", "buffer": b""})
        await tabs[0].say("read")
        await expect(tabs[0].page.get_by_text("a.txt the file is empty")).to_be_visible()
        await expect(tabs[0].field).to_have_value("read")
        assert all("Failed to send attachments" in error or "400" in error for error in tabs[0].errors)
        tabs[0].errors.clear()


async def test_both_pages_show_an_image(hub: Hub, browser: Browser) -> None:
    """Before the message is sent, it can be removed."""
    async with open_pages(hub, browser) as tabs:
        page = tabs[0].page
        for name in ("b.png", "c.png"):
            async with page.expect_file_chooser() as chooser:
                await page.get_by_role("button", name="Attach").click()
            await (await chooser.value).set_files({"name": name, "mimeType": "image/png", "buffer": PNG})
        await page.get_by_role("button", name="Remove").first.click()
        await tabs[0].say("ask")
        for tab in tabs:
            image = tab.page.locator("article img")
            await expect(image).to_have_count(1)
            await expect(image).to_have_js_property("naturalWidth", 1)


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
