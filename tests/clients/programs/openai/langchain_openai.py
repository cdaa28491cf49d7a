"""LangChain with its provider for OpenAI, and its agents."""

# /// script
# dependencies = ["langchain-openai==1.7.4", "langchain==1.5.2"]
# ///

from langchain.agents import create_agent
from langchain_openai import ChatOpenAI
from openai import APIError
from pydantic import BaseModel
from scenario import URL, run


class Person(BaseModel):
    """A person."""

    name: str
    age: int


def model(name):
    return ChatOpenAI(model=name, base_url=f"{URL}/v1", api_key="none")


def get_weather(city: str) -> str:
    """Return the weather of a city."""
    return f"sunny in {city}"


def whole():
    return model("echo").invoke("hello there").content


def stream():
    return [chunk.content for chunk in model("echo").stream("hello there") if chunk.content]


def tools():
    agent = create_agent(model("scripted"), tools=[get_weather])
    return agent.invoke({"messages": [{"role": "user", "content": "hello there"}]})["messages"][-1].content


def tools_in_stream():
    total = None
    for chunk in model("scripted").bind_tools([get_weather]).stream("hello there"):
        total = chunk if total is None else total + chunk
    (call,) = total.tool_calls
    return [call["name"], call["args"]]


def structured():
    return model("scripted").with_structured_output(Person).invoke("hello there").model_dump()


def structured_by_tool():
    person = model("scripted").with_structured_output(Person, method="function_calling").invoke("hello there")
    return person.model_dump()


def failure():
    try:
        model("failing").invoke("hello there")
    except APIError as error:
        return str(error)


def failure_in_stream():
    try:
        list(model("failing").stream("hello there"))
    except APIError as error:
        return str(error)


run(globals())
