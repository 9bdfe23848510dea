"""HTTP that keeps to the rules: public addresses only where that is asked, patience with a limit, proxies honoured."""

from __future__ import annotations

import base64
import contextlib
import email.utils
import functools
import http.client
import importlib.metadata
import ipaddress
import random
import socket
import ssl
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar


class RefusedError(OSError):
    """A scheme or an address that is not gone to, whatever a link says."""


ATTEMPTS = 5
AGENT = "groundup"  # the name that robots.txt files may address
_PAGE_LIMIT = 64 << 20
_SCHEMES = ("https", "http", "file")
_REDIRECTS = frozenset((301, 302, 303, 307, 308))
_TRANSIENT = frozenset((408, 425, 429, 500, 502, 503, 504))
_FINAL = (
    RefusedError, FileNotFoundError, PermissionError, IsADirectoryError, ssl.SSLCertVerificationError, ValueError,
    http.client.InvalidURL,
)  # fmt: skip
_LONGEST_PAUSE = 120.0
# IPv6 addresses that a gateway turns into the IPv4 address in their last 32 bits (RFC 6052).
_TRANSLATED = ipaddress.ip_network("64:ff9b::/96")

Result = TypeVar("Result")
Address = tuple[str, int]


def user_agent(contact: str = "") -> str:
    """The tool, its version, and whom to write to."""
    version = importlib.metadata.version("groundup")
    return f"{AGENT}/{version}" + (f" (+{contact})" if contact else "")


def is_public(address: str) -> bool:
    """Whether an IP address is one of the public internet: no loopback, private, link-local, shared or multicast one.

    Addresses that carry another (IPv4-mapped, 6to4, Teredo, NAT64) are judged by that one, too.
    """
    ip = ipaddress.ip_address(address.partition("%")[0])  # "fe80::1%eth0"
    if isinstance(ip, ipaddress.IPv6Address):
        inner = [ip.ipv4_mapped, ip.sixtofour, *(ip.teredo or ())]
        if ip in _TRANSLATED:
            inner.append(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF))
        carried = [each for each in inner if each is not None]
        if ip.ipv4_mapped is not None:
            return is_public(str(ip.ipv4_mapped))
        if not all(is_public(str(each)) for each in carried):
            return False
    return ip.is_global and not ip.is_multicast


def _public_addresses(host: str, port: int) -> list[Address]:
    """The public addresses of a host; the connection goes to one of these, so that a second look-up cannot differ."""
    found = list(dict.fromkeys(_resolved(host, port)))
    public = [address for address in found if is_public(address[0])]
    if not public:
        raise RefusedError(f"{host} is at a private address, {found[0][0]}" if found else f"{host} has no address")
    return public


def _resolved(host: str, port: int) -> Iterator[Address]:
    for *_, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        yield str(address[0]), port


@dataclass(slots=True)
class _Lifeline:
    """Holds on to the sockets of one exchange, to end it from outside when its time is up."""

    expired: bool = False
    sockets: list[socket.socket] = field(default_factory=list)

    def cut(self) -> None:
        """End the exchange: whatever waits for it sees a closed connection."""
        self.expired = True
        for each in self.sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


@dataclass(frozen=True, slots=True)
class Network:
    """How to reach other machines.

    Attributes:
        certificates: file of certificate authorities to trust, instead of the system's.
        proxy: one for all; without it the environment's (HTTPS_PROXY, HTTP_PROXY, NO_PROXY) are used.
        timeout: seconds without any answer.
        public_only: refuse hosts at private addresses, also after redirects. A proxy may be at one: it is the user's.
    """

    certificates: str | None = None
    client_certificate: str | None = None
    proxy: str | None = None
    unverified_hosts: frozenset[str] = frozenset()
    timeout: float = 60.0
    credentials: Mapping[str, str] = field(default_factory=dict)  # host -> "user:password"
    public_only: bool = False
    agent: str = ""

    def open(
        self, url: str, headers: Mapping[str, str], *, method: str = "GET", follow: bool = True
    ) -> http.client.HTTPResponse:
        """Open a URL of scheme https, http, or (not with `public_only`) file.

        Args:
            follow: go where a redirect leads; else it raises, as every status of 300 and more does.

        Raises:
            urllib.error.HTTPError: the server's refusal, with its status.
            RefusedError: a private address.
            OSError: out of reach.
        """
        return self._open(url, headers, method, follow, _Lifeline())

    @contextlib.contextmanager
    def exchange(
        self, url: str, headers: Mapping[str, str], *, seconds: float, follow: bool = False
    ) -> Iterator[http.client.HTTPResponse]:
        """Like `open`, but over after so many seconds (`TimeoutError`), however slowly a server feeds us."""
        lifeline = _Lifeline()
        timer = threading.Timer(seconds, lifeline.cut)
        timer.daemon = True
        timer.start()
        try:
            with self._open(url, headers, "GET", follow, lifeline) as response:
                yield response
        except (OSError, http.client.HTTPException) as error:
            if lifeline.expired:
                raise TimeoutError(f"not done after {seconds:g} seconds") from error
            raise
        finally:
            timer.cancel()
            for each in lifeline.sockets:
                each.close()
        if lifeline.expired:  # a body without a length ends where the connection does
            raise TimeoutError(f"not done after {seconds:g} seconds")

    def _open(
        self, url: str, headers: Mapping[str, str], method: str, follow: bool, lifeline: _Lifeline
    ) -> http.client.HTTPResponse:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in (_SCHEMES[:2] if self.public_only else _SCHEMES):
            raise RefusedError(f"scheme {parts.scheme!r} is not http or https")
        host = parts.hostname or ""
        own = {"User-Agent": self.agent} if self.agent else {}
        request = urllib.request.Request(_without_login(url), headers=own | dict(headers), method=method)
        login = self.credentials.get(host) or _login(parts)
        if login:
            token = base64.b64encode(login.encode()).decode()
            request.add_unredirected_header("Authorization", f"Basic {token}")  # not to be told to another host
        context = _tls(self.certificates, self.client_certificate, host not in self.unverified_hosts)
        opener = urllib.request.OpenerDirector()  # build_opener would add ftp: and data:
        proxies = {"http": self.proxy, "https": self.proxy} if self.proxy else None
        handlers: list[urllib.request.BaseHandler] = [
            urllib.request.ProxyHandler(proxies),
            urllib.request.UnknownHandler(),
            _HttpHandler(self.public_only, lifeline),
            _HttpsHandler(self.public_only, lifeline, context),
            urllib.request.HTTPDefaultErrorHandler(),
            urllib.request.HTTPErrorProcessor(),
        ]
        handlers += [urllib.request.HTTPRedirectHandler()] if follow else []
        handlers += [] if self.public_only else [urllib.request.FileHandler()]
        for handler in handlers:
            opener.add_handler(handler)
        try:
            opened: http.client.HTTPResponse = opener.open(request, timeout=self.timeout)
        except urllib.error.URLError as error:
            if isinstance(error.reason, OSError) and not isinstance(error, urllib.error.HTTPError):
                raise error.reason from None  # urllib hides in it what went wrong
            raise
        return opened

    def page(self, url: str, accept: str = "*/*") -> tuple[str, str]:
        """Fetch a page of an index: (content type, text)."""
        with self.open(url, {"Accept": accept}) as response:
            return response.headers.get("Content-Type") or "", response.read(_PAGE_LIMIT).decode("utf-8", "replace")


@functools.lru_cache(maxsize=8)
def _tls(certificates: str | None, client_certificate: str | None, verified: bool) -> ssl.SSLContext:
    """Made once: reading the system's authorities takes longer than many a page."""
    context = ssl.create_default_context(cafile=certificates)
    if client_certificate:
        context.load_cert_chain(client_certificate)
    if not verified:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _dialler(guarded: bool, lifeline: _Lifeline) -> Callable[..., socket.socket]:
    """What opens the connection itself: to addresses that were checked."""

    def dial(address: Address, *arguments: Any, **named: Any) -> socket.socket:
        last: OSError = OSError(f"{address[0]} has no address")
        for each in _public_addresses(*address) if guarded else [address]:
            try:
                connected = socket.create_connection(each, *arguments, **named)
            except OSError as error:
                last = error
                continue
            lifeline.sockets.append(connected.dup())  # TLS takes the first one's descriptor away
            return connected
        raise last

    return dial


class _Guard:
    """What the two handlers share: each connection is made by our own dialler."""

    def __init__(self, public_only: bool, lifeline: _Lifeline) -> None:
        self._public_only = public_only
        self._lifeline = lifeline

    def connector(
        self, kind: type[http.client.HTTPConnection], request: urllib.request.Request
    ) -> Callable[..., http.client.HTTPConnection]:
        """Makes connections for this request."""
        tunnel: str | None = getattr(request, "_tunnel_host", None)  # set for https by way of a proxy
        proxied = request.has_proxy() or tunnel is not None
        if proxied and self._public_only:
            _refuse_private_target(urllib.parse.unquote(urllib.parse.urlsplit(request.full_url).hostname or ""))
        dial = _dialler(self._public_only and not proxied, self._lifeline)

        def connect(*arguments: Any, **named: Any) -> http.client.HTTPConnection:
            connection = kind(*arguments, **named)
            connection._create_connection = dial  # type: ignore[attr-defined]
            return connection

        return connect


def _refuse_private_target(host: str) -> None:
    """Behind a proxy, a name that cannot be looked up here is the proxy's business; a private one that can, is ours."""
    try:
        addresses = [address for address, _ in _resolved(host, 0)]
    except OSError:
        return
    if not any(map(is_public, addresses)):
        raise RefusedError(f"{host} is at a private address, {addresses[0]}")


class _HttpHandler(urllib.request.HTTPHandler):
    def __init__(self, public_only: bool, lifeline: _Lifeline) -> None:
        super().__init__()
        self._guard = _Guard(public_only, lifeline)

    def http_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        connector: Any = self._guard.connector(http.client.HTTPConnection, request)
        return self.do_open(connector, request)


class _HttpsHandler(urllib.request.HTTPSHandler):
    def __init__(self, public_only: bool, lifeline: _Lifeline, context: ssl.SSLContext) -> None:
        super().__init__(context=context)
        self._guard = _Guard(public_only, lifeline)
        self._tls = context

    def https_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        connector: Any = self._guard.connector(http.client.HTTPSConnection, request)
        return self.do_open(connector, request, context=self._tls)


def is_redirect(error: Exception) -> bool:
    """Whether it is a server's word that the page is elsewhere (its Location header says where)."""
    return isinstance(error, urllib.error.HTTPError) and error.code in _REDIRECTS


def is_final(error: Exception) -> bool:
    """Whether asking again is of no use."""
    if isinstance(error, urllib.error.HTTPError):
        return error.code not in _TRANSIENT
    if isinstance(error, socket.gaierror):
        return error.errno == socket.EAI_NONAME
    final = (
        RefusedError,
        FileNotFoundError,
        PermissionError,
        IsADirectoryError,
        ssl.SSLCertVerificationError,
        ValueError,
    )
    return isinstance(error, (*final, http.client.InvalidURL))


def retry_delay(error: Exception, attempt: int) -> float:
    """Seconds to wait before the next attempt: what the server asks for, else twice as long each time."""
    asked = error.headers.get("Retry-After") if isinstance(error, urllib.error.HTTPError) else None
    if asked:
        with contextlib.suppress(ValueError):
            seconds = float(asked) if asked.strip().isdigit() else _seconds_until(asked)
            return min(max(seconds, 0.0), _LONGEST_PAUSE)
    return min(0.5 * 2**attempt, _LONGEST_PAUSE) * random.uniform(0.75, 1.25)  # not all at the same moment


def _seconds_until(date: str) -> float:
    return email.utils.parsedate_to_datetime(date).timestamp() - time.time()


def retry(call: Callable[[], Result], attempts: int = ATTEMPTS) -> Result:
    """Call until it works, with pauses; what is final, or goes wrong the last time, is raised."""
    for attempt in range(1, attempts + 1):
        try:
            return call()
        except (OSError, http.client.HTTPException) as error:
            if attempt == attempts or is_final(error):
                raise
            time.sleep(retry_delay(error, attempt))
    raise AssertionError("attempts is at least 1")


def netrc_logins() -> dict[str, str]:
    """The logins of the user's ~/.netrc: host -> "user:password"."""
    import netrc

    try:
        hosts = netrc.netrc().hosts
    except (OSError, netrc.NetrcParseError):
        return {}
    return {host: f"{login}:{password}" for host, (login, _, password) in hosts.items()}


def _login(parts: urllib.parse.SplitResult) -> str | None:
    if parts.username is None:
        return None
    return f"{urllib.parse.unquote(parts.username)}:{urllib.parse.unquote(parts.password or '')}"


def _without_login(url: str) -> str:
    parts = urllib.parse.urlsplit(url)
    return urllib.parse.urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
