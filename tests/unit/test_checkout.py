"""A checkout used as the founding document writes it: `from src.providers import ...` gives the same objects."""

from __future__ import annotations

from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def test_the_same_objects_under_both_names() -> None:
    """F-146, C-01: so that `except` and `isinstance` agree."""
    import providers
    import providers.base
    import providers.types.messages
    import src.providers
    import src.providers.base
    import src.providers.types.messages
    from src.providers import LLMProviderError, create_llm_provider
    from src.providers.exceptions import LLMProviderTokenLimitError

    assert src.providers is providers
    assert src.providers.base is providers.base
    assert src.providers.types.messages is providers.types.messages
    assert create_llm_provider is providers.create_llm_provider
    assert LLMProviderError is providers.LLMProviderError
    assert LLMProviderTokenLimitError is providers.LLMProviderTokenLimitError
    for name in providers.__all__:
        assert getattr(src.providers, name) is getattr(providers, name)


def test_from_a_checkout_without_an_installation(python: Any, tmp_path: Path) -> None:
    """F-146: only the root is on the path; the alias may come first."""
    code = """
        import sys, pickle
        assert not any(path.endswith("src") for path in sys.path)
        from src.providers import LLMProviderError, LLMConfig, Message
        from src.providers.base import LLMProvider
        from src.providers.exceptions import LLMProviderRateLimitError
        import providers, providers.base, providers.exceptions
        assert LLMProviderError is providers.LLMProviderError
        assert LLMProvider is providers.base.LLMProvider
        assert providers.__name__ == providers.__spec__.name == "providers"
        assert providers.base.__spec__.name == providers.base.__name__ == "providers.base"
        assert LLMProvider.__module__ == "providers.base"
        assert sys.modules["src.providers"] is sys.modules["providers"]
        error = pickle.loads(pickle.dumps(LLMProviderRateLimitError("x", retry_after=1.0)))
        try:
            raise error
        except providers.LLMProviderError as caught:
            print(caught.retry_after)
    """
    assert python(code, path=[ROOT]).stdout == "1.0\n"


def test_the_modules_can_be_reloaded_and_are_not_made_twice(python: Any) -> None:
    code = """
        import sys
        import src.providers.types.usage, src.providers.exceptions
        import importlib
        module = sys.modules["providers.types.usage"]
        assert importlib.reload(module) is module
        assert module.__spec__.name == "providers.types.usage"
        names = [name for name in sys.modules if name.startswith("src.providers")]
        print([name for name in names if sys.modules[name] is not sys.modules[name[4:]]])
    """
    assert python(code, path=[ROOT]).stdout == "[]\n"


def test_an_unknown_module_is_told_under_the_name_that_was_asked_for(python: Any) -> None:
    code = """
        for name in ("src.providers.nothing", "src.providers.types.nothing"):
            try:
                __import__(name)
            except ModuleNotFoundError as error:
                print("nothing" in str(error))
        try:
            from src.providers import NoSuchThing
        except ImportError as error:
            print("NoSuchThing" in str(error))
    """
    assert python(code, path=[ROOT]).stdout == "True\nTrue\nTrue\n"


def test_a_plugin_answers_to_the_founding_documents_module_name(python: Any, install: Any, site: Path) -> None:
    """F-146: `src.providers.NAME_provider`."""
    source = """
        from providers import LLMProvider, StreamEvent

        class AcmeProvider(LLMProvider):
            name = "acme"

            async def generate(self, request):
                yield StreamEvent.token("x")
    """
    install("acme", {"llm_providers": {"acme": "acme_plugin:AcmeProvider"}}, {"acme_plugin": source})
    code = """
        from src.providers.acme_provider import AcmeProvider
        from src.providers import create_llm_provider
        print(type(create_llm_provider("acme", "m")) is AcmeProvider)
        try:
            import src.providers.nobody_provider
        except ImportError as error:
            print("nobody" in str(error))
    """
    assert python(code, path=[ROOT, site]).stdout == "True\nTrue\n"


def test_importing_the_alias_is_light(python: Any) -> None:
    code = """
        import sys, src.providers
        heavy = ("pluggy", "pydantic", "asyncio", "importlib.metadata")
        print([name for name in heavy if name in sys.modules])
    """
    assert python(code, "-S", path=[ROOT]).stdout == "[]\n"
