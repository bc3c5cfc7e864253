"""Proxies of the environment: which one is in the way, and none within this machine."""

from __future__ import annotations

import pytest

from fedrag.service.environment import proxy_in_the_way, this_machine_spared


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.parametrize("variable", ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"])
def test_the_proxy_is_named_by_its_variable_and_without_a_password(variable: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(variable, "http://someone:secret@proxy.example.org:3128")
    found = proxy_in_the_way("[2001:db8::7]:8443")
    assert str(found) == f"http://proxy.example.org:3128 ({variable} in the environment)"
    assert found is not None
    assert found.way_out == "to connect without this proxy, set no_proxy=2001:db8::7"


def test_what_is_meant_for_other_connections_is_not_in_the_way(monkeypatch: pytest.MonkeyPatch):
    assert proxy_in_the_way("rag.example.org:8443") is None
    monkeypatch.setenv("http_proxy", "http://proxy.example.org:3128")
    assert proxy_in_the_way("rag.example.org:8443") is None
    monkeypatch.setenv("https_proxy", "http://proxy.example.org:3128")
    monkeypatch.setenv("no_proxy", "localhost,.example.org")
    assert proxy_in_the_way("rag.example.org:8443") is None


def test_this_machine_is_spared_next_to_what_is_spared_already_as_long_as_the_command_runs():
    environment = {"no_proxy": "example.org, 127.0.0.1", "NO_PROXY": "example.com"}
    before = dict(environment)
    with this_machine_spared(environment), this_machine_spared(environment):
        assert environment["no_proxy"] == "example.org,127.0.0.1,example.com,localhost,::1"
        assert environment["NO_PROXY"] == environment["no_proxy"]
    assert environment == before
    nothing: dict[str, str] = {}
    with this_machine_spared(nothing):
        assert nothing["no_proxy"] == "127.0.0.1,localhost,::1"
    assert nothing == {}
