"""LlamaIndex with its model for endpoints like OpenAI's."""

# /// script
# dependencies = ["llama-index-llms-openai-like==0.8.1"]
# ///

from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.llms import ChatMessage
from llama_index.llms.openai_like import OpenAILike
from pydantic import BaseModel
from scenario import URL, run


class Person(BaseModel):
    """A person."""

    name: str
    age: int


def model(name):
    return OpenAILike(
        model=name,
        api_base=f"{URL}/v1",
        api_key="none",
        is_chat_model=True,
        is_function_calling_model=True,
        should_use_structured_outputs=True,
    )


def get_weather(city: str) -> str:
    """Return the weather of a city."""
    return f"sunny in {city}"


def whole():
    return model("echo").chat([ChatMessage(role="user", content="hello there")]).message.content


def stream():
    return [answer.delta for answer in model("echo").stream_chat([ChatMessage(role="user", content="hello there")])]


async def tools():
    return str(await FunctionAgent(tools=[get_weather], llm=model("scripted")).run("hello there"))


def structured():
    messages = [ChatMessage(role="user", content="hello there")]
    return model("scripted").as_structured_llm(Person).chat(messages).raw.model_dump()


def failure():
    try:
        model("failing").chat([ChatMessage(role="user", content="hello there")])
    except Exception as error:
        return str(error)


run(globals())
