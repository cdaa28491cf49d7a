"""Repeats the message, one word at a time."""


async def echo(message: str):
    for word in message.split():
        yield word + " "
