"""The front door: every public name, loaded when it is touched, and nothing before."""

from __future__ import annotations

import json
from typing import Any

import pytest

import providers
from providers import exceptions

PROMISED = {
    "F-020": "Client client get_response create_batch get_batch_status fetch_batch_results Batch GenerationConfig",
    "F-039": "StructuredOutput",
    "F-069": "CompletionResult StreamEvent StreamEventType Provider BaseProvider EmbeddingResult Usage",
    "F-119": "Message Role MessageInput normalize_messages ToolCall ToolCallDelta",
    "F-104": "format_sse_event",
    "F-109": "FSCache",
    "F-111": "Limiter",
    "F-112": "TokenBucket",
    "F-123": "ResponseTimeoutError",
    "F-126": "create_llm_provider LLMConfig APIType StreamMode LLMProvider LLMResponse",
    "F-135": "LLMProviderError LLMProviderTokenLimitError LLMProviderRateLimitError",
    "F-138": "LLMProviderUnsupportedOperationError",
    "F-137": "register_provider",
    "F-140": "get_cached_provider clear_provider_cache",
    "F-142": "Settings",
    "F-117": "ModelProfile",
    "F-173": "hookimpl ProviderSettings setting",
}


@pytest.mark.parametrize("promise", PROMISED)
def test_promised_names_are_there(promise: str) -> None:
    """F-020, F-039, F-069, F-104, F-109, F-111, F-112, F-117, F-119, F-123, F-126, F-135, F-137, F-138, F-140, F-142,
    F-173."""
    for name in PROMISED[promise].split():
        assert name in providers.__all__
        assert getattr(providers, name) is not None


@pytest.mark.parametrize("name", providers.__all__)
def test_every_name_loads_and_is_the_one_of_its_room(name: str) -> None:
    value = getattr(providers, name)
    assert getattr(providers, name) is value
    assert name in dir(providers)


def test_every_error_is_a_public_name() -> None:
    errors = {
        name
        for name, value in vars(exceptions).items()
        if isinstance(value, type) and issubclass(value, exceptions.LLMProviderError)
    }
    assert errors <= set(providers.__all__)


def test_a_star_import_gives_all_of_them(python: Any) -> None:
    code = "from providers import *; import providers; print(sorted(set(providers.__all__) - set(globals())))"
    assert python(code).stdout == "[]\n"


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match=r"providers.*NoSuchThing"):
        providers.NoSuchThing  # noqa: B018
    with pytest.raises(ImportError, match="NoSuchThing"):
        from providers import NoSuchThing  # noqa: F401
    assert not hasattr(providers, "_nothing")
    assert not hasattr(providers, "__nothing__")


def test_a_private_name_does_not_look_for_plugins(python: Any) -> None:
    code = "import sys, providers; hasattr(providers, '__path_hooks__'); print('providers.plugins' in sys.modules)"
    assert python(code).stdout == "False\n"


def test_the_settings_of_an_application(house: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """F-142: the application's own class on top of ours."""

    class AppSettings(providers.Settings):
        acme_api_key: str = "none"
        default_llm_provider: str = "acme"

    assert AppSettings().default_llm_provider == "acme"
    assert providers.Settings().default_model_name is None
    (house / ".env").write_text("ACME_API_KEY=k\nDEFAULT_MODEL_NAME=m\nUNKNOWN=1\n", encoding="utf-8")
    monkeypatch.setenv("DEFAULT_LLM_PROVIDER", "other")
    found = AppSettings()
    assert (found.acme_api_key, found.default_model_name, found.default_llm_provider) == ("k", "m", "other")


HEAVY = (
    "aiohttp pydantic pydantic_settings orjson ssl socket pluggy importlib.metadata typing dotenv email asyncio json "
    "dataclasses inspect logging"
)


def test_importing_it_loads_nothing_heavy_and_changes_nothing(python: Any) -> None:
    """F-019, F-170; users: import time."""
    code = f"""
        import sys, os
        before, environment = set(sys.modules), dict(os.environ)
        import providers
        dir(providers); providers.__all__; providers.__version__
        loaded = set(sys.modules) - before
        import json
        heavy = sorted(loaded & set({HEAVY!r}.split()))
        print(json.dumps([sorted(loaded), heavy, dict(os.environ) == environment]))
    """
    # -S: what the installation's own .pth files import is not ours to count.
    loaded, heavy, same = json.loads(python(code, "-S").stdout)
    assert heavy == []
    assert len(loaded) <= 3, loaded
    assert same


def test_the_way_to_a_provider_does_not_pay_for_what_it_does_not_need(python: Any) -> None:
    """Measures: first answer."""
    code = """
        import json, sys, os
        environment = dict(os.environ)
        from providers import LLMConfig, create_llm_provider, register_provider, Message, StreamMode
        from providers.testing import EchoProvider
        import asyncio
        register_provider("echo", EchoProvider)
        provider = create_llm_provider("echo", "m", temperature=0.0)
        assert asyncio.run(provider.execute("hi")).content == "hi"
        ours = "providers.wire providers.clients providers.app_settings"
        heavy = f"pydantic pydantic_settings aiohttp orjson dotenv {ours}"
        loaded = [name for name in heavy.split() if name in sys.modules]
        print(json.dumps([loaded, dict(os.environ) == environment]))
    """
    heavy, same = json.loads(python(code).stdout)
    assert heavy == []
    assert same


def test_importing_every_room_needs_neither_pydantic_nor_an_http_client(python: Any) -> None:
    code = """
        import json, sys, providers
        for name in providers.__all__:
            if name != "Settings":
                getattr(providers, name)
        heavy = ("pydantic", "aiohttp", "orjson", "ssl", "dotenv", "email.message")
        print(json.dumps([name for name in heavy if name in sys.modules]))
    """
    allowed = {"ssl", "email.message"}  # asyncio and importlib.metadata bring these
    assert set(json.loads(python(code).stdout)) <= allowed


def test_the_import_takes_milliseconds(python: Any) -> None:
    """Measures: import; users: import time and memory."""
    code = """
        import time
        started = time.perf_counter()
        import providers
        print(time.perf_counter() - started)
    """
    assert min(float(python(code, "-S").stdout) for _ in range(3)) < 0.05


@pytest.mark.parametrize("where", ["cwd gone", "bad .env", "bad toml", "folder named .env"])
def test_importing_never_raises_whatever_lies_around(python: Any, tmp_path: Any, where: str) -> None:
    """Bad input 10, 11."""
    (tmp_path / "config").mkdir()
    if where == "bad .env":
        (tmp_path / ".env").write_bytes(b"\xff\xfe = \nnonsense\n'")
    elif where == "bad toml":
        (tmp_path / "config" / "providers.toml").write_text("[[[", encoding="utf-8")
    elif where == "folder named .env":
        (tmp_path / ".env").mkdir()
    gone = "import os, tempfile; d = tempfile.mkdtemp(); os.chdir(d); os.rmdir(d)\n" if where == "cwd gone" else ""
    code = gone + "import providers; from providers import create_llm_provider, Client; print('in')"
    assert python(code).stdout == "in\n"
