"""OpenAI's Agents SDK, with chat completions instead of responses."""

# /// script
# dependencies = ["openai-agents==0.24.0"]
# ///

from openai import AsyncOpenAI
from pydantic import BaseModel
from scenario import URL, run

from agents import Agent, OpenAIChatCompletionsModel, Runner, function_tool, set_tracing_disabled

set_tracing_disabled(True)


class Person(BaseModel):
    name: str
    age: int


@function_tool
def get_weather(city: str) -> str:
    """Return the weather of a city."""
    return f"sunny in {city}"


def agent(name, **options):
    client = AsyncOpenAI(base_url=f"{URL}/v1", api_key="none")
    return Agent(name="helper", model=OpenAIChatCompletionsModel(model=name, openai_client=client), **options)


def whole():
    return Runner.run_sync(agent("echo"), "hello there").final_output


async def stream():
    result = Runner.run_streamed(agent("echo"), "hello there")
    return [
        event.data.delta
        async for event in result.stream_events()
        if event.type == "raw_response_event" and event.data.type == "response.output_text.delta"
    ]


def tools():
    return Runner.run_sync(agent("scripted", tools=[get_weather]), "hello there").final_output


def structured():
    return Runner.run_sync(agent("scripted", output_type=Person), "hello there").final_output.model_dump()


def failure():
    try:
        Runner.run_sync(agent("failing"), "hello there")
    except Exception as error:
        return str(error)


run(globals())
