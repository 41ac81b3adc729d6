"""Names in the toml file that nothing reads are told with file and line, once for each state of the file."""

from __future__ import annotations

import shutil
import tomllib
import warnings
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers import (
    ConfigurationWarning,
    LLMProvider,
    MissingCredentialsError,
    Request,
    StreamEvent,
    create_llm_provider,
    register_provider,
)
from providers.sources import _lines_of, read_toml

from .acme import AcmeSettings

pytestmark = pytest.mark.usefixtures("house", "plain")

ROOT = Path(__file__).resolve().parents[2]


class Plain(LLMProvider):
    Settings = AcmeSettings

    async def generate(self, request: Request) -> AsyncIterator[StreamEvent]:
        yield StreamEvent.token("a")


class PlainAcme(Plain):
    name = "acme"


class PlainOther(Plain):
    name = "other"


@pytest.fixture
def plain(house: Path) -> None:
    register_provider("acme", PlainAcme)
    register_provider("other", PlainOther)


def write(house: Path, text: str) -> Path:
    path = house / "providers.toml"
    path.write_text(text, encoding="utf-8")
    return path


def warned(do: Callable[[], Any]) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        do()
    assert all(item.category is ConfigurationWarning and item.filename == __file__ for item in caught)
    return [str(item.message) for item in caught]


def make() -> None:
    create_llm_provider("acme", "m")


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        (
            "# first\n[setings]\nlimits = 'off'",
            2,
            "[setings] of PATH: nothing reads 'setings'; did you mean 'settings'?",
        ),
        ("[setings.layers]\nlimits = 'off'", 1, "[setings] of PATH: nothing reads 'setings'; did you mean 'settings'?"),
        ("\n[settings.layer]\na = 1", 2, "[settings.layer] of PATH: nothing reads 'layer'; did you mean 'layers'?"),
        ("[preset.fast]\nprovider = 'acme'", 1, "[preset] of PATH: nothing reads 'preset'; did you mean 'presets'?"),
        ("[[preset]]\na = 1", 1, "[preset] of PATH: nothing reads 'preset'; did you mean 'presets'?"),
        ("provider.acme.url = 'x'", 1, "[provider] of PATH: nothing reads 'provider'; did you mean 'providers'?"),
        (
            "[settings]\n\ndefault_modle_name = 'm'",
            3,
            "default_modle_name in [settings] of PATH: nothing reads 'default_modle_name'; "
            "did you mean 'default_model_name'?",
        ),
        (
            "[acme]\nurl = 'x'",
            1,
            "[acme] of PATH: nothing reads 'acme'; the names there are presets, providers, settings",
        ),
        (
            "temperature = 0",
            1,
            "temperature of PATH: nothing reads 'temperature'; the names there are presets, providers, settings",
        ),
        (
            "[settings.layers]\nlimts = 'off'",
            2,
            "[settings.layers] of PATH: this table has no option 'limts'; did you mean 'limits'?",
        ),
        ("[providers.acme]\nulr = 'x'", 2, "[providers.acme] of PATH: acme has no option 'ulr'; did you mean 'url'?"),
        (
            "\n[providers.amce]\nurl = 'x'",
            2,
            "[providers.amce] of PATH: no provider of that name is known so far; did you mean 'acme'?",
        ),
        (
            "[providers.Acme]\nurl = 'x'",
            1,
            "[providers.Acme] of PATH: no provider of that name is known so far; did you mean 'acme'?",
        ),
        ("[providers.faraway]\nurl = 'x'", 1, "[providers.faraway] of PATH: no provider of that name is known so far"),
    ],
    ids=lambda value: value if isinstance(value, str) and "[" in value[:4] else "",
)
def test_a_name_that_nothing_reads_is_told(house: Path, text: str, line: int, said: str) -> None:
    """Users: a misspelt table passed silently."""
    path = write(house, text)
    assert warned(make) == [f"{said.replace('PATH', f'{path}, line {line}')}; it is passed over"]


def test_what_is_wrong_with_the_file_is_told_once_for_each_state_of_it(house: Path) -> None:
    write(house, "[setings]\na = 1\n[providers.faraway]\nurl = 'x'\n")
    assert len(warned(make)) == 2
    assert warned(make) == []
    write(house, "[setings]\na = 11\n[providers.faraway]\nurl = 'xx'\n")
    assert [text[:9] for text in warned(make)] == ["[setings]"]


def test_it_is_told_where_no_provider_could_be_made_too(house: Path) -> None:
    """The misspelt table is why the key is missing."""
    path = write(house, "[providers.opnai]\napi_key = 'k'\n")

    class Needs(Plain):
        name = "openai"

        def open(self) -> None:
            self.require("api_key")

        def __init__(self, config: Any, **options: Any) -> None:
            super().__init__(config, **options)
            self.open()

    register_provider("openai", Needs, replace=True)

    def fails() -> None:
        with pytest.raises(MissingCredentialsError):
            create_llm_provider("openai", "m")

    with pytest.warns(ConfigurationWarning) as caught:
        fails()
    [said] = [str(item.message) for item in caught]
    assert said.startswith(f"[providers.opnai] of {path}, line 1: ")
    assert "did you mean 'openai'?" in said


def test_names_that_are_read_are_not_told(house: Path) -> None:
    write(
        house,
        "[settings]\ndefault_llm_provider = 'acme'\ndefault_model_name = 'm'\n[settings.layers]\nlimits = 'off'\n"
        "[providers.acme]\nurl = 'x'\n[providers.other]\nurl = 'x'\n[providers.fallback]\nlimits = 'off'\n"
        "[providers.not-installed-here]\n# nothing is said\n[presets.any-name]\nprovider = 'acme'\n",
    )
    assert warned(make) == []
    assert warned(lambda: create_llm_provider(preset="any-name")) == []


def test_the_example_of_this_project_has_no_such_name(house: Path) -> None:
    shutil.copy(ROOT / "config" / "providers.toml", house)
    assert warned(make) == []
    text = (house / "providers.toml").read_text(encoding="utf-8")
    write(house, "\n".join(line.removeprefix("# ") if " = " in line else line for line in text.splitlines()))
    assert warned(read_toml) == []


def test_warnings_that_are_errors_stay_errors(house: Path) -> None:
    write(house, "[setings]\na = 1\n")
    for _ in range(2):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(ConfigurationWarning, match="setings"):
                make()


# --- lines


TRICKY = '''\
# [a.b]
top = 1
[settings] # [x]
"quoted.key" = """
[not.a.table]
a = 1 """"
x.y = [ # c ]
  "]", \'\'\'
[
\'\'\', {a="}"},
]
[ presets . "my fast".deep ]
'k' = 'it'
[[list]]
k = 1
[[list]]
k = 2
'''


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_the_lines_of_names(end: str) -> None:
    text = TRICKY.replace("\n", end)
    tomllib.loads(text)
    assert dict(_lines_of(text)) == {
        ("top",): 2,
        ("settings",): 3,
        ("settings", "quoted.key"): 4,
        ("settings", "x"): 7,
        ("settings", "x", "y"): 7,
        ("presets",): 12,
        ("presets", "my fast"): 12,
        ("presets", "my fast", "deep"): 12,
        ("presets", "my fast", "deep", "k"): 13,
        ("list",): 14,
        ("list", "k"): 15,
    }


NAMES = st.sampled_from(["a", "b-1", '"c.d"', "'e\"f'", '"g\\"]="', "7", "_x"])
VALUES = st.sampled_from(
    [
        *("1", "'#'", '"]"', "[1, 2]", "[[1], {a = '['}]", "[\n# ]\n'x',\n]", "1979-05-27 07:32:00", '"\\\\"', "''"),
        *(
            '"""\n[x]\ny = 1\n"""',
            "'''\n\"\"\"\n'''",
            '""""a"""""',
            "{ a = [ '}' ] } # }",
            '"""\\\n  a"""',
            "'''''a'''''",
        ),
    ]
)
KEYS = st.tuples(st.lists(NAMES, min_size=1, max_size=3), VALUES, st.sampled_from(["", "\n", "# [[[ '''\n", "\r\n"]))


@given(st.lists(st.tuples(st.lists(NAMES, max_size=3), st.lists(KEYS, max_size=4)), max_size=5))
def test_the_line_of_any_key_in_any_valid_text(tables: list[Any]) -> None:
    text, places = "", []
    for number, (head, keys) in enumerate(tables):
        text += f"[ t{number}{''.join(f' . {name}' for name in head)} ] # '\n"
        for place, (names, value, between) in enumerate(keys):
            text += between
            places.append(text.count("\n") + 1)
            text += f"  k{place} . {'.'.join(names)} = {value}\n"
    tomllib.loads(text)
    found = dict(_lines_of(text))
    assert sorted({line for path, line in found.items() if any(name.startswith("k") for name in path)}) == places
