"""Addresses, headers and proxies are checked before any request (bad input 2, 9)."""

from __future__ import annotations

from typing import Any

import pytest

from providers.exceptions import LLMProviderConfigurationError
from providers.wire import HttpClient
from providers.wire.address import Proxy, check_base_url, find_proxy

CANARY = "sk-canary-0123456789"


def made(base_url: Any, **options: Any) -> HttpClient:
    return HttpClient(base_url, **{"headers": {}, "provider": "test", **options})


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("https://host/v1", "https://host/v1"),
        ("https://host/v1/", "https://host/v1"),
        ("https://host/v1///", "https://host/v1"),
        ("  http://host:8080 \n", "http://host:8080"),
        ("HTTP://Host:80/", "http://Host:80"),
        ("http://[::1]:8000/v1", "http://[::1]:8000/v1"),
        ("http://my_server.local.:1/", "http://my_server.local.:1"),
        ("https://host/v1/v2/v1x", "https://host/v1/v2/v1x"),
        ("https://bücher.example/v1", "https://bücher.example/v1"),
        ("https://host/openai%20x/v1", "https://host/openai%20x/v1"),
    ],
)
def test_good_addresses(given: str, used: str) -> None:
    assert made(given).base_url == used


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("", "blank"),
        ("   ", "blank"),
        (None, "NoneType"),
        (7, "int"),
        ("localhost:8000/v1", "http://"),
        ("host/v1", "http://"),
        ("ftp://host", "http://"),
        ("http:host", "http://"),
        ("http:/host", "http://"),
        ("https://", "no host"),
        ("https:///v1", "no host"),
        ("https://:443/v1", "no host"),
        ("https://host/v1?api-version=1", "query"),
        ("https://host/v1?", "query"),
        ("https://host/v1#x", "fragment"),
        (f"https://user:{CANARY}@host/v1", "password"),
        (f"https://host/v1?key={CANARY}", "query"),
        (f"host/v1?key={CANARY}", "http://"),
        ("https://host/v1/v1", "twice"),
        ("https://host/v1/v1/", "twice"),
        ("https://host/api/v1beta/v1beta/x", "twice"),
        ("https://host//v1", "empty path segment"),
        ("https://ho st/v1", "blank or a control"),
        ("https://host/v1\nX: y", "blank or a control"),
        ("https://host:port/v1", "port"),
        ("https://host:99999/v1", "port"),
        ("https://host:0/v1", "port 0"),
        ("https://[::1/v1", "brackets"),
        ("https://" + "a" * 64 + ".example/v1", "name service"),
        ("https://a..b/v1", "name service"),
        ("https://.a/v1", "name service"),
        ("https://ho%20st/v1", "name service"),
    ],
)
def test_bad_addresses_are_refused_without_network(given: Any, said: str) -> None:
    with pytest.raises(LLMProviderConfigurationError, match=said) as caught:
        made(given)
    assert CANARY not in str(caught.value)
    assert caught.value.provider == "test"
    assert "base_url" in caught.value.message


@pytest.mark.parametrize(
    "value", [f"{CANARY}\n", f"{CANARY}\r\nX: y", f"{CANARY}\0", f"“{CANARY}”", f"{CANARY}…", 7, None, b"x"]
)
def test_a_bad_header_value_is_named_never_shown(value: Any) -> None:
    with pytest.raises(LLMProviderConfigurationError, match="X-Api-Key") as caught:
        made("http://host", headers={"X-Api-Key": value})
    assert CANARY not in str(caught.value)


@pytest.mark.parametrize("name", ["", "a b", "a:", "a\n", "ä", 7])
def test_a_bad_header_name_is_refused(name: Any) -> None:
    with pytest.raises(LLMProviderConfigurationError, match="header name"):
        made("http://host", headers={name: "x"})


def test_a_missing_ca_file_is_refused_at_once(tmp_path: Any) -> None:
    with pytest.raises(LLMProviderConfigurationError, match="does not exist"):
        made("https://host", ca_file=str(tmp_path / "none.pem"))


def test_nothing_shows_the_key() -> None:
    client = made("https://host", headers={"Authorization": f"Bearer {CANARY}"})
    assert CANARY not in repr(client)


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "REQUEST_METHOD"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return monkeypatch


def proxy(base_url: str, explicit: str | None = None) -> Proxy | None:
    return find_proxy(check_base_url(base_url, provider="test"), explicit, provider="test")


def test_proxies_of_the_environment(clean: pytest.MonkeyPatch) -> None:
    assert proxy("https://host/v1") is None
    clean.setenv("HTTPS_PROXY", "http://secure:1")
    clean.setenv("http_proxy", "plain:2")
    assert proxy("https://host/v1") == Proxy("http://secure:1", None, None)
    assert proxy("http://host/v1") == Proxy("http://plain:2", None, None)
    assert proxy("http://host/v1", "http://mine:3") == Proxy("http://mine:3", None, None)
    assert proxy("http://host/v1", "") is None
    clean.setenv("NO_PROXY", "host,.inside.example,other:8443")
    assert proxy("https://host/v1") is None
    assert proxy("https://a.inside.example/v1") is None
    assert proxy("https://other:8443/v1") is None
    assert proxy("https://other/v1") is not None
    clean.setenv("NO_PROXY", "*")
    assert proxy("https://other/v1") is None


def test_all_proxy_is_the_last_resort(clean: pytest.MonkeyPatch) -> None:
    clean.setenv("ALL_PROXY", "http://all:1")
    assert proxy("https://host/v1") == Proxy("http://all:1", None, None)
    clean.setenv("ALL_PROXY", f"socks5://u:{CANARY}@all:1")
    with pytest.raises(LLMProviderConfigurationError, match=r"ALL_PROXY.*socks5") as caught:
        proxy("https://host/v1")
    assert CANARY not in str(caught.value)


def test_the_password_of_a_proxy_is_taken_out_of_its_address(clean: pytest.MonkeyPatch) -> None:
    found = proxy("https://host", "http://user:p%40ss%C3%A9@[::1]:3128")
    assert found == Proxy("http://[::1]:3128", "Basic dXNlcjpwQHNzw6k=", "p@ssé")


@pytest.mark.parametrize("given", ["http://", "http://host:port", "socks5://host:1", "://", f"http://u:{CANARY}@:1"])
def test_bad_proxies_are_refused(given: str) -> None:
    with pytest.raises(LLMProviderConfigurationError, match="proxy has to be an address") as caught:
        proxy("https://host", given)
    assert CANARY not in str(caught.value)
