"""HTTP client with retries, proxies, a time limit per request, and an optional restriction to public IP addresses."""

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
    """Raised for a URL scheme or an IP address to which the client must not connect."""


ATTEMPTS = 5
AGENT = "groundup"  # user agent name that robots.txt files can refer to
_PAGE_LIMIT = 64 << 20
_SCHEMES = ("https", "http", "file")
_REDIRECTS = frozenset((301, 302, 303, 307, 308))
_TRANSIENT = frozenset((408, 425, 429, 500, 502, 503, 504))
_MAX_RETRY_SECONDS = 120.0
# NAT64 prefix: the last 32 bits are an IPv4 address (RFC 6052).
_NAT64 = ipaddress.ip_network("64:ff9b::/96")

Result = TypeVar("Result")
Address = tuple[str, int]


def user_agent(contact: str = "") -> str:
    """Return the value of the User-Agent header, which may include a contact address."""
    version = importlib.metadata.version("groundup")
    return f"{AGENT}/{version}" + (f" (+{contact})" if contact else "")


def is_public(address: str) -> bool:
    """Return whether an IP address is public: not loopback, private, link-local, shared or multicast.

    An IPv6 address that contains an IPv4 address (IPv4-mapped, 6to4, Teredo, NAT64) is public only if the IPv4 address
    is also public.
    """
    ip = ipaddress.ip_address(address.partition("%")[0])  # "fe80::1%eth0"
    if isinstance(ip, ipaddress.IPv6Address):
        inner = [ip.ipv4_mapped, ip.sixtofour, *(ip.teredo or ())]
        if ip in _NAT64:
            inner.append(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF))
        embedded = [each for each in inner if each is not None]
        if ip.ipv4_mapped is not None:
            return is_public(str(ip.ipv4_mapped))
        if not all(is_public(str(each)) for each in embedded):
            return False
    return ip.is_global and not ip.is_multicast


def _public_addresses(host: str, port: int) -> list[Address]:
    """Resolve a host to its public addresses. Connecting to these addresses prevents DNS rebinding."""
    found = list(dict.fromkeys(_resolved(host, port)))
    public = [address for address in found if is_public(address[0])]
    if not public:
        raise RefusedError(
            f"{host} resolves to a private address, {found[0][0]}" if found else f"{host} has no IP address"
        )
    return public


def _resolved(host: str, port: int) -> Iterator[Address]:
    for *_, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        yield str(address[0]), port


@dataclass(slots=True)
class _OpenSockets:
    """The sockets of one request, which are shut down when the time limit of the request expires."""

    expired: bool = False
    sockets: list[socket.socket] = field(default_factory=list)

    def shut_down(self) -> None:
        """Shut down all sockets. Pending reads are then interrupted, because the connection is closed."""
        self.expired = True
        for each in self.sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


@dataclass(frozen=True, slots=True)
class Network:
    """Settings of the HTTP client.

    Attributes:
        certificates: File of trusted certificate authorities. By default, the certificates of the system are used.
        client_certificate: File of a client certificate.
        proxy: Proxy for all requests. By default, the environment variables HTTPS_PROXY, HTTP_PROXY and NO_PROXY are
            used.
        unverified_hosts: Hosts whose certificates are not verified.
        timeout: Seconds to wait for data from a server.
        credentials: Logins in the form "user:password", keyed by host.
        public_only: Whether to refuse hosts with private IP addresses, even after redirects. The proxy itself may have
            a private IP address.
        agent: Value of the User-Agent header.
    """

    certificates: str | None = None
    client_certificate: str | None = None
    proxy: str | None = None
    unverified_hosts: frozenset[str] = frozenset()
    timeout: float = 60.0
    credentials: Mapping[str, str] = field(default_factory=dict)
    public_only: bool = False
    agent: str = ""

    def open(
        self,
        url: str,
        headers: Mapping[str, str],
        *,
        method: str = "GET",
        follow: bool = True,
        body: bytes | None = None,
    ) -> http.client.HTTPResponse:
        """Open an https or http URL. If `public_only` is False, file URLs are also allowed.

        Args:
            url: URL to open. A login in the URL is sent in the Authorization header.
            headers: Additional request headers.
            method: HTTP method.
            follow: Whether to follow redirects. If `follow` is False, a redirect raises `HTTPError`.
            body: Body of the request, for the method POST.

        Returns:
            The open response.

        Raises:
            urllib.error.HTTPError: The server returned an error status.
            RefusedError: The host has a private address.
            OSError: The host is unreachable.
        """
        return self._open(url, headers, method, follow, _OpenSockets(), body)

    @contextlib.contextmanager
    def exchange(
        self, url: str, headers: Mapping[str, str], *, seconds: float, follow: bool = False
    ) -> Iterator[http.client.HTTPResponse]:
        """Open a URL like `open`, but raise `TimeoutError` if the whole request takes longer than `seconds`."""
        sockets = _OpenSockets()
        timer = threading.Timer(seconds, sockets.shut_down)
        timer.daemon = True
        timer.start()
        try:
            with self._open(url, headers, "GET", follow, sockets) as response:
                yield response
        except (OSError, http.client.HTTPException) as error:
            if sockets.expired:
                raise TimeoutError(f"timeout after {seconds:g} seconds") from error
            raise
        finally:
            timer.cancel()
            for each in sockets.sockets:
                each.close()
        if sockets.expired:  # a closed connection looks like the end of a body that has no Content-Length
            raise TimeoutError(f"timeout after {seconds:g} seconds")

    def _open(
        self,
        url: str,
        headers: Mapping[str, str],
        method: str,
        follow: bool,
        sockets: _OpenSockets,
        body: bytes | None = None,
    ) -> http.client.HTTPResponse:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in (_SCHEMES[:2] if self.public_only else _SCHEMES):
            raise RefusedError(f"scheme {parts.scheme!r} is not http or https")
        host = parts.hostname or ""
        agent = {"User-Agent": self.agent} if self.agent else {}
        request = urllib.request.Request(_without_login(url), data=body, headers=agent | dict(headers), method=method)
        login = self.credentials.get(host) or _login(parts)
        if login:
            token = base64.b64encode(login.encode()).decode()
            request.add_unredirected_header(
                "Authorization", f"Basic {token}"
            )  # the login is not sent to other hosts after a redirect
        context = _tls(self.certificates, self.client_certificate, host not in self.unverified_hosts)
        opener = urllib.request.OpenerDirector()  # build_opener would also allow ftp: and data: URLs
        proxies = {"http": self.proxy, "https": self.proxy} if self.proxy else None
        handlers: list[urllib.request.BaseHandler] = [
            urllib.request.ProxyHandler(proxies),
            urllib.request.UnknownHandler(),
            _HttpHandler(self.public_only, sockets),
            _HttpsHandler(self.public_only, sockets, context),
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
                raise error.reason from None  # raises the original error instead of the URLError that wraps it
            raise
        return opened

    def page(self, url: str, accept: str = "*/*") -> tuple[str, str]:
        """Fetch a page and return its content type and text."""
        with self.open(url, {"Accept": accept}) as response:
            return response.headers.get("Content-Type") or "", response.read(_PAGE_LIMIT).decode("utf-8", "replace")


@functools.lru_cache(maxsize=8)
def _tls(certificates: str | None, client_certificate: str | None, verified: bool) -> ssl.SSLContext:
    """Create a TLS context. The result is cached, because loading the certificates of the system is slow."""
    context = ssl.create_default_context(cafile=certificates)
    if client_certificate:
        context.load_cert_chain(client_certificate)
    if not verified:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _connection_factory(public_only: bool, sockets: _OpenSockets) -> Callable[..., socket.socket]:
    """Return a function that opens connections. If `public_only` is True, the function refuses private IP addresses."""

    def connect(address: Address, *arguments: Any, **named: Any) -> socket.socket:
        last: OSError = OSError(f"{address[0]} has no address")
        for each in _public_addresses(*address) if public_only else [address]:
            try:
                connected = socket.create_connection(each, *arguments, **named)
            except OSError as error:
                last = error
                continue
            # Stores a duplicate of the socket, because TLS detaches the file descriptor of the original socket.
            sockets.sockets.append(connected.dup())
            return connected
        raise last

    return connect


class _Connector:
    """Creates the connections of the HTTP and HTTPS handlers, and checks their IP addresses."""

    def __init__(self, public_only: bool, sockets: _OpenSockets) -> None:
        self._public_only = public_only
        self._sockets = sockets

    def for_request(
        self, kind: type[http.client.HTTPConnection], request: urllib.request.Request
    ) -> Callable[..., http.client.HTTPConnection]:
        """Return a function that creates connections for a request."""
        # Attribute that urllib sets for an https request through a proxy.
        tunnel: str | None = getattr(request, "_tunnel_host", None)
        proxied = request.has_proxy() or tunnel is not None
        if proxied and self._public_only:
            _refuse_private_target(urllib.parse.unquote(urllib.parse.urlsplit(request.full_url).hostname or ""))
        create = _connection_factory(self._public_only and not proxied, self._sockets)

        def connect(*arguments: Any, **named: Any) -> http.client.HTTPConnection:
            connection = kind(*arguments, **named)
            connection._create_connection = create  # type: ignore[attr-defined]
            return connection

        return connect


def _refuse_private_target(host: str) -> None:
    """Refuse a host that resolves only to private addresses.

    A name that does not resolve locally is not refused, because the proxy may resolve it.
    """
    try:
        addresses = [address for address, _ in _resolved(host, 0)]
    except OSError:
        return
    if not any(map(is_public, addresses)):
        raise RefusedError(f"{host} resolves to a private address, {addresses[0]}")


class _HttpHandler(urllib.request.HTTPHandler):
    def __init__(self, public_only: bool, sockets: _OpenSockets) -> None:
        super().__init__()
        self._connector = _Connector(public_only, sockets)

    def http_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        connector: Any = self._connector.for_request(http.client.HTTPConnection, request)
        return self.do_open(connector, request)


class _HttpsHandler(urllib.request.HTTPSHandler):
    def __init__(self, public_only: bool, sockets: _OpenSockets, context: ssl.SSLContext) -> None:
        super().__init__(context=context)
        self._connector = _Connector(public_only, sockets)
        self._tls = context

    def https_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        connector: Any = self._connector.for_request(http.client.HTTPSConnection, request)
        return self.do_open(connector, request, context=self._tls)


def is_redirect(error: Exception) -> bool:
    """Return whether an error is an HTTP redirect, with its target in the Location header."""
    return isinstance(error, urllib.error.HTTPError) and error.code in _REDIRECTS


def is_final(error: Exception) -> bool:
    """Return whether an error is permanent, so that a retry would also fail."""
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
    """Return the seconds to wait before the next attempt: the Retry-After header, or exponential backoff."""
    requested = error.headers.get("Retry-After") if isinstance(error, urllib.error.HTTPError) else None
    if requested:
        with contextlib.suppress(ValueError):
            seconds = float(requested) if requested.strip().isdigit() else _seconds_until(requested)
            return min(max(seconds, 0.0), _MAX_RETRY_SECONDS)
    return min(0.5 * 2**attempt, _MAX_RETRY_SECONDS) * random.uniform(0.75, 1.25)  # jitter


def _seconds_until(date: str) -> float:
    return email.utils.parsedate_to_datetime(date).timestamp() - time.time()


def retry(call: Callable[[], Result], attempts: int = ATTEMPTS) -> Result:
    """Call a function until it succeeds, with a delay between attempts.

    A permanent error is raised immediately. If the last attempt fails, its error is raised.
    """
    for attempt in range(1, attempts + 1):
        try:
            return call()
        except (OSError, http.client.HTTPException) as error:
            if attempt == attempts or is_final(error):
                raise
            time.sleep(retry_delay(error, attempt))
    raise AssertionError("attempts must be at least 1")


def netrc_logins() -> dict[str, str]:
    """Return the logins in ~/.netrc, in the form "user:password", keyed by host."""
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
