"""Fetch pages from many hosts concurrently, with one connection per host. The fetcher obeys robots.txt."""

from __future__ import annotations

import heapq
import http.client
import threading
import time
import urllib.parse
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from groundup.core.errors import DownloadError
from groundup.corpus.fetching.network import Network, is_final, is_redirect, retry_delay
from groundup.corpus.fetching.pages import (
    ATTEMPTS,
    CrawlPolicy,
    Failure,
    RobotsRules,
    failure_of,
    fetch_page,
    fetch_robots,
    normalize_url,
)
from groundup.corpus.fetching.store import PageStore

_MAX_REDIRECTS = 5
_WINDOW = 100_000  # maximum number of links to hold in memory
_HOSTS = 2_000  # number of idle hosts to keep in memory
_MAX_UNANSWERED = 100  # the network is checked if this number of consecutive links had no response


@dataclass(frozen=True, slots=True)
class _Visit:
    """One request: the URL to fetch for a link in the list."""

    link: str
    url: str
    attempt: int = 1
    hops: int = 0


@dataclass(slots=True)
class _Host:
    """The state of a host.

    `rules` maps each origin to its robots.txt rules, or to the reason why they are unavailable.
    """

    name: str
    queue: deque[_Visit] = field(default_factory=deque)
    ready: float = 0.0
    busy: bool = False
    rules: dict[str, RobotsRules | Failure] = field(default_factory=dict)


class PageFetcher:
    """Fetches the pages of a list of links into a store, with one connection per host.

    A redirect is treated as a new request, so the checks of robots.txt, delay and IP address also apply to its target.

    Args:
        network: HTTP client.
        policy: Limits for requests.
        store: Store to which pages and failures are written.
        on_done: Function that is called after each link.
    """

    def __init__(self, network: Network, policy: CrawlPolicy, store: PageStore, on_done: Callable[[], None]) -> None:
        self._network = network
        self._policy = policy
        self._store = store
        self._on_done = on_done
        self._changed = threading.Condition()
        self._hosts: dict[str, _Host] = {}
        self._max_hosts = _HOSTS
        self._heap: list[tuple[float, str]] = []
        self._waiting = 0  # total number of requests in the queues of all hosts
        self._underway = 0
        self._links: Iterator[str] = iter(())
        self._stopped = False
        self._problem: BaseException | None = None
        self._unanswered: list[tuple[str, str]] = []  # (link, reason)
        self._last_answered = store.some_page()

    def run(self, links: Iterator[str]) -> None:
        """Fetch all links. If the page of a link cannot be fetched, the store records the failure.

        Args:
            links: URLs whose outcome is not in the store.

        Raises:
            DownloadError: The network is down. Links that failed because the network is down are not recorded.
        """
        self._links = links
        threads = [
            threading.Thread(target=self._work, name=f"fetch-{number}", daemon=True)
            for number in range(self._policy.connections)
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
        if self._unanswered:
            self._check_network()

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
        """Wait until a host is ready, and return the host with its next request.

        Return None when all requests are done.
        """
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
            self._forget()
            host = self._hosts[name] = _Host(name)
        idle = not host.queue
        host.queue.append(visit)
        self._waiting += 1
        if idle:
            self._offer(host)

    def _offer(self, host: _Host) -> None:
        """Schedule a host if its queue contains requests and the host is not busy."""
        if host.queue and not host.busy:
            heapq.heappush(self._heap, (host.ready, host.name))
        self._changed.notify_all()

    def _forget(self) -> None:
        """Remove idle hosts from memory from time to time, because a list may contain millions of hosts."""
        if len(self._hosts) < self._max_hosts:
            return
        now = time.monotonic()
        self._hosts = {name: host for name, host in self._hosts.items() if host.queue or host.busy or host.ready > now}
        self._max_hosts = 2 * len(self._hosts) + _HOSTS

    def _handle(self, host: _Host, visit: _Visit) -> float:
        """Send one request, and return the delay in seconds before the next request to the host."""
        pause, requested = self._policy.delay, True
        try:
            requested = self._fetch_robots(host, visit.url)
            pause = self._pace(host, visit.url)
            if requested:  # robots.txt was requested, so the page is requested next
                self._again(host, visit)
                return pause
            requested = True
            page = fetch_page(self._network, visit.url, self._policy)
        except Failure as failure:
            self._settle(visit, failure)
            return pause if requested else 0.0
        except (OSError, http.client.HTTPException, ValueError) as error:
            if is_redirect(error):
                self._follow(visit, error)
            elif visit.attempt < ATTEMPTS and not is_final(error):
                self._again(host, replace(visit, attempt=visit.attempt + 1))
                return max(pause, retry_delay(error, visit.attempt))
            else:
                self._settle(visit, failure_of(error))
            return pause
        with self._changed:
            self._answered(visit.url)
            self._store.add(visit.link, page)
            self._on_done()
        return pause

    def _settle(self, visit: _Visit, failure: Failure) -> None:
        with self._changed:
            if failure.answered:
                self._store.fail(visit.link, failure.reason)
            else:
                self._unanswered.append((visit.link, failure.reason))
            self._on_done()
        if len(self._unanswered) >= _MAX_UNANSWERED:
            self._check_network()

    def _answered(self, url: str) -> None:
        """Record all links without a response as failed, because a response from `url` shows that the network works."""
        self._last_answered = url
        for link, reason in self._unanswered:
            self._store.fail(link, reason)
        self._unanswered.clear()

    def _check_network(self) -> None:
        """Send a request to a host that responded before. If the host does not respond, raise `DownloadError`."""
        known = self._last_answered
        if known is not None:
            rules = fetch_robots(self._network, _origin(known), self._policy.max_delay)
            if not isinstance(rules, Failure) or rules.answered:
                with self._changed:
                    self._answered(known)
                return
        raise DownloadError(
            f"{len(self._unanswered):,} consecutive links had no response, for example {self._unanswered[0][0]}",
            fix="Check the network and the proxy, then run the command again to resume.",
        )

    def _again(self, host: _Host, visit: _Visit) -> None:
        with self._changed:
            host.queue.appendleft(visit)
            self._waiting += 1

    def _follow(self, visit: _Visit, error: Any) -> None:
        location = error.headers.get("Location") or ""
        error.close()
        try:
            target = normalize_url(urllib.parse.urljoin(visit.url, location))
        except ValueError:
            target = ""
        if not target.startswith(("http://", "https://")):
            self._settle(visit, Failure("redirect to a URL that is not http or https"))
        elif visit.hops >= _MAX_REDIRECTS:
            self._settle(visit, Failure("too many redirects"))
        else:
            with self._changed:
                self._enqueue(_Visit(visit.link, target, hops=visit.hops + 1))

    def _fetch_robots(self, host: _Host, url: str) -> bool:
        """Fetch the robots.txt of a host if it is unknown, and return whether a request was sent."""
        origin = _origin(url)
        if origin in host.rules:
            return False
        rules = host.rules[origin] = fetch_robots(self._network, origin, self._policy.max_delay)
        if not isinstance(rules, Failure):
            with self._changed:
                self._answered(url)
        return True

    def _pace(self, host: _Host, url: str) -> float:
        """Return the delay for a host in seconds. Raise `Failure` if robots.txt disallows the URL."""
        rules = host.rules[_origin(url)]
        if isinstance(rules, Failure):
            raise Failure(rules.reason, answered=rules.answered)
        allowed, required = rules.check(url)
        if not allowed:
            raise Failure("disallowed by robots.txt")
        if required > self._policy.max_delay:
            raise Failure(f"robots.txt requires more than {self._policy.max_delay:g} seconds between requests")
        return max(self._policy.delay, required)


def _origin(url: str) -> str:
    parts = urllib.parse.urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
