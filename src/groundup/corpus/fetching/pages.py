"""Fetch a single page or a single robots.txt file. A failed request has a short reason, which can be counted."""

from __future__ import annotations

import http.client
import socket
import ssl
import time
import urllib.error
import urllib.parse
import zlib
from dataclasses import dataclass

from groundup.corpus.fetching.network import AGENT, Network, RefusedError, is_final, retry_delay
from groundup.corpus.fetching.store import FetchedPage

ATTEMPTS = 3
_ROBOTS_BYTES = 512 << 10  # maximum size of a robots.txt file; RFC 9309 requires at least 500 KiB
_ROBOTS_SECONDS = 30.0
_CHUNK = 1 << 16
MAX_URL_LENGTH = 4096  # characters


@dataclass(frozen=True, slots=True)
class CrawlPolicy:
    """Limits for fetching pages.

    Attributes:
        delay: Seconds between the end of a request and the next request to the same host. The robots.txt file of a host
            may require a longer delay.
        max_delay: Maximum delay in seconds. Hosts whose robots.txt requires a longer delay are skipped.
        connections: Number of concurrent requests, each to a different host.
        max_bytes: Maximum size of a decoded page in bytes.
        max_seconds: Maximum time for one page in seconds.
        content_types: Media types to keep, such as "text/html" or "text/*".
    """

    delay: float
    max_delay: float
    connections: int
    max_bytes: int
    max_seconds: float
    content_types: tuple[str, ...]


class Failure(Exception):  # noqa: N818  an expected outcome, not a program error
    """Raised or returned if the page of a link cannot be fetched.

    Args:
        reason: Short reason. Failed links are counted by reason.
        answered: Whether the host responded. If the host did not respond, the local network may have a problem.
    """

    def __init__(self, reason: str, *, answered: bool = True) -> None:
        super().__init__(reason)
        self.reason = reason
        self.answered = answered


@dataclass(frozen=True, slots=True)
class RobotsRules:
    """The compressed robots.txt file of a host.

    The file is stored compressed, because a parsed robots.txt file of 0.5 MB takes 30 MB of memory.
    """

    packed: bytes

    def check(self, url: str) -> tuple[bool, float]:
        """Return whether a URL may be fetched, and the delay in seconds that the host requires."""
        from protego import Protego

        rules = Protego.parse(zlib.decompress(self.packed).decode("utf-8", "replace"))
        rate = rules.request_rate(AGENT)
        each = rate.seconds / rate.requests if rate and rate.requests else 0.0
        return rules.can_fetch(url, AGENT), max(rules.crawl_delay(AGENT) or 0.0, each)


def fetch_robots(network: Network, origin: str, max_delay: float) -> RobotsRules | Failure:
    """Fetch the robots.txt of an origin (RFC 9309).

    Args:
        network: HTTP client.
        origin: Scheme, host and port.
        max_delay: Maximum delay between two attempts in seconds.

    Returns:
        The rules, or a `Failure` if robots.txt is unreachable. If the host has no robots.txt, the rules allow every
        URL.
    """
    for attempt in range(1, ATTEMPTS + 1):
        try:
            with network.exchange(f"{origin}/robots.txt", {}, seconds=_ROBOTS_SECONDS, follow=True) as response:
                return RobotsRules(zlib.compress(response.read(_ROBOTS_BYTES), 1))
        except urllib.error.HTTPError as error:
            error.close()
            if 400 <= error.code < 500 and error.code != 429:
                return RobotsRules(zlib.compress(b""))
            problem: Exception = error
        except (OSError, http.client.HTTPException, ValueError) as error:
            problem = error
            if is_final(error):
                break
        if attempt < ATTEMPTS:
            time.sleep(min(retry_delay(problem, attempt), max_delay))
    if isinstance(problem, (RefusedError, socket.gaierror, ssl.SSLError)):
        return failure_of(problem)
    return Failure("robots.txt is unreachable", answered=isinstance(problem, urllib.error.HTTPError))


def fetch_page(network: Network, url: str, policy: CrawlPolicy) -> FetchedPage:
    """Fetch a page.

    Args:
        network: HTTP client.
        url: URL of the page.
        policy: Limits and media types.

    Returns:
        The page with its decoded body.

    Raises:
        Failure: The response is not a page that `policy` allows.
        OSError: The client refused the request, the host did not respond, or the response is an error or a redirect
            (`urllib.error.HTTPError`).
    """
    accept = ", ".join(policy.content_types) + ";q=0.9, */*;q=0.1"
    headers = {"Accept": accept, "Accept-Encoding": "gzip"}
    with network.exchange(url, headers, seconds=policy.max_seconds) as response:
        if response.status != 200:
            raise Failure(f"HTTP {response.status}")
        media = response.headers.get_content_type()
        kinds = (media, media.partition("/")[0] + "/*", "*/*")
        if response.headers.get("Content-Type") and not any(kind in policy.content_types for kind in kinds):
            raise Failure(f"content type {media if media.startswith(('text/', 'application/')) else kinds[1]}")
        coding = (response.headers.get("Content-Encoding") or "identity").strip().lower()
        body = _read(response, coding, policy.max_bytes)
        received = [(name, str(value)) for name, value in response.headers.items()]
        return FetchedPage(url, response.status, response.reason, received, body, time.time())


def _read(response: http.client.HTTPResponse, coding: str, max_bytes: int) -> bytes:
    """Return the decoded body of a response. Decompression stops after `max_bytes`."""
    if coding not in ("identity", "gzip", "x-gzip", "deflate"):
        raise Failure("unknown content encoding")
    length = response.headers.get("Content-Length") or ""
    if length.isdigit() and int(length) > max_bytes:
        raise Failure("too large")
    # With wbits=47, zlib detects the gzip or zlib format from the first bytes.
    decoder = None if coding == "identity" else zlib.decompressobj(wbits=47)
    body, got = bytearray(), 0
    while chunk := response.read1(_CHUNK):
        got += len(chunk)
        try:
            body += decoder.decompress(chunk, max_bytes + 1 - len(body)) if decoder else chunk
        except zlib.error as error:
            raise Failure("damaged content encoding") from error
        if len(body) > max_bytes:
            raise Failure("too large")
    if length.isdigit() and got < int(length):
        raise http.client.IncompleteRead(b"", int(length) - got)
    return bytes(body)


def normalize_url(url: str) -> str:
    """Normalize a URL.

    The fragment and the default port are removed, the host is converted to lower-case ASCII, and special characters are
    percent-encoded.

    Raises:
        ValueError: The text is not a URL, or it has more than 4,096 characters.
    """
    if len(url) > MAX_URL_LENGTH:
        raise ValueError("too long")
    parts = urllib.parse.urlsplit(url.strip())
    host = (parts.hostname or "").encode("idna").decode()
    if not parts.scheme or not host:
        raise ValueError("not a URL")
    netloc = f"[{host}]" if ":" in host else host
    if parts.port is not None and parts.port != {"http": 80, "https": 443}.get(parts.scheme):
        netloc += f":{parts.port}"
    path = urllib.parse.quote(parts.path or "/", safe="/%:@!$&'()*+,;=~-._")
    query = urllib.parse.quote(parts.query, safe="/?%:@!$&'()*+,;=~-._[]")
    return urllib.parse.urlunsplit((parts.scheme, netloc, path, query, ""))


def failure_of(error: Exception) -> Failure:
    """Return the failure for an exception. Exceptions of the same kind result in the same reason."""
    if isinstance(error, urllib.error.HTTPError):
        error.close()
        return Failure(f"HTTP {error.code}")
    if isinstance(error, RefusedError):
        return Failure("refused: private address")
    if isinstance(error, socket.gaierror):
        return Failure("host not found", answered=False)
    if isinstance(error, TimeoutError):
        return Failure("timeout", answered=False)
    if isinstance(error, ssl.SSLError):
        return Failure("certificate or TLS not valid", answered=False)
    if isinstance(error, ValueError):
        return Failure("not a URL")
    return Failure("connection failed", answered=False)
