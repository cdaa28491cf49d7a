"""What both client libraries send and read besides text: parts, metadata, files, and answers to questions.

Also several session objects of one session, which share a subscription.
"""

from pathlib import Path

from support.drivers import Driver
from support.hub import Hub
from support.proxy import Proxy

from hub.access.principal import OPERATOR
from hub.commands import table as commands
from hub.messages import ChatWithRequest, Request, Tool

ECHO = "async def echo(message: str):\n    yield message\n"
READER = """
from hub import Run

async def reader(run: Run):
    for part in run.parts:
        source = part.get("source", {})
        if source.get("provider") == "hubbub":
            yield f"{part['type']} {part['metadata']['name']}: {(await run.file(source['value'])).decode()}; "
        else:
            yield f"{part['type']}; "
    yield f"{run.message} {sorted((run.metadata or {}).items())}"
"""
ASKER = """
from hub import Run

async def asker(run: Run):
    reply = await run.ask("Which colour?")
    yield f"{reply.status} {reply.payload}"
"""
FORECAST = """
from hub import Run, ToolCallEnd, ToolCallStart, agent

@agent(tools=True)
async def forecast(run: Run):
    results = [part["content"] for part in run.parts if part["type"] == "tool_result"]
    if results:
        yield f"The weather: {results[0]}."
    else:
        yield ToolCallStart(f"call-{run.id}", "get_weather")
        yield ToolCallEnd(f"call-{run.id}")
"""
IMAGE = {"type": "image", "source": {"type": "url", "value": "https://example.org/cat.png"}}


async def test_parts_and_metadata_arrive_and_come_back(driver: Driver, hub: Hub) -> None:
    """The agent, the log and the history have them."""
    hub.agent("reader.py", READER)
    await hub.start()
    await driver.join(hub.port, "reader")
    fields = {"parts": [IMAGE], "metadata": {"mood": "curious", "deep": {"list": [1, None]}}}
    await driver.do("ask", id=1, sessionId="s1", message="look", **fields)
    assert (await driver.until("answer", id=1))["text"].startswith("image; look [('deep', {'list': [1, None]})")
    message = await driver.until_event("user_message")
    assert {name: message[name] for name in fields} == fields
    history = await driver.result_of("history", sessionId="s1", last=10)
    assert {name: history[0][name] for name in fields} == fields
    await driver.close()


async def test_if_busy_decides_what_happens_to_a_chat_during_an_answer(
    driver: Driver, hub: Hub, tmp_path: Path
) -> None:
    """`reject` is an error of the chat, `replace` ends the running answer."""
    await hub.start()
    await driver.join(hub.port, "gated")
    (tmp_path / "go").touch()
    await driver.do("chat", id=1, sessionId="s1", message=str(tmp_path / "never"))
    await driver.until_event("stream")
    await driver.do("chat", id=2, sessionId="s1", message="x", ifBusy="reject")
    assert (await driver.until("error", id=2))["code"] == "busy"
    await driver.do("chat", id=3, sessionId="s1", message=str(tmp_path / "go"), ifBusy="replace")
    assert (await driver.until("chat-end", id=3))["text"] == "one two"
    assert (await driver.until("chat-end", id=1))["text"] == "one "
    await driver.close()


async def test_a_question_of_an_agent_is_answered(driver: Driver, hub: Hub) -> None:
    """With a payload, or declined. A wrong id is refused."""
    hub.agent("asker.py", ASKER)
    await hub.start()
    await driver.join(hub.port, "asker")
    for status, text in (("resolved", "resolved {'colour': 'green'}"), ("cancelled", "cancelled None")):
        await driver.do("ask", id=status, sessionId="s1", message="go")
        question = await driver.until_event("interrupt")
        payload = {"payload": {"colour": "green"}} if status == "resolved" else {}
        await driver.result_of("resume", sessionId="s1", interruptId=question["id"], status=status, **payload)
        assert (await driver.until("answer", id=status))["text"] == text
    await driver.do("resume", id="wrong", sessionId="s1", interruptId="i_none")
    assert (await driver.until("error", id="wrong"))["code"] == "unknown_interrupt"
    await driver.close()


async def test_ask_answers_questions_with_a_function(driver: Driver, hub: Hub) -> None:
    """If another client replies first, the function is not needed. An error of the function is that of `ask`."""
    hub.agent("asker.py", ASKER)
    await hub.start()
    await driver.join(hub.port, "asker")
    await driver.do("ask", id=1, sessionId="s1", message="go", replies=True)
    assert (await driver.until("question"))["message"] == "Which colour?"
    await driver.do("reply", payload={"colour": "green"})
    assert (await driver.until("answer", id=1))["text"] == "resolved {'colour': 'green'}"
    await driver.until_event("interrupt")
    await driver.do("ask", id=2, sessionId="s1", message="go", replies=True)
    await driver.until("question")
    question = await driver.until_event("interrupt")
    await driver.result_of("resume", sessionId="s1", interruptId=question["id"], payload="red")
    assert (await driver.until("answer", id=2))["text"] == "resolved red"
    await driver.do("ask", id=3, sessionId="s1", message="go", replies=True)
    await driver.until("question")
    await driver.do("reply")
    assert (await driver.until("error", id=3))["message"] == "'payload'"
    await driver.close()


async def test_a_reply_without_a_connection_is_sent_with_the_next_one(driver: Driver, hub: Hub) -> None:
    """The function is called once."""
    hub.agent("asker.py", ASKER)
    await hub.start()
    proxy = await Proxy(lambda: ("127.0.0.1", hub.port)).start()
    try:
        await driver.join(proxy.port, "asker")
        await driver.do("ask", id=1, sessionId="s1", message="go", replies=True)
        await driver.until("question")
        target, proxy.target = proxy.target, lambda: ("127.0.0.1", 1)  # nothing listens there
        for link in list(proxy.links):
            link.reset()
        await driver.until("state", state="waiting")
        await driver.do("reply", payload="green")
        proxy.target = target
        assert (await driver.until("answer", id=1))["text"] == "resolved green"
        assert driver.count("question") == 1
        await driver.close()
    finally:
        await proxy.stop()


async def test_results_of_tool_calls_go_to_the_agent_of_the_calls(driver: Driver, hub: Hub) -> None:
    """The session object has another agent. The tools came from a client of another protocol."""
    hub.agent("echo.py", ECHO)
    hub.agent("forecast.py", FORECAST)
    await hub.start()
    await driver.join(hub.port, "echo")
    request = Request(tools=(Tool(name="get_weather"),))
    chat = ChatWithRequest(message="weather?", sessionId="s1", agentId="forecast", request=request)
    await commands.chat(hub.door, OPERATOR, chat)
    call = await driver.until_event("tool_call_start")
    assert (await driver.until_event("run_finished"))["stopReason"] == "tool_calls"
    result = {"type": "tool_result", "toolCallId": call["toolCallId"], "content": "22 degrees"}
    await driver.do("ask", id=1, sessionId="s1", message="", parts=[result])
    assert (await driver.until("answer", id=1))["text"] == "The weather: 22 degrees."
    assert (await driver.until_event("run_started"))["parentRunId"] == call["runId"]
    await driver.close()


# --- files ----------------------------------------------------------------------------------------------------------


async def test_files_are_uploaded_listed_read_and_deleted(driver: Driver, hub: Hub) -> None:
    """An error has the hub's code."""
    hub.agent("echo.py", ECHO)
    await hub.start(list_size=2)
    await driver.join(hub.port, "echo")
    files = [
        await driver.result_of("upload", sessionId="s1", text=f"file {n}", name=f"{n}.txt", type="text/plain")
        for n in range(5)
    ]
    assert files[0] == {"sessionId": "s1", "name": "0.txt", "type": "text/plain", "size": 6} | {
        "fileId": files[0]["fileId"]
    }
    listed = await driver.result_of("files", sessionId="s1")
    assert [file["fileId"] for file in listed] == [file["fileId"] for file in files]
    assert await driver.result_of("read", sessionId="s1", fileId=files[3]["fileId"]) == "file 3"
    await driver.result_of("delete", sessionId="s1", fileId=files[3]["fileId"])
    assert len(await driver.result_of("files", sessionId="s1")) == 4
    for command in ("read", "delete"):
        await driver.do(command, id=command, sessionId="s1", fileId=files[3]["fileId"])
        assert (await driver.until("error", id=command))["code"] == "unknown_file"
    await driver.do("upload", id="empty", sessionId="s1", text="", name="x", type="text/plain")
    assert (await driver.until("error", id="empty"))["code"] == "empty_file"
    await driver.close()


async def test_the_files_of_a_chat_are_uploaded_before_it(driver: Driver, hub: Hub) -> None:
    """The agent reads them by the parts of the message. A later chat of the session object does not overtake."""
    hub.agent("reader.py", READER)
    await hub.start()
    await driver.join(hub.port, "reader")
    files = [
        {"name": "a.txt", "type": "text/plain", "text": "alpha"},
        {"name": "b.png", "type": "image/png", "text": "B"},
    ]
    await driver.do("ask", id=1, sessionId="s1", message="first", files=files, parts=[IMAGE])
    await driver.do("ask", id=2, sessionId="s1", message="second")
    assert (await driver.until("answer", id=1))["text"] == "image; document a.txt: alpha; image b.png: B; first []"
    assert (await driver.until("answer", id=2))["text"] == "second []"
    messages = [await driver.until_event("user_message") for _ in range(2)]
    assert [message["content"] for message in messages] == ["first", "second"]
    assert [file["name"] for file in await driver.result_of("files", sessionId="s1")] == ["a.txt", "b.png"]
    await driver.close()


async def test_a_chat_whose_file_is_refused_fails_alone(driver: Driver, hub: Hub) -> None:
    """It is never sent, and the next chat is."""
    hub.agent("reader.py", READER)
    await hub.start(file_bytes=3)
    await driver.join(hub.port, "reader")
    file = {"name": "a.txt", "type": "text/plain", "text": "alpha"}
    await driver.do("ask", id=1, sessionId="s1", message="first", files=[file])
    await driver.do("ask", id=2, sessionId="s1", message="second")
    assert (await driver.until("error", id=1))["code"] == "file_too_large"
    assert (await driver.until("answer", id=2))["text"] == "second []"
    await driver.close()


async def test_a_chat_with_a_file_is_sent_although_the_connection_was_lost(driver: Driver, hub: Hub) -> None:
    """The upload begins again with the next connection."""
    hub.agent("reader.py", READER)
    await hub.start()
    proxy = await Proxy(lambda: ("127.0.0.1", hub.port)).start()
    try:
        await driver.join(proxy.port, "reader")
        target, proxy.target = proxy.target, lambda: ("127.0.0.1", 1)  # nothing listens there
        for link in list(proxy.links):
            link.reset()
        await driver.until("state", state="waiting")
        file = {"name": "a.txt", "type": "text/plain", "text": "alpha"}
        await driver.do("ask", id=1, sessionId="s1", message="first", files=[file])
        proxy.target = target
        assert (await driver.until("answer", id=1))["text"] == "document a.txt: alpha; first []"
        await driver.close()
    finally:
        await proxy.stop()


# --- session objects ------------------------------------------------------------------------------------------------


def count_subscriptions(hub: Hub) -> list[str]:
    return [key for connection in hub.node.registry.connections for key in connection.subscriptions]


async def test_two_session_objects_share_a_subscription(driver: Driver, hub: Hub) -> None:
    """Each has its own agent, and both get all events. The end of one leaves the other."""
    hub.agent("echo.py", ECHO)
    hub.agent("shout.py", "async def shout(message: str):\n    yield message.upper()\n")
    await hub.start()
    await driver.join(hub.port, "echo")
    await driver.do("session", sessionId="s1", agent="shout", handle="second")
    await driver.do("ask", id=1, handle="second", message="hi")
    assert (await driver.until("answer", id=1))["text"] == "HI"
    await driver.do("ask", id=2, sessionId="s1", message="hi")
    assert (await driver.until("answer", id=2))["text"] == "hi"
    await until_both_have(driver, 2)
    assert [event["type"] for event in driver.events()] == events_of(driver, "second")
    assert count_subscriptions(hub) == ["s1"]
    await driver.do("leave", handle="second")
    await driver.do("ask", id=3, sessionId="s1", message="still here")
    assert (await driver.until("answer", id=3))["text"] == "still here"
    while [event["type"] for event in driver.events()].count("run_finished") < 3:
        await driver.until("event")
    assert events_of(driver, "second").count("run_finished") == 2 and count_subscriptions(hub) == ["s1"]
    await driver.close()


async def until_both_have(driver: Driver, ends: int) -> None:
    """Wait until both session objects have got so many ends of answers."""
    lists = (lambda: [event["type"] for event in driver.events()], lambda: events_of(driver, "second"))
    while any(types().count("run_finished") < ends for types in lists):
        await driver.until("event")


def events_of(driver: Driver, handle: str) -> list[str]:
    return [line["event"]["type"] for line in driver.lines if line["kind"] == "event" and line.get("handle") == handle]


async def test_the_end_of_a_session_object_ends_its_answers_only(driver: Driver, hub: Hub, tmp_path: Path) -> None:
    """Its open answer is an error, `closed`, and goes on in the hub."""
    await hub.start()
    await driver.join(hub.port, "gated")
    await driver.do("session", sessionId="s1", agent="gated", handle="second")
    await driver.do("chat", id=1, handle="second", message=str(tmp_path / "go"))
    await driver.until("chat-event", id=1)
    await driver.do("leave", handle="second")
    assert (await driver.until("error", id=1))["code"] == "closed"
    (tmp_path / "go").touch()
    assert (await driver.until_event("run_finished"))["stopReason"] == "end_turn"
    await driver.close()


async def test_all_session_objects_go_on_after_a_reconnect(driver: Driver, hub: Hub) -> None:
    """Each gets each event once, also those that came meanwhile."""
    hub.agent("echo.py", ECHO)
    await hub.start()
    proxy = await Proxy(lambda: ("127.0.0.1", hub.port)).start()
    try:
        await driver.join(proxy.port, "echo")
        await driver.do("session", sessionId="s1", agent="echo", handle="second")
        for number in range(3):
            for handle in ("s1", "second"):
                await driver.do("ask", id=f"{handle} {number}", handle=handle, message=f"{number}")
                await driver.until("answer", id=f"{handle} {number}")
            for link in list(proxy.links):
                link.reset()
            await driver.until("state", state="waiting")
        await until_both_have(driver, 6)
        assert [event["type"] for event in driver.events()] == events_of(driver, "second")
        assert [event["seq"] for event in driver.events()] == list(range(1, 25))
        await driver.close()
    finally:
        await proxy.stop()
