"""The user's way to a package index: the credentials, certificates and proxy that pip is told to use, for httpx.

Nothing of it is ever logged or put into an error: credentials are among it.
"""

from __future__ import annotations

import ast
import netrc
import os
import ssl
import subprocess
import sys
from collections.abc import Mapping
from urllib.parse import SplitResult, unquote, urlsplit

import httpx

_INDEXES = ("index-url", "extra-index-url", "find-links")
# Where pip looks for an option, the strongest first.
_SECTIONS = (":env:", "install", "global")
_TIMEOUT = httpx.Timeout(60.0, connect=20.0)
_PORTS = {"http": 80, "https": 443}


def client_for(url: str) -> httpx.Client:
    """An HTTP client that may ask for `url` as pip would, redirects included.

    Proxies of the environment are honoured. A keyring is not asked: what it guards answers 401. Raises OSError or
    ValueError when the settings name files or addresses that are of no use, ImportError for a proxy of a kind that
    needs another library.
    """
    settings = pip_settings()
    address = urlsplit(url)
    return httpx.Client(
        auth=_index_login(settings, address) or _netrc_login(address),
        verify=_tls(settings),
        proxy=_option(settings, "proxy"),
        follow_redirects=True,
        timeout=_TIMEOUT,
        headers={"Accept-Encoding": "identity"},
    )


def pip_settings() -> dict[str, str]:
    """pip's configuration by section and option, `global.cert` for one; that of the environment is in `:env:`."""
    command = [sys.executable, "-m", "pip", "config", "list", "--disable-pip-version-check"]
    listed = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)  # noqa: S603
    found = {}
    for line in listed.stdout.splitlines():
        name, _, value = line.partition("=")
        try:
            found[name] = str(ast.literal_eval(value))
        except (ValueError, SyntaxError):
            continue
    return found


def _option(settings: Mapping[str, str], name: str) -> str | None:
    return next((value for section in _SECTIONS if (value := settings.get(f"{section}.{name}"))), None)


def _index_login(settings: Mapping[str, str], address: SplitResult) -> tuple[str, str] | None:
    """User and password that the URL of an index on the same server carries."""
    urls = [url for section in _SECTIONS for name in _INDEXES for url in settings.get(f"{section}.{name}", "").split()]
    for index in map(urlsplit, urls):
        if index.username is not None and _server(index) == _server(address):
            return unquote(index.username), unquote(index.password or "")
    return None


def _netrc_login(address: SplitResult) -> tuple[str, str] | None:
    try:
        found = netrc.netrc(os.environ.get("NETRC")).authenticators(address.hostname or "")
    except (OSError, netrc.NetrcParseError):
        return None
    return (found[0] or found[1] or "", found[2] or "") if found else None


def _server(url: SplitResult) -> tuple[str, str | None, int | None]:
    return url.scheme, url.hostname, url.port or _PORTS.get(url.scheme)


def _tls(settings: Mapping[str, str]) -> ssl.SSLContext:
    """The authorities that pip trusts: those it is told, or else the system's and certifi's."""
    told = _option(settings, "cert") or os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")
    if told:
        is_folder = os.path.isdir(told)
        context = ssl.create_default_context(cafile=None if is_folder else told, capath=told if is_folder else None)
    else:
        context = httpx.create_ssl_context()
        context.load_default_certs()
    if own := _option(settings, "client-cert"):
        context.load_cert_chain(own)
    return context
