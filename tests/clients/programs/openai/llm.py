"""llm, the command line of Simon Willison: the endpoint is in its file of models."""

# /// script
# dependencies = ["llm==0.36"]
# ///

import os
import subprocess
import sys
from pathlib import Path

from scenario import URL, run

NAMES = ("echo", "scripted", "failing")


def llm(*arguments):
    folder = Path(os.environ["HOME"])
    models = [
        f"- model_id: {name}\n  model_name: {name}\n  api_base: {URL}/v1\n  supports_tools: true\n"
        "  supports_schema: true\n  can_stream: true\n"
        for name in NAMES
    ]
    (folder / "extra-openai-models.yaml").write_text("".join(models))
    environ = {**os.environ, "LLM_USER_PATH": str(folder), "OPENAI_API_KEY": "none"}
    command = [sys.executable, "-m", "llm", *arguments]
    return subprocess.run(command, env=environ, capture_output=True, text=True)


def ask(*arguments):
    result = llm(*arguments)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def whole():
    return ask("-m", "echo", "--no-stream", "hello there")


def stream():
    return ask("-m", "echo", "hello there").split(" ")


def tools():
    code = "def get_weather(city: str) -> str:\n    'the weather of a city'\n    return f'sunny in {city}'"
    commands = [("-m", "scripted", *flags, "--functions", code, "hello there") for flags in ((), ("--no-stream",))]
    streamed, whole = [ask(*command) for command in commands]
    assert streamed == whole
    return whole


def structured():
    import json

    return json.loads(ask("-m", "scripted", "--schema", "name, age int", "hello there"))


def failure():
    return llm("-m", "failing", "--no-stream", "hello there").stderr


def failure_in_stream():
    return llm("-m", "failing", "hello there").stderr


run(globals())
