"""An agent that yields random Unicode text. The seed in its message determines the text, so a test can compute it."""

import asyncio
import random
from collections.abc import AsyncIterator

# Letters, accents, CJK, combining characters, characters outside the BMP, and characters that JSON must escape.
ALPHABET = 'abc XYZ 019 \n\t"\\/ éßñ øλЖ 你好世界 かな \u0301\u200d\u2028 😀👩‍👧🏳️‍🌈 𝔘𐍈 \x01\x7f<>&\ufffd\U0010ffff'


def chunks(seed: str, count: int) -> list[str]:
    """Return the chunks that the agent yields for a seed. No chunk is empty."""
    chance = random.Random(seed)
    return ["".join(chance.choices(ALPHABET, k=chance.randint(1, 40))) for _ in range(count)]


async def babble(message: str) -> AsyncIterator[str]:
    """Yield COUNT chunks in about SECONDS seconds, in bursts with pauses. The message is "SEED COUNT SECONDS"."""
    seed, count, seconds = message.split()
    chance = random.Random(seed + " pauses")
    pause = float(seconds) / int(count) * 4
    for chunk in chunks(seed, int(count)):
        yield chunk
        if chance.random() < 0.25:
            await asyncio.sleep(pause)
