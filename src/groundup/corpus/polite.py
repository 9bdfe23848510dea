"""Fetches pages of many hosts at a time, and of each host one after another, as its robots.txt allows."""

from __future__ import annotations

import heapq
import http.client
import socket
import ssl
import threading
import time
import urllib.error
import urllib.parse
import zlib
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from groundup.corpus.network import AGENT, Network, RefusedError, is_final, is_redirect, pause_after
from groundup.corpus.page_store import Page, PageStore

_ATTEMPTS = 3
_REDIRECTS = 5
_WINDOW = 100_000  # links held in memory
_HOSTS = 10_000  # hosts whose robots.txt is remembered while no link of theirs waits
_ROBOTS_BYTES = 512 << 10  # RFC 9309: at least 500 KiB are read
_ROBOTS_SECONDS = 30.0
_CHUNK = 1 << 16

OUT_OF_REACH = "robots.txt is out of reach"  # RFC 9309, 2.3.1.4: then everything is disallowed
DISALLOWED = "robots.txt disallows it"


@dataclass(frozen=True, slots=True)
class Manners:
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
    longest_delay: float
    connections: int
    max_bytes: int
    max_seconds: float
    content_types: tuple[str, ...]


class _Failure(Exception):  # noqa: N818  not an error of ours
    """Why a link gave no page, in few words that are counted."""


@dataclass(frozen=True, slots=True)
class _Visit:
    """One address to ask for, on behalf of a link of the list."""

    link: str
    url: str
    attempt: int = 1
    hops: int = 0


@dataclass(slots=True)
class _Host:
    """What is known of a host; `rules` by scheme and port: parsed, or why nothing may be fetched there."""

    name: str
    queue: deque[_Visit] = field(default_factory=deque)
    ready: float = 0.0
    busy: bool = False
    rules: dict[str, Any] = field(default_factory=dict)


class PoliteFetcher:
    """Fetches a list of links into a store.

    Each host is asked by one connection at a time. A redirect is a new visit, so that robots.txt, pace and address
    of its target are checked like those of any link.
    """

    def __init__(self, network: Network, manners: Manners, store: PageStore, on_done: Callable[[], None]) -> None:
        self._network = network
        self._manners = manners
        self._store = store
        self._on_done = on_done
        self._changed = threading.Condition()
        self._hosts: OrderedDict[str, _Host] = OrderedDict()
        self._heap: list[tuple[float, str]] = []
        self._waiting = 0  # visits in queues
        self._underway = 0
        self._links: Iterator[str] = iter(())
        self._stopped = False
        self._problem: BaseException | None = None

    def run(self, links: Iterator[str]) -> None:
        """Fetch all that the store does not know yet. What goes wrong with a link is noted there, never raised."""
        self._links = links
        threads = [
            threading.Thread(target=self._work, name=f"fetch-{number}", daemon=True)
            for number in range(self._manners.connections)
        ]
        for thread in threads:
            thread.start()
        try:
            while any(thread.is_alive() for thread in threads):
                for thread in threads:
                    thread.join(0.2)
        finally:
            with self._changed:
                self._stopped = True
                self._changed.notify_all()
        if self._problem is not None:
            raise self._problem

    def _work(self) -> None:
        try:
            while (taken := self._take()) is not None:
                host, visit = taken
                pause = self._handle(host, visit)
                with self._changed:
                    host.busy = False
                    host.ready = time.monotonic() + pause
                    self._underway -= 1
                    self._offer(host)
        except BaseException as problem:
            with self._changed:
                self._problem = self._problem or problem
                self._stopped = True
                self._changed.notify_all()

    def _take(self) -> tuple[_Host, _Visit] | None:
        """The next visit whose host may be asked; waits for one, None when all are done."""
        with self._changed:
            while not self._stopped:
                self._refill()
                now = time.monotonic()
                if self._heap and self._heap[0][0] <= now:
                    host = self._hosts[heapq.heappop(self._heap)[1]]
                    host.busy = True
                    self._waiting -= 1
                    self._underway += 1
                    return host, host.queue.popleft()
                if not self._heap and not self._underway:
                    self._changed.notify_all()
                    return None
                self._changed.wait(self._heap[0][0] - now if self._heap else None)
        return None

    def _refill(self) -> None:
        while self._waiting < _WINDOW and (link := next(self._links, None)) is not None:
            self._enqueue(_Visit(link, link))

    def _enqueue(self, visit: _Visit) -> None:
        name = urllib.parse.urlsplit(visit.url).hostname or ""
        host = self._hosts.get(name)
        if host is None:
            host = self._hosts[name] = _Host(name)
            self._forget()
        self._hosts.move_to_end(name)
        idle = not host.queue
        host.queue.append(visit)
        self._waiting += 1
        if idle:
            self._offer(host)

    def _offer(self, host: _Host) -> None:
        """Let the host be taken when its time comes."""
        if host.queue and not host.busy:
            heapq.heappush(self._heap, (host.ready, host.name))
        self._changed.notify_all()

    def _forget(self) -> None:
        """Drop hosts that were not needed for longest: robots.txt of millions would not fit."""
        for name in [*self._hosts][: max(0, len(self._hosts) - _HOSTS)]:
            host = self._hosts[name]
            if not host.queue and not host.busy and host.ready <= time.monotonic():
                del self._hosts[name]

    def _handle(self, host: _Host, visit: _Visit) -> float:
        """Make one visit; returns the seconds for which the host is left alone."""
        pause, asked = self._manners.delay, True
        try:
            asked = self._learn_rules(host, visit.url)
            pause = self._pace(host, visit.url)
            if asked:  # that was a request: the page is the next one
                self._again(host, visit)
                return pause
            asked = True
            page = self._fetch(visit.url)
        except _Failure as failure:
            self._settle(visit, str(failure))
            return pause if asked else 0.0
        except (OSError, http.client.HTTPException, ValueError) as error:
            if is_redirect(error):
                self._follow(visit, error)
            elif visit.attempt < _ATTEMPTS and not is_final(error):
                self._again(host, replace(visit, attempt=visit.attempt + 1))
                return max(pause, pause_after(error, visit.attempt))
            else:
                self._settle(visit, _reason(error))
            return pause
        with self._changed:
            self._store.add(visit.link, page)
            self._on_done()
        return pause

    def _settle(self, visit: _Visit, reason: str) -> None:
        with self._changed:
            self._store.fail(visit.link, reason)
            self._on_done()

    def _again(self, host: _Host, visit: _Visit) -> None:
        with self._changed:
            host.queue.appendleft(visit)
            self._waiting += 1

    def _follow(self, visit: _Visit, error: Any) -> None:
        location = error.headers.get("Location") or ""
        error.close()
        try:
            target = normalized(urllib.parse.urljoin(visit.url, location))
        except ValueError:
            target = ""
        if not target.startswith(("http://", "https://")):
            self._settle(visit, "redirect to no http or https address")
        elif visit.hops >= _REDIRECTS:
            self._settle(visit, "redirected too often")
        else:
            with self._changed:
                self._enqueue(_Visit(visit.link, target, hops=visit.hops + 1))

    def _learn_rules(self, host: _Host, url: str) -> bool:
        """Read the host's robots.txt; whether that took a request."""
        place = _place(url)
        if place in host.rules:
            return False
        host.rules[place] = self._fetch_robots(f"{place}/robots.txt")
        return True

    def _pace(self, host: _Host, url: str) -> float:
        """Seconds between requests to the host; raises `_Failure` where its robots.txt is against this one."""
        rules = host.rules[_place(url)]
        if isinstance(rules, str):
            raise _Failure(rules)
        if not rules.can_fetch(url, AGENT):
            raise _Failure(DISALLOWED)
        rate = rules.request_rate(AGENT)
        asked = max(rules.crawl_delay(AGENT) or 0.0, rate.seconds / rate.requests if rate and rate.requests else 0.0)
        if asked > self._manners.longest_delay:
            raise _Failure(f"robots.txt asks for more than {self._manners.longest_delay:g} seconds between requests")
        return max(self._manners.delay, asked)

    def _fetch_robots(self, url: str) -> Any:
        """The rules of a host (RFC 9309), where none is no rule; or the reason why nothing there may be fetched."""
        from protego import Protego

        for attempt in range(1, _ATTEMPTS + 1):
            try:
                with self._network.exchange(url, {}, seconds=_ROBOTS_SECONDS, follow=True) as response:
                    return Protego.parse(response.read(_ROBOTS_BYTES).decode("utf-8", "replace"))
            except urllib.error.HTTPError as error:
                error.close()
                if 400 <= error.code < 500 and error.code != 429:
                    return Protego.parse("")
                problem: Exception = error
            except (OSError, http.client.HTTPException, ValueError) as error:
                problem = error
                if is_final(error):
                    break
            if attempt < _ATTEMPTS:
                time.sleep(min(pause_after(problem, attempt), self._manners.longest_delay))
        told = isinstance(problem, (RefusedError, socket.gaierror, ssl.SSLError))
        return _reason(problem) if told else OUT_OF_REACH

    def _fetch(self, url: str) -> Page:
        manners = self._manners
        wanted = ", ".join(manners.content_types) + ";q=0.9, */*;q=0.1"
        headers = {"Accept": wanted, "Accept-Encoding": "gzip"}
        with self._network.exchange(url, headers, seconds=manners.max_seconds) as response:
            if response.status != 200:
                raise _Failure(f"HTTP {response.status}")
            media = response.headers.get_content_type()
            kinds = (media, media.partition("/")[0] + "/*", "*/*")
            if response.headers.get("Content-Type") and not any(kind in manners.content_types for kind in kinds):
                raise _Failure(f"content type {media if media.startswith(('text/', 'application/')) else kinds[1]}")
            coding = (response.headers.get("Content-Encoding") or "identity").strip().lower()
            body = _read(response, coding, manners.max_bytes)
            told = [(name, str(value)) for name, value in response.headers.items()]
            return Page(url, response.status, response.reason, told, body, time.time())


def _read(response: http.client.HTTPResponse, coding: str, max_bytes: int) -> bytes:
    """The decoded body; no more of it is held than is allowed, whatever it would unpack to."""
    if coding not in ("identity", "gzip", "x-gzip", "deflate"):
        raise _Failure("unknown content encoding")
    length = response.headers.get("Content-Length") or ""
    if length.isdigit() and int(length) > max_bytes:
        raise _Failure("too large")
    decoder = None if coding == "identity" else zlib.decompressobj(wbits=47)  # gzip or zlib, by its first bytes
    body, got = bytearray(), 0
    while chunk := response.read1(_CHUNK):
        got += len(chunk)
        try:
            body += decoder.decompress(chunk, max_bytes + 1 - len(body)) if decoder else chunk
        except zlib.error as error:
            raise _Failure("damaged content encoding") from error
        if len(body) > max_bytes:
            raise _Failure("too large")
    if length.isdigit() and got < int(length):
        raise http.client.IncompleteRead(b"", int(length) - got)
    return bytes(body)


def _place(url: str) -> str:
    parts = urllib.parse.urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def normalized(url: str) -> str:
    """The address as it is asked for: no fragment, host in lower case and ASCII, nothing that HTTP forbids.

    Raises:
        ValueError: not an address.
    """
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


def _reason(error: Exception) -> str:
    """Why a link gave no page, in words that are the same for all of that kind."""
    if isinstance(error, urllib.error.HTTPError):
        error.close()
        return f"HTTP {error.code}"
    if isinstance(error, RefusedError):
        return "refused: private address"
    if isinstance(error, socket.gaierror):
        return "host not found"
    if isinstance(error, TimeoutError):
        return "too slow"
    if isinstance(error, ssl.SSLError):
        return "certificate or TLS not valid"
    if isinstance(error, ValueError):
        return "not an address"
    return "connection failed"
