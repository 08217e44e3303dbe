"""Settings of the service."""

import ipaddress

import pytest

from visavis.deploy.server.roles import tokens_from_environment
from visavis.deploy.server.settings import ServiceSettings, check_address
from visavis.errors import DataError


def test_only_this_machine_without_a_token(monkeypatch):
    for host in ("127.0.0.1", "::1", "localhost", "127.8.8.8"):
        check_address(host, ServiceSettings())
    for host in ("0.0.0.0", "::", "192.168.1.4", "example.org", ""):
        with pytest.raises(DataError, match="no token is set"):
            check_address(host, ServiceSettings())
        check_address(host, ServiceSettings(tokens={"w" * 24: "write"}))
    monkeypatch.setenv("VISAVIS_TOKEN", "short")
    with pytest.raises(DataError, match="16 characters"):
        tokens_from_environment()
    monkeypatch.setenv("VISAVIS_TOKEN", "w" * 24)
    monkeypatch.setenv("VISAVIS_READ_TOKEN", "r" * 24 + ", " + "s" * 24)
    assert tokens_from_environment() == {"w" * 24: "write", "r" * 24: "read", "s" * 24: "read"}


def test_a_token_file_opens_other_addresses(tmp_path):
    check_address("0.0.0.0", ServiceSettings(token_file=tmp_path / "tokens"))


TOKENS = {"w" * 24: "write"}


def test_a_proxy_wants_a_token():
    for settings in (
        ServiceSettings(trusted_proxies=(ipaddress.ip_network("127.0.0.1"),)),
        ServiceSettings(origins=("https://faces.example.org",)),
    ):
        with pytest.raises(DataError, match="no token is set"):
            check_address("127.0.0.1", settings)
    check_address("127.0.0.1", ServiceSettings(tokens=TOKENS, origins=("https://faces.example.org",)))
