"""Pydantic AI with its model for endpoints like OpenAI's."""

# /// script
# dependencies = ["pydantic-ai-slim[openai]==2.68.0"]
# ///

from pydantic import BaseModel
from pydantic_ai import Agent, NativeOutput, PromptedOutput, ToolOutput
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider
from scenario import URL, run


class Person(BaseModel):
    name: str
    age: int


def model(name):
    return OpenAIChatModel(name, provider=OpenAIProvider(base_url=f"{URL}/v1", api_key="none"))


def get_weather(city: str) -> str:
    """Return the weather of a city."""
    return f"sunny in {city}"


def whole():
    return Agent(model("echo")).run_sync("hello there").output


async def stream():
    async with Agent(model("echo")).run_stream("hello there") as result:
        return [piece async for piece in result.stream_text(delta=True, debounce_by=None)]


def tools():
    return Agent(model("scripted"), tools=[get_weather]).run_sync("hello there").output


def structured():
    return Agent(model("scripted"), output_type=NativeOutput(Person)).run_sync("hello there").output.model_dump()


def structured_by_prompt():
    agent = Agent(model("scripted"), output_type=PromptedOutput(Person))
    return agent.run_sync("hello there").output.model_dump()


def structured_by_tool():
    agent = Agent(model("scripted"), output_type=ToolOutput(Person), tools=[get_weather])
    return agent.run_sync("hello there").output.model_dump()


def failure():
    try:
        Agent(model("failing")).run_sync("hello there")
    except Exception as error:
        return str(error)


async def failure_in_stream():
    try:
        async with Agent(model("failing")).run_stream("hello there") as result:
            return [piece async for piece in result.stream_text()]
    except Exception as error:
        return str(error)


run(globals())
