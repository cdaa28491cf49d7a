"""LiteLLM, as a library."""

# /// script
# dependencies = ["litellm==1.110.2"]
# ///

import json
import os

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else it fetches a list of prices at its start

import litellm  # noqa: E402
from pydantic import BaseModel  # noqa: E402
from scenario import URL, run  # noqa: E402

HELLO = [{"role": "user", "content": "hello there"}]
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS = [{"type": "function", "function": {"name": "get_weather", "parameters": PARAMETERS}}]


class Person(BaseModel):
    name: str
    age: int


def complete(name, messages=HELLO, **options):
    return litellm.completion(
        model=f"openai/{name}", messages=messages, api_base=f"{URL}/v1", api_key="none", **options
    )


def whole():
    return complete("echo").choices[0].message.content


def stream():
    chunks = complete("echo", stream=True)
    return [chunk.choices[0].delta.content for chunk in chunks if chunk.choices[0].delta.content]


def tools():
    message = complete("scripted", tools=TOOLS).choices[0].message
    (call,) = message.tool_calls
    result = f"sunny in {json.loads(call.function.arguments)['city']}"
    messages = [*HELLO, message, {"role": "tool", "tool_call_id": call.id, "content": result}]
    return complete("scripted", messages, tools=TOOLS).choices[0].message.content


def tools_in_stream():
    chunks = list(complete("scripted", tools=TOOLS, stream=True))
    (call,) = litellm.stream_chunk_builder(chunks).choices[0].message.tool_calls
    return [call.function.name, json.loads(call.function.arguments)]


def structured():
    return json.loads(complete("scripted", response_format=Person).choices[0].message.content)


def failure():
    try:
        complete("failing")
    except Exception as error:
        return str(error)


def failure_in_stream():
    try:
        list(complete("failing", stream=True))
    except Exception as error:
        return str(error)


run(globals())
