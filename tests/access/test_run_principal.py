"""Agents see who asks: `run.principal` has the id and the name of the principal of each message."""

import pytest
from support.hub import Client, Hub

from hub.access.principal import OPERATOR
from hub.commands import table as commands

WHO = """
from hub import Run

async def who(run: Run):
    return f"{run.principal.name} {run.principal.id}"
"""
CALLER = """
from hub import Run

async def caller(run: Run):
    return await run.call("who", "x")
"""
ASKER = """
from hub import Run

async def asker(run: Run):
    reply = await run.ask("Really?")
    return f"{run.principal.name} asked, {reply.by.name} replied"
"""


@pytest.fixture(autouse=True)
def own_agents(hub: Hub) -> None:
    hub.agent("who.py", WHO)
    hub.agent("caller.py", CALLER)
    hub.agent("asker.py", ASKER)


async def join(hub: Hub, name: str) -> tuple[Client, str]:
    """Connect with a new key, and return the client and the id of its principal."""
    new_key = await commands.create_key(hub.door, OPERATOR, name)
    client = await hub.connect(headers={"Authorization": f"Bearer {new_key.key}"}, protocols=("hubbub.v1",))
    await client.until_type("welcome")
    return client, new_key.principal.id


async def answer_of(client: Client, **command: str) -> str:
    """Send a command, and return the text of the answer's message."""
    await client.send(ref="r", **command)
    accepted = await client.until(lambda frame: frame.get("ref") == "r")
    assert accepted["type"] == "accepted", accepted
    await client.find(lambda frame: frame["type"] == "run_finished" and frame["runId"] == accepted["runId"])
    return client.text(accepted["runId"])


@pytest.mark.parametrize("agent", ["who", "caller"])
async def test_an_agent_sees_the_sender_of_each_message(signed: Hub, agent: str) -> None:
    """Also an agent that another agent calls."""
    (ann, ann_id), (bob, bob_id) = await join(signed, "ann"), await join(signed, "bob")
    assert await answer_of(ann, type="chat", agentId=agent, sessionId="s1", message="x") == f"ann {ann_id}"
    await commands.change_member(signed.door, OPERATOR, "s1", bob_id, "member")
    assert await answer_of(bob, type="chat", agentId=agent, sessionId="s1", message="x") == f"bob {bob_id}"


async def test_an_answer_that_is_made_again_belongs_to_the_principal_who_asks_for_it(signed: Hub) -> None:
    """The message keeps its author."""
    (ann, _), (bob, bob_id) = await join(signed, "ann"), await join(signed, "bob")
    await answer_of(ann, type="chat", agentId="who", sessionId="s1", message="x")
    message = await ann.find(lambda frame: frame["type"] == "user_message")
    await commands.change_member(signed.door, OPERATOR, "s1", bob_id, "member")
    text = await answer_of(bob, type="regenerate", sessionId="s1", messageId=message["messageId"])
    assert text == f"bob {bob_id}"
    await bob.send(type="subscribe", sessionId="s1", history=10)
    history = (await bob.until_type("subscribed"))["history"]
    assert [item["author"]["name"] for item in history if item["role"] == "user"] == ["ann"]


async def test_an_agent_sees_who_replies_to_its_question(signed: Hub) -> None:
    (ann, _), (bob, bob_id) = await join(signed, "ann"), await join(signed, "bob")
    await ann.send(type="chat", agentId="asker", sessionId="s1", message="x")
    question = await ann.until_type("interrupt")
    await commands.change_member(signed.door, OPERATOR, "s1", bob_id, "member")
    await bob.send(type="resume", sessionId="s1", interruptId=question["id"], status="resolved", payload=1)
    await ann.until_type("run_finished")
    assert ann.text() == "ann asked, bob replied"
