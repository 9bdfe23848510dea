"""Address checks, time limits and retries of the HTTP client."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import sys
import urllib.error
from collections.abc import Iterator
from email.message import Message

import pytest
from site_server import Answer, Site, site_running

from groundup.corpus.fetching.network import Network, RefusedError, is_public, retry, retry_delay

PUBLIC = Network(public_only=True, timeout=5)


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def site() -> Iterator[Site]:
    with site_running(Site({"/": Answer(b"hello")})) as running:
        yield running


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.8.8.8", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1",
        "224.0.0.1", "255.255.255.255", "::1", "::", "fe80::1%eth0", "fc00::1", "ff02::1", "::ffff:127.0.0.1",
        "::ffff:10.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a00:1", "2002:7f00:1::", "2002:c0a8:101::1",
    ],
)  # fmt: skip
def test_non_public_addresses(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", ["93.184.215.14", "8.8.8.8", "2606:2800:21f:cb07:6820:80da:af6b:8b2c", "64:ff9b::808:808"]
)
def test_public_addresses(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "127.0.0.%31", "2130706433", "0x7f.1", "0177.0.0.1", "[::1]", "[::ffff:7f00:1]", "0"],
)
def test_private_hosts_are_refused_in_all_notations(site: Site, host: str) -> None:
    """Resolvers accept many notations. The check applies to the resolved address."""
    with pytest.raises(OSError) as problem:
        PUBLIC.open(f"http://{host}:{site.port}/", {})
    assert isinstance(problem.value, (RefusedError, socket.gaierror))
    assert site.asked == []


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "ftp://example.org/", "gopher://example.org/", "data:,x", "//x/y"]
)
def test_other_schemes_are_refused(url: str) -> None:
    with pytest.raises(RefusedError):
        PUBLIC.open(url, {})


def test_dns_rebinding(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name resolves to a public address for the check, and to loopback for the connection."""
    answers = iter(["93.184.215.14", "127.0.0.1"])
    dialled: list[str] = []

    def resolve(host: str, port: int, *_: object, **__: object) -> list[object]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (next(answers), port))]

    def connect(address: tuple[str, int], *_: object, **__: object) -> socket.socket:
        dialled.append(address[0])
        raise ConnectionRefusedError

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(socket, "create_connection", connect)
    with pytest.raises(OSError):
        PUBLIC.open("http://rebinding.example/", {})
    assert dialled == ["93.184.215.14"]


def test_a_redirect_to_a_private_host_is_refused(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.paths["/away"] = Answer(status=302, headers={"Location": f"http://localhost:{site.port}/"})
    monkeypatch.setattr(
        "groundup.corpus.fetching.network.is_public", lambda address: site.asked == []
    )  # only the first address
    with pytest.raises(RefusedError):
        PUBLIC.open(f"{site.url}/away", {})
    assert site.gets("/") == 0


@pytest.mark.parametrize("scheme", ["file", "ftp"])
def test_a_redirect_to_another_scheme_is_refused(site: Site, scheme: str) -> None:
    site.paths["/away"] = Answer(status=302, headers={"Location": f"{scheme}:///etc/passwd"})
    with pytest.raises(urllib.error.URLError):
        Network(timeout=5).open(f"{site.url}/away", {})


def test_a_proxy_may_be_private_but_its_targets_may_not(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", site.url)
    site.paths["http://company-only.example/page"] = Answer(b"by way of the proxy")
    with PUBLIC.open("http://company-only.example/page", {}) as response:
        assert response.read() == b"by way of the proxy"
    with pytest.raises(RefusedError):
        PUBLIC.open(f"http://127.0.0.1:{site.port}/", {})
    with pytest.raises(RefusedError):
        PUBLIC.open("http://127.0.0.%31/", {})


def test_a_proxy_for_https(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", site.url)
    with pytest.raises(OSError, match="403"):
        PUBLIC.open("https://company-only.example/page", {})
    assert [(method, target) for _, method, target, _ in site.asked] == [("CONNECT", "company-only.example:443")]
    with pytest.raises(RefusedError):
        PUBLIC.open("https://127.0.0.1/", {})


@pytest.mark.parametrize("length", [None, 100])
def test_a_slow_page_ends_at_the_time_limit(site: Site, length: int | None) -> None:
    """One byte every 50 ms never triggers a socket timeout. Without a length, shutting down looks like a normal end."""
    site.paths["/slow"] = Answer(b"x" * 100, drip=0.05, length=length)
    with pytest.raises(TimeoutError), Network(timeout=5).exchange(f"{site.url}/slow", {}, seconds=0.4) as response:
        response.read()


def test_a_silent_server_causes_a_timeout() -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        url = f"https://127.0.0.1:{deaf.getsockname()[1]}/"  # no answer to the TLS handshake
        with pytest.raises(TimeoutError), Network(timeout=30).exchange(url, {}, seconds=0.3):
            pass


def test_an_untrusted_certificate_is_a_final_error() -> None:
    from groundup.corpus.fetching.network import is_final

    assert is_final(ssl.SSLCertVerificationError())
    assert not is_final(ConnectionResetError())


def test_retries(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("time.sleep", pauses.append)
    answers = iter([Answer(status=503, headers={"Retry-After": "7"}), Answer(status=500), Answer(b"at last")])
    site.paths["/busy"] = lambda: next(answers)
    assert retry(lambda: Network().page(f"{site.url}/busy"))[1] == "at last"
    assert pauses[0] == 7
    with pytest.raises(urllib.error.HTTPError):
        retry(lambda: Network().page(f"{site.url}/absent"))
    assert site.gets("/absent") == 1, "what is not there will not be there in a second"


def test_retry_after_has_a_limit() -> None:
    headers = Message()
    headers["Retry-After"] = "100000000"
    error = urllib.error.HTTPError("http://x/", 429, "", headers, None)
    assert retry_delay(error, 1) <= 120
    headers.replace_header("Retry-After", "Wed, 21 Oct 2015 07:28:00 GMT")
    assert retry_delay(error, 1) == 0


def test_telemetry_of_libraries_is_disabled() -> None:
    code = (
        "from groundup.core.telemetry import disable_telemetry; disable_telemetry();"
        "from huggingface_hub import constants; print(constants.HF_HUB_DISABLE_TELEMETRY)"
    )
    pytest.importorskip("huggingface_hub")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=dict(os.environ))
    assert done.stdout.strip() == "True", done.stderr
