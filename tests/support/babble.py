"""An agent, and the module that knows what it will say: random Unicode from the seed in its message."""

import asyncio
import random
from collections.abc import AsyncIterator

# Letters, accents, CJK, what combines, what lies past the first plane, and what JSON must escape.
ALPHABET = 'abc XYZ 019 \n\t"\\/ éßñ øλЖ 你好世界 かな \u0301\u200d\u2028 😀👩‍👧🏳️‍🌈 𝔘𐍈 \x01\x7f<>&\ufffd\U0010ffff'


def chunks(seed: str, count: int) -> list[str]:
    """Return what the agent yields for a seed; no chunk is empty."""
    chance = random.Random(seed)
    return ["".join(chance.choices(ALPHABET, k=chance.randint(1, 40))) for _ in range(count)]


async def babble(message: str) -> AsyncIterator[str]:
    """Say so many chunks in about so many seconds, in bursts and with pauses: "SEED COUNT SECONDS"."""
    seed, count, seconds = message.split()
    chance = random.Random(seed + " pauses")
    pause = float(seconds) / int(count) * 4
    for chunk in chunks(seed, int(count)):
        yield chunk
        if chance.random() < 0.25:
            await asyncio.sleep(pause)
