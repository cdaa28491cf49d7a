"""People change sessions in the console: they answer questions, edit, regenerate, fork, rename and delete."""

import re

from playwright.async_api import Browser, expect
from support.browser import needs_browser, start_hub, visit
from support.hub import Hub

pytestmark = needs_browser

ASKS = """
import asyncio
from hub import Run

async def asks(run: Run):
    sure = await run.ask("Delete all?", schema={"type": "boolean"})
    yield f"sure: {sure.payload}. "
    colour = await run.ask("Which colour?", schema={"enum": ["red", "blue"]})
    yield f"colour: {colour.payload}. "
    name = await run.ask("Whose?")
    yield f"name: {name.payload}. "
    fields = {"name": {"type": "string"}, "size": {"type": "integer"}, "soon": {"type": "boolean"}}
    form = await run.ask("The rest?", schema={"type": "object", "properties": fields, "required": ["name"]})
    yield f"form: {form.payload}. "
    last = await run.ask("More?")
    yield f"last: {last.status}."
"""


async def test_the_composer_answers_a_question_for_text(hub: Hub, browser: Browser) -> None:
    """A draft from before the question stays a message; the placeholder shows if a message is queued."""
    hub.agent("poses.py", POSES)
    await start_hub(hub)
    async with visit(browser, hub.url, "?agent=poses&session=s35") as tab:
        await tab.say("go")
        ask = tab.page.get_by_role("group", name="A question for you").last
        await expect(ask.get_by_label("Your answer")).to_be_focused()
        await expect(tab.field).to_have_attribute("placeholder", "Write your answer…")
        await tab.say("composed")
        await expect(tab.page.get_by_text("Answered: composed")).to_be_visible()
        await expect(tab.field).to_have_attribute("placeholder", re.compile("Answer above"))
        await tab.field.fill("begun before")
        await expect(ask.locator("pre")).to_contain_text('"items"')
        await expect(ask.get_by_label("Your answer, as JSON")).to_have_value('["a"]')
        await ask.get_by_role("button", name="Answer", exact=True).click()
        await expect(ask.get_by_label("size")).to_have_value("3")
        await expect(ask.get_by_label("soon")).to_be_checked()
        await ask.get_by_role("button", name="Answer", exact=True).click()
        await expect(ask.get_by_label("Your answer")).to_have_value("")
        await tab.field.press("End")
        await tab.field.press_sequentially(", and after")
        await tab.field.press("Enter")
        await expect(tab.page.locator(".queue").get_by_role("listitem")).to_contain_text("begun before, and after")
        await ask.get_by_role("button", name="Do not answer").click()
        text = "composed ['a'] {'size': 3, 'soon': True} cancelled"
        await expect(tab.page.get_by_role("article", name="poses").first.locator("> .md")).to_have_text(text)


POSES = """
from hub import Run

async def poses(run: Run):
    text = await run.ask("Which?")
    many = await run.ask("Which all?", schema={"type": "array", "items": {"type": "string"}, "default": ["a"]})
    fields = {"size": {"type": "integer", "default": 3}, "soon": {"type": "boolean", "default": True}}
    form = await run.ask("The rest?", schema={"type": "object", "properties": fields})
    last = await run.ask("More?")
    yield f"{text.payload} {many.payload} {form.payload} {last.status}"
"""

FILLS = """
from hub import Run

async def fills(run: Run):
    fields = {
        "colour": {"enum": ["red", "blue"], "title": "Colour of it"},
        "shape": {"enum": ["round", "flat"]},
        "size": {"type": "integer", "minimum": 1, "exclusiveMaximum": 10},
        "share": {"type": "number", "maximum": 0.5},
        "rate": {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 10},
        "tags": {"type": "array", "items": {"type": "string"}},
        "code": {"type": "string", "maxLength": 3, "pattern": "[0-9]"},
    }
    schema = {"type": "object", "properties": fields, "required": ["size", "shape"]}
    form = await run.ask("See **below**:\\n\\n- a\\n- b", schema=schema)
    yield repr(form.payload)
"""


async def test_a_form_accepts_only_answers_of_its_schema(hub: Hub, browser: Browser) -> None:
    """A value out of bounds, or a missing choice, is not sent. Question and answer are visible."""
    hub.agent("fills.py", FILLS)
    await start_hub(hub)
    async with visit(browser, hub.url, "?agent=fills&session=s39") as tab:
        await tab.say("go")
        ask = tab.page.get_by_role("group", name="A question for you")
        await expect(ask.locator("strong")).to_have_text("below")
        await expect(ask.locator("li")).to_have_text(["a", "b"])
        message = "it => it.validationMessage"
        for name, wrong, right, why in (
            ("size", "10", "9", "The value must be less than 10."),
            ("share", "0.6", "0.5", "0.5"),
            ("rate", "10", "9.5", "The value must be less than 10."),
            ("rate", "0", "0.5", "The value must be greater than 0."),
            ("code", "abc", "a1", ""),
        ):
            field = ask.get_by_label(name)
            await field.fill(wrong)
            assert not await field.evaluate("it => it.checkValidity()")
            await ask.get_by_role("button", name="Answer", exact=True).click()
            assert why in await field.evaluate(message)
            await field.fill(right)
            assert await field.evaluate("it => it.checkValidity()")
        await ask.get_by_role("button", name="Answer", exact=True).click()
        assert not await ask.get_by_label("shape").evaluate("it => it.checkValidity()")
        await ask.get_by_label("shape").select_option("flat")
        labels = [" ".join(text.split()) for text in await ask.locator(".field > span").all_text_contents()]
        optional = [f"{name} (optional)" for name in ("share", "rate", "tags", "code")]
        assert labels == ["Colour of it (optional)", "shape", "size", *optional]
        tags = ask.get_by_label("tags")
        await expect(ask.locator("label", has_text="tags")).to_contain_text(
            'JSON that matches the schema {"type":"array"'
        )
        await tags.fill('["a"')
        await ask.get_by_role("button", name="Answer", exact=True).click()
        await expect(ask).to_contain_text("This is not valid JSON.")
        await tags.fill('["a", "b"]')
        await ask.get_by_role("button", name="Answer", exact=True).click()
        values = {"shape": "flat", "size": 9, "share": 0.5, "rate": 0.5, "tags": ["a", "b"], "code": "a1"}
        await expect(tab.answers).to_have_text([repr(values)])
        await expect(ask.locator("dt")).to_have_text([*values])
        await expect(ask.locator("dd")).to_have_text(["flat", "9", "0.5", "0.5", "ab", "a1"])


COUNTS = """
from itertools import count

numbers = count(1)

async def counts(message: str):
    yield f"{message} {next(numbers)}"
"""


async def test_a_question_has_buttons_or_fields(hub: Hub, browser: Browser) -> None:
    """It has buttons for known answers, else fields; everyone in the session sees the answer."""
    hub.agent("asks.py", ASKS)
    await start_hub(hub)
    query = "?agent=asks&session=s21"
    async with visit(browser, hub.url, query) as tab, visit(browser, hub.url, query) as other:
        await tab.say("go")
        await expect(tab.page.get_by_role("status")).to_have_text("asks is waiting for your answer")
        ask = tab.page.get_by_role("group", name="A question for you").last
        await ask.get_by_role("button", name="Yes").click()
        await expect(other.page.get_by_text("Answered: Yes")).to_be_visible()
        await ask.get_by_role("button", name="blue").click()
        await ask.get_by_label("Your answer").fill("mine")
        await tab.page.keyboard.press("Enter")
        await ask.get_by_label("name").fill("n")
        await ask.get_by_label("size").fill("3")
        await ask.get_by_role("button", name="Answer", exact=True).click()
        await expect(ask).to_contain_text("More?")
        await tab.page.reload()
        await ask.get_by_role("button", name="Do not answer").click()
        form = "form: {'name': 'n', 'size': 3, 'soon': False}."
        for one in (tab, other):
            answer = one.page.get_by_role("article", name="asks")
            for text in ("sure: True.", "colour: blue.", "name: mine.", form, "last: cancelled."):
                await expect(answer).to_contain_text(text)
            await expect(one.page.get_by_role("button", name="Do not answer")).to_have_count(0)


async def test_messages_can_be_edited_regenerated_and_forked(hub: Hub, browser: Browser) -> None:
    """Later messages are removed for everyone; a fork is a new session with the messages up to there."""
    hub.agent("counts.py", COUNTS)
    await start_hub(hub)
    query = "?agent=counts&session=s22"
    async with visit(browser, hub.url, query) as tab, visit(browser, hub.url, query) as other:
        await tab.say("first")
        await expect(tab.answers).to_have_text(["first 1"])
        await tab.say("second")
        await expect(tab.answers).to_have_text(["first 1", "second 2"])
        await tab.page.get_by_role("article", name="counts").last.get_by_role("button", name="Answer again").click()
        for one in (tab, other):
            await expect(one.answers).to_have_text(["first 1", "second 3"])
            # the list shows its first words
            await expect(one.page.get_by_role("link", name="first")).to_be_visible()
        mine = tab.page.get_by_role("article", name="You").first
        await mine.hover()
        await mine.get_by_role("button", name="Edit").click()
        text = tab.page.get_by_label("New text")
        await expect(text).to_be_focused()
        await tab.page.keyboard.type("ly")  # the fork ends here
        await expect(text).to_have_value("firstly")
        await text.fill("other")
        await tab.page.keyboard.press("Enter")
        doubt = tab.page.get_by_role("dialog", name="Take back")
        await expect(doubt).to_contain_text("Messages: 2.")
        await tab.page.keyboard.press("Enter")  # Cancel has the focus
        await expect(doubt).to_have_count(0)
        await expect(other.answers).to_have_text(["first 1", "second 3"])
        await text.press("Enter")
        await doubt.get_by_role("button", name="Take back").click()
        for one in (tab, other):
            await expect(one.answers).to_have_text(["other 4"])
            await expect(one.page.locator(".bubble")).to_have_text(["other"])
        await expect(other.page.get_by_role("link", name="other")).to_be_visible()
        await tab.page.get_by_role("article", name="counts").get_by_role("button", name="Fork from here").click()
        await expect(tab.page).not_to_have_url(re.compile("s22"))
        await expect(tab.page.get_by_role("heading", name="other (2)")).to_be_visible()
        await expect(tab.answers).to_have_text(["other 4"])
        await tab.say("on")
        await expect(tab.answers).to_have_text(["other 4", "on 5"])
        await tab.page.get_by_role("article", name="counts").last.get_by_role("button", name="Fork from here").click()
        await expect(tab.page.get_by_role("heading", name="other (3)")).to_be_visible()
        await expect(tab.page.locator("article.answer.done")).to_have_count(2)
        await expect(tab.answers).to_have_text(["other 4", "on 5"])
        await expect(tab.page.locator(".figures")).to_have_count(0)  # its answers were not made in this session
        await expect(other.answers).to_have_text(["other 4"])


async def test_a_session_can_be_renamed_and_deleted(hub: Hub, browser: Browser) -> None:
    """The list shows the name. Deleting needs a confirmation, and everyone in the session sees it."""
    await start_hub(hub)
    query = "?agent=echo&session=s24"
    async with visit(browser, hub.url, query) as tab, visit(browser, hub.url, query) as other:
        await tab.say("hello")
        await expect(other.answers).to_have_text(["hello"])
        link = tab.page.get_by_role("navigation").get_by_role("link")
        await expect(link).to_contain_text("hello")
        await tab.page.get_by_role("button", name="Rename, Delete").click()
        await expect(tab.page.get_by_label("Name of this session")).to_be_focused()
        await tab.page.keyboard.type("Greetings")  # replaces the old name
        await tab.page.keyboard.press("Enter")
        await expect(link).to_contain_text("Greetings")
        await expect(tab.page.get_by_role("heading", name="Greetings")).to_be_visible()
        await tab.page.get_by_role("button", name="Rename, Delete").click()
        delete = tab.page.get_by_role("button", name="Delete", exact=True)
        await delete.dblclick()  # this click is not a confirmation
        await delete.click()
        await tab.page.get_by_role("button", name="Delete it").click()
        await expect(tab.page.get_by_role("alert")).to_contain_text("The session was deleted.")
        await expect(tab.answers).to_have_count(0)
        await expect(link).to_have_count(0)
        await expect(other.page.get_by_role("alert")).to_have_text("The session was deleted.")
        await expect(other.answers).to_have_count(0)
        await other.say("anew")
        await expect(other.answers).to_have_text(["anew"])
        await tab.page.get_by_role("button", name="New session").click()
        await expect(tab.page.get_by_role("alert")).to_have_count(0)
