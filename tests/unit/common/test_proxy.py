"""Which proxy gRPC takes, by the environment."""

import pytest

from fedstep.common.proxy import Proxy, proxy_to

NAMES = ("grpc_proxy", "https_proxy", "http_proxy", "no_grpc_proxy", "no_proxy")


@pytest.mark.parametrize(
    ("environment", "found"),
    [
        ({}, None),
        ({"https_proxy": "http://gate:3128"}, Proxy("https_proxy", "gate", 3128)),
        ({"http_proxy": "http://gate"}, Proxy("http_proxy", "gate", 80)),
        ({"http_proxy": "http://a:1", "grpc_proxy": "http://b:2"}, Proxy("grpc_proxy", "b", 2)),
        ({"grpc_proxy": "", "https_proxy": "http://gate:3128"}, None),
        ({"https_proxy": "http://ann:a%40b@gate:3128/"}, Proxy("https_proxy", "gate", 3128, "ann:a@b")),
        ({"https_proxy": "https://gate:3128"}, None),
        ({"https_proxy": "gate:3128"}, None),
        ({"https_proxy": "http://gate:many"}, None),
        ({"https_proxy": "http://gate:3128", "no_proxy": "localhost, .clinic.example"}, None),
        ({"https_proxy": "http://gate:3128", "no_proxy": "other.example"}, Proxy("https_proxy", "gate", 3128)),
        (
            {"https_proxy": "http://gate:3128", "no_grpc_proxy": "localhost", "no_proxy": ".clinic.example"},
            Proxy("https_proxy", "gate", 3128),
        ),
    ],
)
def test_the_first_that_is_set_but_not_for_everybody(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], found: Proxy | None
) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert proxy_to("fed.clinic.example") == found


@pytest.mark.parametrize(("host", "through"), [("10.1.2.3", False), ("10.2.2.3", True), ("::1", True)])
def test_a_network_of_addresses_is_gone_to_without(monkeypatch: pytest.MonkeyPatch, host: str, through: bool) -> None:
    monkeypatch.setenv("grpc_proxy", "http://gate:3128")
    monkeypatch.setenv("no_grpc_proxy", "10.1.0.0/16")
    assert (proxy_to(host) is not None) is through
