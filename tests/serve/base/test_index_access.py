"""The way to an index: pip's settings reach our own requests, and credentials go nowhere else."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from tunechat.serve.base.index_access import client_for, pip_settings


@pytest.fixture(autouse=True)
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A pip configuration file that is all pip sees."""
    path = tmp_path / "pip.conf"
    path.write_text("[global]\nindex-url = https://plain.invalid/simple\n")
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_CERT", "PIP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", str(path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("HOME", str(tmp_path))
    return path


def login(url: str) -> str | None:
    """The Authorization header of a request for `url`."""
    with client_for(url) as client:
        if client.auth is None:
            return None
        request = next(client.auth.sync_auth_flow(client.build_request("GET", url)))
        return str(request.headers["authorization"])


def test_settings_of_files_and_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "https://other.invalid/it's=")
    found = pip_settings()
    assert found["global.index-url"] == "https://plain.invalid/simple"
    assert found[":env:.extra-index-url"] == "https://other.invalid/it's="


def test_credentials_of_an_index_go_to_its_server_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "https://a.invalid/simple https://us%40er:pa%3Ass@b.invalid/simple")
    basic = "Basic dXNAZXI6cGE6c3M="
    assert login("https://b.invalid/files/x.whl") == basic
    assert login("https://b.invalid:443/files/x.whl") == basic
    for url in (
        "http://b.invalid/x.whl",
        "https://b.invalid:8443/x.whl",
        "https://a.invalid/x",
        "https://c.b.invalid/",
    ):
        assert login(url) is None


def test_netrc_is_read_where_the_index_says_nothing(tmp_path: Path) -> None:
    assert login("https://a.invalid/x.whl") is None
    (tmp_path / "netrc").write_text("machine a.invalid login user password word\n")
    assert login("https://a.invalid/x.whl") == "Basic dXNlcjp3b3Jk"
    assert login("https://b.invalid/x.whl") is None


def test_a_broken_netrc_is_none(tmp_path: Path) -> None:
    (tmp_path / "netrc").write_text("machine\n")
    assert login("https://a.invalid/x.whl") is None


def test_certificates_that_pip_is_told_are_the_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_CERT", str(tmp_path / "none.pem"))
    with pytest.raises(OSError):
        client_for("https://a.invalid/")
    (tmp_path / "bad.pem").write_text("no certificate")
    monkeypatch.setenv("PIP_CERT", str(tmp_path / "bad.pem"))
    with pytest.raises(ssl.SSLError):
        client_for("https://a.invalid/")


def test_a_proxy_of_an_unknown_kind_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_PROXY", "nonsense://proxy.invalid")
    with pytest.raises(ValueError):
        client_for("https://a.invalid/")
