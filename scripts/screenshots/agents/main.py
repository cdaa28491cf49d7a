"""Answers with a language model."""

import asyncio
from collections.abc import AsyncIterator

ENGLISH = """Use a **generator** that yields each line as it comes, and let the caller decide when to stop:

```python
from collections.abc import AsyncIterator

async def lines(reader) -> AsyncIterator[str]:
    \"\"\"Yield the lines of a stream, without the newline.\"\"\"
    async for raw in reader:
        yield raw.decode().rstrip("\\n")
```

Three things to know:

1. The generator holds the connection open, so close it with `aclose()`.
2. A line may be long: set a `limit` on the reader.
3. Decoding can fail in the middle of a character; see [the manual](https://docs.python.org/3/library/codecs.html).

| reader | gives | stops at |
|---|---|---|
| file | bytes | the end |
| socket | bytes | a closed connection |

Shall I show how to test it?
"""
CHINESE = """可以用一个**生成器**逐行返回内容，由调用者决定何时停止：

```python
async def lines(reader):
    async for raw in reader:
        yield raw.decode().rstrip("\\n")
```

需要注意三点：

1. 生成器会一直占用连接，用完请调用 `aclose()`。
2. 一行可能很长，请给读取器设置 `limit`。
3. 字符可能在中间被截断，解码会失败。
"""
# Short answers, by a word in the message.
SHORT = {
    "night train": "Take the train at **21:27**. It arrives at 08:24.\n\n- a bed for four: 69 €\n- a bed for two: 99 €",
    "quiet": "Yes. In coach 263 there are two beds far from the doors: compartment 4. Shall I hold them until tonight?",
    "夜车": "坐 **21:27** 的那一班，08:24 到威尼斯。\n\n- 四人间：每床 69 欧元\n- 两人间：每床 99 欧元",
    "安静": "有。263 号车厢 4 号包间还有两个床位，离车门很远。要我保留到今晚吗？",
}


async def main(message: str) -> AsyncIterator[str]:
    long_text = ENGLISH if message.isascii() else CHINESE
    text = next((answer for word, answer in SHORT.items() if word in message), long_text)
    for at in range(0, len(text), 4):
        if "slowly" in message and at > 380:
            await asyncio.sleep(3600)  # the picture is of an answer that still grows
        yield text[at : at + 4]
        await asyncio.sleep(0.005)
