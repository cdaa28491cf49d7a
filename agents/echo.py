"""Says back what it hears, a word at a time."""


async def echo(message: str):
    for word in message.split():
        yield word + " "
