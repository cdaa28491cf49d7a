"""smolagents of Hugging Face: its model for endpoints like OpenAI's, and its agent that calls tools."""

# /// script
# dependencies = ["smolagents[openai]==1.26.0"]
# ///

from scenario import URL, run
from smolagents import OpenAIModel, ToolCallingAgent, tool

HELLO = [{"role": "user", "content": [{"type": "text", "text": "hello there"}]}]


@tool
def get_weather(city: str) -> str:
    """Return the weather of a city.

    Args:
        city: The name of the city.
    """
    return f"sunny in {city}"


def model(name):
    return OpenAIModel(model_id=name, api_base=f"{URL}/v1", api_key="none")


def whole():
    message = model("echo").generate(HELLO)
    assert message.token_usage.output_tokens  # smolagents fails if an answer has no usage
    return message.content


def stream():
    return [delta.content for delta in model("echo").generate_stream(HELLO) if delta.content]


def tools():
    options = {"tools": [get_weather], "model": model("scripted"), "max_steps": 4, "verbosity_level": 0}
    agents = [ToolCallingAgent(**options, stream_outputs=is_streamed) for is_streamed in (True, False)]
    streamed, whole = [str(agent.run("hello there")) for agent in agents]
    assert streamed == whole
    return whole


def failure():
    try:
        model("failing").generate(HELLO)
    except Exception as error:
        return str(error)


def failure_in_stream():
    try:
        list(model("failing").generate_stream(HELLO))
    except Exception as error:
        return str(error)


run(globals())
