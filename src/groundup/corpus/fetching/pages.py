"""One request at a time: a host's rules, a page, or why there is none."""

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
_ROBOTS_BYTES = 512 << 10  # RFC 9309: at least 500 KiB are read
_ROBOTS_SECONDS = 30.0
_CHUNK = 1 << 16
MAX_URL_LENGTH = 4096


@dataclass(frozen=True, slots=True)
class CrawlPolicy:
    """How pages are asked for.

    Attributes:
        delay: seconds between the end of one request to a host and the next; robots.txt may ask for more.
        longest_delay: seconds; hosts that ask for more than this are left alone.
        connections: requests at the same time, each to another host.
        max_bytes: of one page, decoded.
        max_seconds: for one page, however slowly it comes.
        content_types: media types that are kept, e.g. "text/html"; "text/*" are all of a kind.
    """

    delay: float
    max_delay: float
    connections: int
    max_bytes: int
    max_seconds: float
    content_types: tuple[str, ...]


class Failure(Exception):  # noqa: N818  not an error of ours
    """Why a link gave no page, in few words that are counted.

    Args:
        answered: whether its host said so, or we; not if nothing was heard of it.
    """

    def __init__(self, reason: str, *, answered: bool = True) -> None:
        super().__init__(reason)
        self.reason = reason
        self.answered = answered


@dataclass(frozen=True, slots=True)
class Rules:
    """A robots.txt, kept small: parsed, half a megabyte would become thirty, times thousands of hosts."""

    packed: bytes

    def judge(self, url: str) -> tuple[bool, float]:
        """Whether we may fetch an address, and the seconds between two requests that the host asks for."""
        from protego import Protego

        rules = Protego.parse(zlib.decompress(self.packed).decode("utf-8", "replace"))
        rate = rules.request_rate(AGENT)
        each = rate.seconds / rate.requests if rate and rate.requests else 0.0
        return rules.can_fetch(url, AGENT), max(rules.crawl_delay(AGENT) or 0.0, each)


def fetch_rules(network: Network, place: str, longest_pause: float) -> Rules | Failure:
    """The robots.txt of a place (RFC 9309): where there is none, all is allowed; where it is out of reach, nothing.

    Args:
        place: scheme, host and port.
        longest_pause: seconds between two attempts, at most.
    """
    for attempt in range(1, ATTEMPTS + 1):
        try:
            with network.exchange(f"{place}/robots.txt", {}, seconds=_ROBOTS_SECONDS, follow=True) as response:
                return Rules(zlib.compress(response.read(_ROBOTS_BYTES), 1))
        except urllib.error.HTTPError as error:
            error.close()
            if 400 <= error.code < 500 and error.code != 429:
                return Rules(zlib.compress(b""))
            problem: Exception = error
        except (OSError, http.client.HTTPException, ValueError) as error:
            problem = error
            if is_final(error):
                break
        if attempt < ATTEMPTS:
            time.sleep(min(retry_delay(problem, attempt), longest_pause))
    if isinstance(problem, (RefusedError, socket.gaierror, ssl.SSLError)):
        return failure_of(problem)
    return Failure("robots.txt is out of reach", answered=isinstance(problem, urllib.error.HTTPError))


def fetch_page(network: Network, url: str, manners: CrawlPolicy) -> FetchedPage:
    """The page of an address.

    Raises:
        Failure: an answer that is no such page.
        OSError: a refusal, a redirect (`urllib.error.HTTPError`), or no answer.
    """
    wanted = ", ".join(manners.content_types) + ";q=0.9, */*;q=0.1"
    headers = {"Accept": wanted, "Accept-Encoding": "gzip"}
    with network.exchange(url, headers, seconds=manners.max_seconds) as response:
        if response.status != 200:
            raise Failure(f"HTTP {response.status}")
        media = response.headers.get_content_type()
        kinds = (media, media.partition("/")[0] + "/*", "*/*")
        if response.headers.get("Content-Type") and not any(kind in manners.content_types for kind in kinds):
            raise Failure(f"content type {media if media.startswith(('text/', 'application/')) else kinds[1]}")
        coding = (response.headers.get("Content-Encoding") or "identity").strip().lower()
        body = _read(response, coding, manners.max_bytes)
        told = [(name, str(value)) for name, value in response.headers.items()]
        return FetchedPage(url, response.status, response.reason, told, body, time.time())


def _read(response: http.client.HTTPResponse, coding: str, max_bytes: int) -> bytes:
    """The decoded body; no more of it is held than is allowed, whatever it would unpack to."""
    if coding not in ("identity", "gzip", "x-gzip", "deflate"):
        raise Failure("unknown content encoding")
    length = response.headers.get("Content-Length") or ""
    if length.isdigit() and int(length) > max_bytes:
        raise Failure("too large")
    decoder = None if coding == "identity" else zlib.decompressobj(wbits=47)  # gzip or zlib, by its first bytes
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
    """The address as it is asked for: no fragment, host in lower case and ASCII, nothing that HTTP forbids.

    Raises:
        ValueError: not an address, or one of more than 4,096 characters.
    """
    if len(url) > MAX_URL_LENGTH:
        raise ValueError("too long")
    parts = urllib.parse.urlsplit(url.strip())
    host = (parts.hostname or "").encode("idna").decode()
    if not parts.scheme or not host:
        raise ValueError("no address")
    place = f"[{host}]" if ":" in host else host
    if parts.port is not None and parts.port != {"http": 80, "https": 443}.get(parts.scheme):
        place += f":{parts.port}"
    path = urllib.parse.quote(parts.path or "/", safe="/%:@!$&'()*+,;=~-._")
    query = urllib.parse.quote(parts.query, safe="/?%:@!$&'()*+,;=~-._[]")
    return urllib.parse.urlunsplit((parts.scheme, place, path, query, ""))


def failure_of(error: Exception) -> Failure:
    """Why a link gave no page, in words that are the same for all of that kind."""
    if isinstance(error, urllib.error.HTTPError):
        error.close()
        return Failure(f"HTTP {error.code}")
    if isinstance(error, RefusedError):
        return Failure("refused: private address")
    if isinstance(error, socket.gaierror):
        return Failure("host not found", answered=False)
    if isinstance(error, TimeoutError):
        return Failure("too slow", answered=False)
    if isinstance(error, ssl.SSLError):
        return Failure("certificate or TLS not valid", answered=False)
    if isinstance(error, ValueError):
        return Failure("not an address")
    return Failure("connection failed", answered=False)
