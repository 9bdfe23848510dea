"""Fetches pages of many hosts at a time, and of each host one after another, as its robots.txt allows."""

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
    Rules,
    failure_of,
    fetch_page,
    fetch_rules,
    normalize_url,
)
from groundup.corpus.fetching.store import PageStore

_REDIRECTS = 5
_WINDOW = 100_000  # links held in memory
_HOSTS = 2_000  # hosts that are remembered while no link of theirs waits
_DOUBTED = 100  # links in a row without any answer: perhaps it is our own network that is down


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
    rules: dict[str, Rules | Failure] = field(default_factory=dict)


class PageFetcher:
    """Fetches a list of links into a store.

    Each host is asked by one connection at a time. A redirect is a new visit, so that robots.txt, pace and address
    of its target are checked like those of any link.
    """

    def __init__(self, network: Network, manners: CrawlPolicy, store: PageStore, on_done: Callable[[], None]) -> None:
        self._network = network
        self._manners = manners
        self._store = store
        self._on_done = on_done
        self._changed = threading.Condition()
        self._hosts: dict[str, _Host] = {}
        self._crowded = _HOSTS
        self._heap: list[tuple[float, str]] = []
        self._waiting = 0  # visits in queues
        self._underway = 0
        self._links: Iterator[str] = iter(())
        self._stopped = False
        self._problem: BaseException | None = None
        self._doubted: list[tuple[str, str]] = []  # (link, why it seems to have failed)
        self._good = store.some_page()  # the last address that answered

    def run(self, links: Iterator[str]) -> None:
        """Fetch all that the store does not know yet. What goes wrong with a link is noted there, never raised.

        Raises:
            DownloadError: nothing is heard of anyone any more; what failed for that is not noted.
        """
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
        if self._doubted:
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
            self._forget()
            host = self._hosts[name] = _Host(name)
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
        """Now and then drop the hosts that nothing waits for: a list names millions."""
        if len(self._hosts) < self._crowded:
            return
        now = time.monotonic()
        self._hosts = {name: host for name, host in self._hosts.items() if host.queue or host.busy or host.ready > now}
        self._crowded = 2 * len(self._hosts) + _HOSTS

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
            page = fetch_page(self._network, visit.url, self._manners)
        except Failure as failure:
            self._settle(visit, failure)
            return pause if asked else 0.0
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
                self._doubted.append((visit.link, failure.reason))
            self._on_done()
        if len(self._doubted) >= _DOUBTED:
            self._check_network()

    def _answered(self, url: str) -> None:
        """The network is there: what failed, failed by itself."""
        self._good = url
        for link, reason in self._doubted:
            self._store.fail(link, reason)
        self._doubted.clear()

    def _check_network(self) -> None:
        """Ask a host that has answered before; raises `DownloadError` where not even that one does."""
        good = self._good
        if good is not None:
            rules = fetch_rules(self._network, _place(good), self._manners.max_delay)
            if not isinstance(rules, Failure) or rules.answered:
                with self._changed:
                    self._answered(good)
                return
        raise DownloadError(
            f"{len(self._doubted):,} links, one after another, without an answer, e.g. {self._doubted[0][0]}",
            rule="links are fetched while the network works",
            fix="Check the network (and the proxy), then run this again: it goes on.",
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
            self._settle(visit, Failure("redirect to no http or https address"))
        elif visit.hops >= _REDIRECTS:
            self._settle(visit, Failure("redirected too often"))
        else:
            with self._changed:
                self._enqueue(_Visit(visit.link, target, hops=visit.hops + 1))

    def _learn_rules(self, host: _Host, url: str) -> bool:
        """Read the host's robots.txt; whether that took a request."""
        place = _place(url)
        if place in host.rules:
            return False
        rules = host.rules[place] = fetch_rules(self._network, place, self._manners.max_delay)
        if not isinstance(rules, Failure):
            with self._changed:
                self._answered(url)
        return True

    def _pace(self, host: _Host, url: str) -> float:
        """Seconds between requests to the host; raises `Failure` where its robots.txt is against this one."""
        rules = host.rules[_place(url)]
        if isinstance(rules, Failure):
            raise Failure(rules.reason, answered=rules.answered)
        allowed, asked = rules.judge(url)
        if not allowed:
            raise Failure("robots.txt disallows it")
        if asked > self._manners.max_delay:
            raise Failure(f"robots.txt asks for more than {self._manners.max_delay:g} seconds between requests")
        return max(self._manners.delay, asked)


def _place(url: str) -> str:
    parts = urllib.parse.urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
