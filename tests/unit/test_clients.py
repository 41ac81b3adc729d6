"""The sync face: functions and a client over real providers of this process."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from providers import (
    Client,
    GenerationConfig,
    LLMConfig,
    LLMProvider,
    LLMProviderAuthenticationError,
    LLMProviderConfigurationError,
    LLMResponse,
    MissingDependencyError,
    ProviderClosedError,
    StructuredOutput,
    UnknownProviderError,
    client,
    create_batch,
    get_response,
    register_provider,
)
from providers.testing import EchoProvider, ScriptedProvider

from .keyed import City, Keyed

pytestmark = pytest.mark.usefixtures("house", "keyed")


# --- one answer


def test_a_text_or_the_parsed_object() -> None:
    """F-001."""
    assert get_response("keyed", "m", "Paris") == "Paris"
    assert get_response(provider="keyed", model="m", input="Paris", config=None, schema=None) == "Paris"
    assert get_response("keyed", "m", "Paris", None, StructuredOutput(pydantic_model=City)) == City(name="Paris")
    assert get_response("keyed", "m", "Paris", schema=City) == City(name="Paris")
    schema = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
    assert get_response("keyed", "m", "Paris", schema=schema) == {"name": "Paris"}
    assert get_response("keyed", "m", [{"role": "user", "content": "Rome"}]) == "Rome"


def test_the_client() -> None:
    """F-003, F-025: positional too."""
    for made in (client("keyed", "m"), client(provider="keyed", model="m", temperature=0.0), Client("keyed", "m")):
        with made:
            assert isinstance(made, Client)
            assert made.get_response("Paris") == "Paris"
            assert made.get_response("Paris", {"seed": 0}, City) == City(name="Paris")
            assert made.get_response(input="Paris", config=None, schema=City) == City(name="Paris")
            assert made.submit_batch(["a"]).results() == ["a"]


@pytest.mark.parametrize(
    "config",
    [
        {"temperature": 0.0, "top_k": 5, "extra": {"system": "be kind"}},
        GenerationConfig(temperature=0.0, extra={"system": "be kind", "top_k": 5}),
    ],
    ids=["dict", "class"],
)
def test_a_config_in_both_forms(config: Any) -> None:
    """F-006, F-007, F-008, F-043."""
    get_response("keyed", "m", "hi", config)
    [request] = Keyed.seen
    assert (request.params["temperature"], request.system, dict(request.extras)) == (0.0, "be kind", {"top_k": 5})
    assert "seed" not in request.params
    with pytest.raises(TypeError, match="GenerationConfig"):
        get_response("keyed", "m", "hi", "hot")
    with pytest.raises(LLMProviderConfigurationError, match="temperature"):
        get_response("keyed", "m", "hi", {"temperature": "hot"})


def test_an_unknown_provider_and_a_missing_package() -> None:
    """F-004, F-018."""
    with pytest.raises(ValueError, match=r"'nobody'.*keyed") as caught:
        get_response("nobody", "m", "hi")
    assert isinstance(caught.value, UnknownProviderError)
    with pytest.raises(UnknownProviderError):
        client("nobody", "m")

    class Missing(EchoProvider):
        name = "missing"

        def open(self) -> None:
            raise MissingDependencyError("pip install 'x[missing]'")

    register_provider("missing", Missing)
    with pytest.raises(ImportError, match="pip install"):
        get_response("missing", "m", "hi")


def test_options_reach_the_provider_and_are_checked() -> None:
    """F-021, F-044."""
    assert client("keyed", "m", max_tokens=5, timeout=None).provider.config.max_tokens == 5
    with pytest.raises(TypeError, match="tiemout"):
        get_response("keyed", "m", "hi", tiemout=5)
    with pytest.raises(TypeError, match="tiemout"):
        client("keyed", "m", tiemout=5)


def test_a_client_over_a_provider_takes_no_further_options() -> None:
    """Bad input 7: nothing is dropped silently."""
    provider = EchoProvider()
    assert Client(provider).get_response("hi") == "hi"
    with pytest.raises(TypeError):
        Client(provider, "other-model")
    with pytest.raises(TypeError):
        Client(provider, temperature=0.5)


def test_errors_are_raised_with_their_class() -> None:
    with pytest.raises(LLMProviderAuthenticationError, match="no fail"):
        get_response("keyed", "m", "fail")
    with pytest.raises(LLMProviderConfigurationError, match="empty"):
        get_response("keyed", "m", "")


def test_functions_share_one_provider_from_call_to_call() -> None:
    made = []

    class Counted(EchoProvider):
        name = "counted"

        def __init__(self, *args: Any, **options: Any) -> None:
            made.append(self)
            super().__init__(*args, **options)

    register_provider("counted", Counted)
    for _ in range(3):
        get_response("counted", "m", "hi")
    create_batch(["a"], "counted", "m")
    assert len(made) == 1


def test_a_provider_in_the_founding_documents_style_serves_too() -> None:
    """F-136: `execute(self, prompt, **kwargs)` and no `generate`."""

    class Custom(LLMProvider):
        def __init__(self, config: LLMConfig, api_key: str | None = None, **kwargs: Any) -> None:
            super().__init__(config)

        async def execute(self, prompt: str, **kwargs: Any) -> Any:  # type: ignore[override]
            return LLMResponse(f"custom {prompt}")

    class Odd(Custom):
        async def execute(self, prompt: str, **kwargs: Any) -> Any:  # type: ignore[override]
            return f"odd {prompt}"

    register_provider("custom", Custom)
    register_provider("odd", Odd)
    assert get_response("custom", "m", "hi") == "custom hi"
    with pytest.raises(Exception, match=r"LLMResponse.*str|str.*LLMResponse") as caught:
        get_response("odd", "m", "hi")
    assert not isinstance(caught.value, AssertionError)


def test_a_configuration_that_streams_does_not_change_the_functions() -> None:
    assert client("keyed", "m", stream_mode="enabled").get_response("hi") == "hi"


# --- from everywhere


async def test_inside_a_running_loop() -> None:
    """Bad input 58."""
    assert get_response("keyed", "m", "hi") == "hi"
    assert client("keyed", "m").submit_batch(["a", "b"]).results() == ["a", "b"]


def test_from_eight_threads() -> None:
    """Bad input 57."""
    answers: dict[int, str] = {}
    threads = [
        threading.Thread(target=lambda n=number: answers.__setitem__(n, get_response("keyed", "m", f"q{n}")))
        for number in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {number: f"q{number}" for number in range(8)}


def test_one_provider_in_every_way(python: Any) -> None:
    """The issue's list: a plain script, inside a loop, eight threads, two `asyncio.run`s, a forked child."""
    code = """
        import asyncio, os, threading
        from providers import Client
        from providers.testing import EchoProvider
        provider = EchoProvider()
        client = Client(provider)
        said = [client.get_response("1")]
        async def inside(): return client.get_response("2")
        said.append(asyncio.run(inside()))
        threads = [threading.Thread(target=lambda: said.append(client.get_response("3"))) for _ in range(8)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        for _ in range(2):
            said.append(asyncio.run(provider.execute("4")).content)
        child = os.fork()
        if child == 0:
            os._exit(0 if client.get_response("5") == "5" else 1)
        print(said, os.waitpid(child, 0)[1])
    """
    assert python(code).stdout == f"{['1', '2', *['3'] * 8, '4', '4']} 0\n"


def test_a_stream_of_events_and_leaving_it() -> None:
    provider = ScriptedProvider(lambda _: "one two three")
    made = Client(provider)
    events = list(made.stream("hi", {"temperature": 0.0}))
    assert [event.type.value for event in events] == ["token", "token", "token", "usage", "meta", "done"]
    assert provider.requests[0].params["temperature"] == 0.0
    for _ in made.stream("hi"):
        break
    for _ in range(100):
        if not provider.calls_under_way:
            break
        time.sleep(0.01)
    assert provider.calls_under_way == 0


def test_closing() -> None:
    """Bad input 59."""
    made = client("keyed", "m")
    made.close()
    made.close()
    with pytest.raises(ProviderClosedError):
        made.get_response("hi")
    assert repr(made) == "<Client <Keyed keyed/m>>"
