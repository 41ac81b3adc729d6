"""The shortest program over the openai SDK that prints one answer: `raw_openai.py BASE_URL MODEL PROMPT`."""

import asyncio
import sys

from openai import AsyncOpenAI


async def main(base_url: str, model: str, prompt: str) -> None:
    """Ask and print."""
    async with AsyncOpenAI(api_key="sk-bench", base_url=base_url, max_retries=0) as client:
        reply = await client.chat.completions.create(model=model, messages=[{"role": "user", "content": prompt}])
        print(reply.choices[0].message.content, flush=True)


asyncio.run(main(*sys.argv[1:]))
