"""Microsoft's Agent Framework: its client reads only the START, CONTENT and END events of messages."""

# /// script
# dependencies = ["agent-framework-core==1.23.0", "agent-framework-ag-ui==1.7.0"]
# ///

from agent_framework import Agent, tool
from agent_framework.ag_ui import AGUIChatClient
from scenario import ARGUMENTS, URL, run


async def stream():
    """Return the pieces of an answer."""
    async with AGUIChatClient(endpoint=f"{URL}/api/v1/agents/echo/agui") as client:
        updates = client.get_response(ARGUMENTS[0], stream=True)
        return [update.text async for update in updates if update.text]


async def tools():
    """Return the text of an agent that calls a function of this program."""
    calls = []

    @tool(approval_mode="never_require")
    def get_weather(city: str) -> str:
        """Return the weather of a city."""
        calls.append(city)
        return f"sunny in {city}"

    async with AGUIChatClient(endpoint=f"{URL}/api/v1/agents/forecaster/agui") as client:
        agent = Agent(client=client, tools=[get_weather])
        response = await agent.run(ARGUMENTS[0], options={"metadata": {"thread_id": "t1"}})
        return {"calls": calls, "text": response.text}


run(globals())
