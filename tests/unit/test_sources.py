"""The files of settings: read when they changed, never imported, bad ones told once and by line."""

from __future__ import annotations

import os
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest

from providers import ConfigurationWarning, LLMProviderConfigurationError
from providers.sources import forget_files, house_variable, read_dotenv, read_toml

pytestmark = pytest.mark.usefixtures("house")


MODEL = "default_model_name"


def values() -> dict[str, str]:
    return {key: found.value for key, found in read_dotenv().items()}


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"A=1\nB=two words\n", {"A": "1", "B": "two words"}),
        (b"A=1\r\nB=2\r\n", {"A": "1", "B": "2"}),
        (b"\xef\xbb\xbfA=1\n", {"A": "1"}),
        (b"export A=1\n", {"A": "1"}),
        (b"A='x # y' # comment\n# B=1\n\n", {"A": "x # y"}),
        (b'A="line\\nbreak"\n', {"A": "line\nbreak"}),
        (b"A=\n", {"A": ""}),
        (b"A=1\nA=2\n", {"A": "2"}),
        ("A=ü🦆\n".encode(), {"A": "ü🦆"}),
        (b"A=1", {"A": "1"}),
        (b"", {}),
    ],
    ids=str,
)
def test_good_files(house: Path, raw: bytes, expected: dict[str, str]) -> None:
    """F-142, bad input 10."""
    (house / ".env").write_bytes(raw)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert values() == expected


@pytest.mark.parametrize(
    ("raw", "line", "expected"),
    [
        (b"A=1\nnonsense\nB=2\n", 2, {"A": "1", "B": "2"}),
        (b"A=1\nB='unclosed\nC=3\n", 2, {"A": "1"}),
        (b"A=1\nB=caf\xe9\nC=3\n", 2, {"A": "1", "C": "3"}),
        (b"= value\nA=1\n", 1, {"A": "1"}),
        (b"A=1\n\n\n???\n", 4, {"A": "1"}),
    ],
    ids=["no =", "unclosed quote", "Latin-1", "no name", "line counted"],
)
def test_bad_lines_are_told_in_one_warning_with_file_and_line(
    house: Path, raw: bytes, line: int, expected: dict[str, str]
) -> None:
    """Bad input 10."""
    (house / ".env").write_bytes(raw)
    with pytest.warns(ConfigurationWarning, match=rf"\.env: line .*\b{line}\b") as caught:
        found = values()
    assert len(caught) == 1
    assert {key: found.get(key) for key in expected} == expected
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert values() == found


def test_the_warning_does_not_show_the_line(house: Path) -> None:
    """Users: keys in logs."""
    (house / ".env").write_text("sk-canary-1234\nX='sk-canary\n", encoding="utf-8")
    with pytest.warns(ConfigurationWarning) as caught:
        read_dotenv()
    assert "canary" not in str(caught[0].message)


def test_a_file_of_ten_megabytes_is_passed_over_quickly(house: Path) -> None:
    """Bad input 10."""
    with open(house / ".env", "wb") as file:
        file.truncate(10_000_000)
    with pytest.warns(ConfigurationWarning, match="larger"):
        assert values() == {}


def test_a_folder_of_that_name(house: Path) -> None:
    """Bad input 10."""
    (house / ".env").mkdir()
    with pytest.warns(ConfigurationWarning, match=r"\.env"):
        assert values() == {}


def test_a_file_that_may_not_be_read(house: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bad input 10. Root may read everything, so the refusal is made."""
    path = house / ".env"
    path.write_text("A=1", encoding="utf-8")
    real = Path.read_bytes

    def refuse(self: Path) -> bytes:
        if self.name == ".env":
            raise PermissionError(13, "Permission denied", str(self))
        return real(self)

    path.chmod(0)
    if os.access(path, os.R_OK):
        monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.warns(ConfigurationWarning, match="Permission"):
        assert values() == {}


def test_no_file_at_all() -> None:
    found = read_dotenv()
    assert found == {}
    assert found.searched.endswith(".env")


def test_parent_folders_are_not_searched(house: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bad input 11; users: a `.env` from a parent folder."""
    (house / ".env").write_text("A=1", encoding="utf-8")
    (house / "below").mkdir()
    monkeypatch.chdir(house / "below")
    assert values() == {}


def test_a_working_directory_that_is_gone(house: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bad input 11."""
    gone = house / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    shutil.rmtree(gone)
    assert values() == {}
    assert read_toml().data == {}


def test_a_change_of_the_file_is_seen_and_an_unchanged_one_is_not_read_again(house: Path) -> None:
    path = house / ".env"
    path.write_text("A=1", encoding="utf-8")
    first = read_dotenv()
    assert read_dotenv() is first
    path.write_text("A=22", encoding="utf-8")
    assert values() == {"A": "22"}
    path.unlink()
    assert values() == {}


def test_another_file_and_none(house: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """C-22."""
    (house / ".env").write_text("A=1", encoding="utf-8")
    (house / "other.env").write_text("A=2", encoding="utf-8")
    monkeypatch.setenv("LLM_PROVIDERS_ENV_FILE", "other.env")
    assert values() == {"A": "2"}
    for word in ("1", "yes", " true "):
        monkeypatch.setenv("LLM_PROVIDERS_NO_DOTENV", word)
        assert values() == {}
    for word in ("0", "", " "):
        monkeypatch.setenv("LLM_PROVIDERS_NO_DOTENV", word)
        assert values() == {"A": "2"}
    monkeypatch.setenv("LLM_PROVIDERS_ENV_FILE", "missing.env")
    with pytest.raises(LLMProviderConfigurationError, match=r"LLM_PROVIDERS_ENV_FILE names .*missing\.env"):
        read_dotenv()


def test_it_never_changes_the_environment(house: Path, python: Any) -> None:
    """C-22; users: `.env` loaded on import. In a fresh interpreter, where nothing has read it yet."""
    (house / ".env").write_text("A_NEW_NAME=1\nPATH=/nowhere\n", encoding="utf-8")
    code = """
        import os
        before = dict(os.environ)
        from providers.sources import read_dotenv, read_toml
        print(read_dotenv()["A_NEW_NAME"].value, read_toml().data, dict(os.environ) == before)
    """
    assert python(code, cwd=house).stdout == "1 {} True\n"


def test_a_value_may_refer_to_another(house: Path) -> None:
    (house / ".env").write_text("A=x\nB=${A}y\n", encoding="utf-8")
    assert values()["B"] == "xy"


# --- toml


def toml(house: Path, text: str | bytes, name: str = "config/providers.toml") -> Path:
    path = house / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_a_table_tells_where_its_values_come_from(house: Path) -> None:
    path = toml(house, "[providers.acme]\nurl = 'x'\n")
    assert read_toml().table("providers", "acme")["url"].source == f"[providers.acme] of {path}, line 2"
    assert read_toml().table("providers", "other") == {}
    assert read_toml().names("providers") == ["acme"]
    assert read_toml().names("presets") == []


@pytest.mark.parametrize("raw", [b"\xef\xbb\xbf[settings]\n%b = 1\n", b"[settings]\r\n%b = 1\r\n"], ids=["BOM", "CRLF"])
def test_marks_of_other_editors(house: Path, raw: bytes) -> None:
    """Bad input 10."""
    path = toml(house, raw % MODEL.encode())
    found = house_variable(MODEL)
    assert found is not None
    assert (found.value, found.source) == (1, f"[settings] of {path}, line 2")


@pytest.mark.parametrize("raw", [b"[a]\nb = \n", b"[a\n", b"a = 1\na = 2\n"], ids=str)
def test_what_is_no_toml_names_file_and_line(house: Path, raw: bytes) -> None:
    path = toml(house, raw)
    for _ in range(2):
        with pytest.raises(LLMProviderConfigurationError, match=rf"{path}.*line \d"):
            read_toml()


def test_odd_bytes_and_odd_things(house: Path) -> None:
    path = toml(house, b"a = 'caf\xe9'\n")
    with pytest.raises(LLMProviderConfigurationError, match=str(path)):
        read_toml()
    path.unlink()
    path.mkdir()
    with pytest.raises(LLMProviderConfigurationError, match=str(path)):
        read_toml()


@pytest.mark.parametrize("text", ["providers = 5", "[providers]\nacme = 5", "providers = ['acme']"])
def test_what_is_no_table_is_named(house: Path, text: str) -> None:
    toml(house, text)
    with pytest.raises(LLMProviderConfigurationError, match="must be a table"):
        read_toml().table("providers", "acme")


def test_two_places_and_a_named_one(house: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toml(house, f"[settings]\n{MODEL} = 'near'\n", "providers.toml")
    assert _setting() == "near"
    toml(house, f"[settings]\n{MODEL} = 'config'\n")
    assert _setting() == "config"
    toml(house, f"[settings]\n{MODEL} = 'named'\n", "named.toml")
    monkeypatch.setenv("LLM_PROVIDERS_CONFIG", "named.toml")
    assert _setting() == "named"
    monkeypatch.setenv("LLM_PROVIDERS_CONFIG", "missing.toml")
    with pytest.raises(LLMProviderConfigurationError, match=r"LLM_PROVIDERS_CONFIG names .*missing\.toml"):
        read_toml()


def _setting() -> Any:
    found = house_variable(MODEL)
    return found and found.value


def test_forgetting_reads_anew(house: Path) -> None:
    path = toml(house, f"[settings]\n{MODEL} = 1\n")
    first = read_toml()
    assert read_toml() is first
    forget_files()
    assert read_toml() is not first
    stat = path.stat()
    path.write_text(f"[settings]\n{MODEL} = 2\n", encoding="utf-8")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert _setting() == 2
