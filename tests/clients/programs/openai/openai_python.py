"""OpenAI's own client for Python."""

# /// script
# dependencies = ["openai==3.57.0"]
# ///

from openai import APIError, OpenAI
from scenario import URL, run

CLIENT = OpenAI(base_url=f"{URL}/v1", api_key="none")
HELLO = [{"role": "user", "content": "hello there"}]


def whole():
    return CLIENT.chat.completions.create(model="echo", messages=HELLO).choices[0].message.content


def stream():
    chunks = CLIENT.chat.completions.create(model="echo", messages=HELLO, stream=True)
    return [chunk.choices[0].delta.content for chunk in chunks if chunk.choices[0].delta.content]


def failure():
    try:
        CLIENT.chat.completions.create(model="failing", messages=HELLO)
    except APIError as error:
        return str(error)


def failure_in_stream():
    try:
        list(CLIENT.chat.completions.create(model="failing", messages=HELLO, stream=True))
    except APIError as error:
        return str(error)


run(globals())
