"""Names to classes: those of this process, then those of plugins."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest

from providers import (
    Embeddings,
    LLMProvider,
    LLMProviderConfigurationError,
    PluginError,
    Request,
    StreamEvent,
    UnknownProviderError,
    available_providers,
    create_llm_provider,
    register_provider,
    unregister_provider,
)
from providers.registry import provider_class
from providers.testing import EchoProvider

pytestmark = pytest.mark.usefixtures("house")


def make(name: str = "") -> type[LLMProvider]:
    class Made(LLMProvider):
        async def generate(self, request: Request) -> AsyncIterator[StreamEvent]:
            yield StreamEvent.token("x")

    Made.__qualname__ = Made.__name__ = name or "Made"
    return Made


def test_a_class_of_this_process_is_available_by_name() -> None:
    """F-137."""
    cls = make()
    register_provider("Custom", cls)
    provider = create_llm_provider(provider_type="custom", model_name="custom-model-v1")
    assert type(provider) is cls
    assert (provider.name, provider.config.model_name) == ("custom", "custom-model-v1")
    assert provider_class("CUSTOM ") is cls
    info = available_providers(check=False)["custom"]
    assert (info.state, info.reason) == ("registered", None)


def test_a_subclass_of_a_named_provider_has_the_name_that_it_is_registered_under() -> None:
    """Bad input 17: a user can tell which one answered."""

    class Louder(EchoProvider):
        pass

    register_provider("louder", Louder)
    assert create_llm_provider("louder").name == "louder"
    assert EchoProvider.name == "echo"


def test_an_unknown_name_lists_what_there_is_and_what_to_install() -> None:
    """F-004, bad input 8."""
    register_provider("custom", make())
    with pytest.raises(UnknownProviderError, match=r"'custm'.*custom.*did you mean 'custom'") as caught:
        create_llm_provider("custm")
    assert isinstance(caught.value, ValueError)
    with pytest.raises(UnknownProviderError, match=r"llm-provider-zzz"):
        create_llm_provider("zzz")
    for bad in ("", " ", "a b", 5, ["custom"]):
        with pytest.raises(UnknownProviderError, match="custom"):
            create_llm_provider(bad)  # type: ignore[arg-type]


def test_a_name_that_is_taken_is_refused_unless_replaced() -> None:
    """Bad input 16, 21."""
    first, second = make("First"), make("Second")
    register_provider("custom", first)
    with pytest.raises(LLMProviderConfigurationError, match=r"First.*replace=True"):
        register_provider("CUSTOM", second)
    assert provider_class("custom") is first
    register_provider("custom", second, replace=True)
    assert provider_class("custom") is second


def test_a_cell_that_is_run_twice_needs_no_permission() -> None:
    for _ in range(2):
        cls = make("Same")
        register_provider("custom", cls)
        assert provider_class("custom") is cls


@pytest.mark.parametrize("cls", [int, "x", None, LLMProvider, object()], ids=str)
def test_what_is_no_provider(cls: Any) -> None:
    """Bad input 18: told when it is registered, not in the middle of a call."""
    with pytest.raises(PluginError):
        register_provider("custom", cls)
    with pytest.raises(UnknownProviderError):
        provider_class("custom")


def test_a_generate_that_cannot_be_iterated_is_told_at_once() -> None:
    """Bad input 18."""

    class Returns(LLMProvider):
        async def generate(self, request: Request) -> Any:
            return "x"

    class Plain(LLMProvider):
        generate = 5  # type: ignore[assignment]

    for cls in (Returns, Plain):
        with pytest.raises(PluginError, match=r"generate.*yield"):
            register_provider("custom", cls)


def test_a_power_without_its_method_is_told_at_once() -> None:
    """Bad input 18: not `TypeError` in the middle of a call."""

    class Hollow(Embeddings, EchoProvider):
        name = "hollow"

    with pytest.raises(PluginError, match=r"Hollow.*create_embeddings"):
        register_provider("hollow", Hollow)


def test_taking_back() -> None:
    register_provider("custom", make())
    provider_class("custom")
    unregister_provider(" Custom ")
    with pytest.raises(UnknownProviderError):
        provider_class("custom")
    unregister_provider("custom")


def test_registering_while_others_look_is_safe() -> None:
    """Bad input 21: no "dictionary changed size during iteration"."""
    stop = threading.Event()
    problems: list[BaseException] = []

    def look() -> None:
        try:
            while not stop.is_set():
                available_providers(check=False)
        except BaseException as error:
            problems.append(error)

    def change(number: int) -> None:
        try:
            for turn in range(100):
                register_provider(f"p{number}-{turn}", make())
                assert provider_class(f"p{number}-{turn}")
                unregister_provider(f"p{number}-{turn}")
        except BaseException as error:
            problems.append(error)

    lookers = [threading.Thread(target=look) for _ in range(2)]
    changers = [threading.Thread(target=change, args=(number,)) for number in range(4)]
    for thread in [*lookers, *changers]:
        thread.start()
    for thread in changers:
        thread.join()
    stop.set()
    for thread in lookers:
        thread.join()
    assert problems == []


def test_a_plugin_may_register_while_another_thread_does(python: Any, install: Any, site: Any) -> None:
    """Two locks, taken in two orders, must not wait for each other for ever."""
    source = """
        import time
        from providers import LLMProvider, StreamEvent, hookimpl, register_provider

        class P(LLMProvider):
            name = "acme"
            async def generate(self, request):
                yield StreamEvent.token("x")

        time.sleep(0.5)
        register_provider("extra", P)

        @hookimpl
        def llm_providers():
            return {"acme": P}
    """
    install("acme", {"llm_providers": {"acme": "acme_plugin"}}, {"acme_plugin": source})
    code = """
        import threading, time
        from providers import LLMProvider, create_llm_provider, register_provider
        from providers.testing import EchoProvider
        first = threading.Thread(target=create_llm_provider, args=("acme", "m"), daemon=True)
        first.start()
        time.sleep(0.2)
        second = threading.Thread(target=register_provider, args=("mine", EchoProvider), daemon=True)
        second.start()
        first.join(5); second.join(5)
        print(first.is_alive(), second.is_alive())
    """
    from pathlib import Path

    src = Path(__file__).resolve().parents[2] / "src"
    assert python(code, path=[src, site]).stdout == "False False\n"


def test_a_plain_generator_is_told_at_once() -> None:
    """Bad input 18: not "requires an object with __aiter__" in the middle of a call."""

    class Forgot(LLMProvider):
        def generate(self, request: Request) -> Any:
            yield StreamEvent.token("x")

    with pytest.raises(PluginError, match=r"generate.*async function with yield.*plain generator: write `async def`"):
        register_provider("custom", Forgot)


def test_a_class_that_is_replaced_while_it_is_looked_up_does_not_come_back() -> None:
    """Bad input 21."""
    first, second = make("First"), make("Second")

    class Meddling(tuple[str, ...]):
        """Packages whose names are read in the very middle of a look-up."""

        def __iter__(self) -> Any:
            register_provider("custom", second, replace=True)
            return super().__iter__()

    first.requires = Meddling()
    register_provider("custom", first)
    assert provider_class("custom") is first
    assert provider_class("custom") is second
