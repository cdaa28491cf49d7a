"""Instructor: structured output by several ways."""

# /// script
# dependencies = ["instructor==1.17.0"]
# ///

import instructor
from openai import OpenAI
from pydantic import BaseModel
from scenario import URL, run

HELLO = [{"role": "user", "content": "hello there"}]


class Person(BaseModel):
    name: str
    age: int


def ask(mode, name="scripted"):
    client = instructor.from_openai(OpenAI(base_url=f"{URL}/v1", api_key="none"), mode=mode)
    return client.chat.completions.create(model=name, messages=HELLO, response_model=Person).model_dump()


def structured():
    return ask(instructor.Mode.JSON_SCHEMA)


def structured_by_prompt():
    return ask(instructor.Mode.JSON)


def structured_by_tool():
    return ask(instructor.Mode.TOOLS)


def failure():
    try:
        ask(instructor.Mode.TOOLS, "failing")
    except Exception as error:
        return str(error)


run(globals())
