"""OpenAI's own client for Python."""

# /// script
# dependencies = ["openai==3.57.0"]
# ///

import json

from openai import APIError, OpenAI, pydantic_function_tool
from pydantic import BaseModel
from scenario import ARGUMENTS, URL, run

CLIENT = OpenAI(base_url=f"{URL}/v1", api_key="none")
HELLO = [{"role": "user", "content": "hello there"}]


class Person(BaseModel):
    name: str
    age: int


class GetWeather(BaseModel):
    """Return the weather of a city."""

    city: str


def whole():
    return CLIENT.chat.completions.create(model="echo", messages=HELLO).choices[0].message.content


def stream():
    chunks = CLIENT.chat.completions.create(model="echo", messages=HELLO, stream=True)
    return [chunk.choices[0].delta.content for chunk in chunks if chunk.choices[0].delta.content]


def tools():
    request = {"model": "scripted", "tools": [pydantic_function_tool(GetWeather)]}
    messages = list(HELLO)
    message = CLIENT.chat.completions.parse(messages=messages, **request).choices[0].message
    messages.append(message)
    for call in message.tool_calls:
        result = f"sunny in {call.function.parsed_arguments.city}"
        messages.append({"role": "tool", "tool_call_id": call.id, "content": result})
    return CLIENT.chat.completions.create(messages=messages, **request).choices[0].message.content


def tools_in_stream():
    request = {"model": "scripted", "messages": HELLO, "tools": [pydantic_function_tool(GetWeather)]}
    with CLIENT.chat.completions.stream(**request) as events:
        (call,) = events.get_final_completion().choices[0].message.tool_calls
    return [call.function.name, json.loads(call.function.arguments)]


def structured():
    answer = CLIENT.chat.completions.parse(model="scripted", messages=HELLO, response_format=Person)
    return answer.choices[0].message.parsed.model_dump()


def with_key():
    headers = {"Idempotency-Key": "my-key-1"}
    request = {"model": "echo", "messages": HELLO, "extra_body": {"sessionId": "s1"}, "extra_headers": headers}
    return [CLIENT.chat.completions.create(**request).choices[0].message.content for _ in range(2)]


def image():
    content = [
        {"type": "text", "text": "what is this?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,QUJD"}},
    ]
    answer = CLIENT.chat.completions.create(model="looker", messages=[{"role": "user", "content": content}])
    return answer.choices[0].message.content


def failure():
    try:
        CLIENT.chat.completions.create(model="failing", messages=HELLO, extra_body=read_body())
    except APIError as error:
        return str(error)


def failure_in_stream():
    try:
        list(CLIENT.chat.completions.create(model="failing", messages=HELLO, stream=True, extra_body=read_body()))
    except APIError as error:
        return str(error)


def read_body():
    """Return further fields of the request: those of the command line."""
    return json.loads(ARGUMENTS[0]) if ARGUMENTS else {}


run(globals())
