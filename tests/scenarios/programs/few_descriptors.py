"""Two hundred calls at once with 64 descriptors: answers or our errors, and all is well afterwards."""

from __future__ import annotations

import asyncio
import logging
import resource
import sys
from collections import Counter

from providers import LLMProviderError, LLMResponse, create_llm_provider

logging.getLogger("asyncio").setLevel(logging.ERROR)


async def main() -> None:
    """Storm, then calm."""
    retries = int(sys.argv[1])
    provider = create_llm_provider("openai", "model-1", max_retries=retries, retry_delay=0.05, timeout=20)
    await provider.execute("warm")
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    calls = (provider.execute(f"slow {number}") for number in range(200))
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    kinds: Counter[str] = Counter()
    for number, outcome in enumerate(outcomes):
        if isinstance(outcome, LLMResponse):
            assert outcome.content == f"slow {number}", outcome
            kinds["answer"] += 1
        else:
            assert isinstance(outcome, LLMProviderError), repr(outcome)
            assert outcome.__cause__ is not None
            kinds[type(outcome).__name__] += 1
    print(dict(kinds))
    for number in range(30):
        answer = await provider.execute(f"calm {number}")
        assert isinstance(answer, LLMResponse)
        assert answer.content == f"calm {number}"
    answers = await asyncio.gather(*(provider.execute(f"few {number}") for number in range(20)))
    assert len(answers) == 20
    print("recovered")
    await provider.close()


asyncio.run(main())
