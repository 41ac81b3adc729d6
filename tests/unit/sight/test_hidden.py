"""What sight hides beside texts of errors: what users put into requests, other spellings, and its own complaints."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from providers import LLMProviderServerError, StreamEvent, Usage
from providers.layers import retry
from providers.layers.pricing import priced
from providers.routing import FallbackProvider
from providers.sight.secrets import masked, protect
from providers.testing import ScriptedProvider

CANARY = "canary-key-0123456789"


class Owner:
    """Something that uses secrets."""


@pytest.fixture
def owner() -> Owner:
    found = Owner()
    protect(found, [CANARY])
    return found


async def test_stop_strings_and_ids_of_earlier_answers_show_no_secret(sight: Any, owner: Owner) -> None:
    """F-144: whatever a caller puts a key into, it is in no span."""
    provider = sight.provider("one", "two", "three")
    await provider.execute("x", stop=[f"end {CANARY}", "plain"])
    await provider.execute("x", stop=f"end {CANARY}")
    await provider.execute_responses_api("x", previous_response_id=f"resp-{CANARY}")
    first, second, third = (dict(span.attributes) for span in sight.spans())
    assert first["gen_ai.request.stop_sequences"] == ("end ***", "plain")
    assert second["gen_ai.request.stop_sequences"] == ("end ***",)
    assert third["gen_ai.request.previous_response.id"] == "resp-***"
    assert not any(CANARY in span.to_json() for span in sight.spans())


async def test_targets_that_failed_are_told_without_a_secret(sight: Any, owner: Owner) -> None:
    """F-144: a target's label may be an address with a key in it; it stands in the events of the call's span."""
    targets = [ScriptedProvider([LLMProviderServerError("down", status_code=503)], "a"), ScriptedProvider(["ok"], "b")]
    labels = [f"a?key={CANARY}", "b"]
    fallback = FallbackProvider(targets, labels=labels, layers=(sight.observe(), retry))
    assert (await fallback.execute("x")).content == "ok"
    span = sight.span()
    [event] = span.events
    assert event.name == "llm_provider.attempt.failed"
    assert dict(event.attributes) == {
        "error.type": "LLMProviderServerError",
        "http.response.status_code": 503,
        "llm_provider.target": "a?key=***",
    }
    assert CANARY not in span.to_json()


async def test_what_breaks_in_sight_itself_is_logged_without_a_secret(
    sight: Any, owner: Owner, caplog: pytest.LogCaptureFixture
) -> None:
    """F-144: an exporter's error may quote its own address, with the key that it signs in with."""

    class Broken:
        def begin(self, record: Any) -> None:
            raise OSError(f"no answer from https://collector/?token={CANARY}")

        def end(self, record: Any) -> None:
            """Nothing."""

    caplog.set_level(logging.DEBUG)
    layers = (sight.observe(prometheus=Broken()), priced, retry)
    await ScriptedProvider(["ok"], "m", layers=layers).execute("x")
    [told] = [record.getMessage() for record in caplog.records if record.name == "providers.sight"]
    assert "OSError: no answer from https://collector/?token=***" in told
    assert not any(CANARY in record.getMessage() for record in caplog.records)


def test_a_secret_is_masked_in_each_of_its_spellings() -> None:
    """As it is set, as an address writes it, as it is sent when an address held it, and as JSON writes it."""
    owner = Owner()
    protect(owner, ["p%40ss%2Fword", 'in"side-key', "a b/c+d-key"])
    assert masked("p%40ss%2Fword and p@ss/word") == "*** and ***"
    assert masked('{"key": "in\\"side-key"}') == '{"key": "***"}'
    assert masked("?key=a%20b%2Fc%2Bd-key") == "?key=***"


@pytest.mark.parametrize(
    ("name", "unit"),
    [
        ("gen_ai.client.operation.duration", "s"),
        ("gen_ai.client.operation.time_to_first_chunk", "s"),
        ("gen_ai.client.token.usage", "{token}"),
        ("llm_provider.client.cost", "{USD}"),
    ],
)
async def test_metrics_have_the_conventional_units(sight: Any, name: str, unit: str) -> None:
    """Dashboards find a metric by its name and its unit; source: as in `providers.sight.meters`."""
    used = StreamEvent.usage(Usage(3, 1, total_cost=0.5))
    provider = sight.provider([StreamEvent.token("ok"), used, StreamEvent.finish("stop")])
    async for _ in provider.stream("x"):
        pass
    data = sight.reader.get_metrics_data()
    found = {
        metric.name: metric.unit
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }
    assert found[name] == unit
