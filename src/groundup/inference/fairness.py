"""Fairness between clients: tokens are counted per client, and the client with the lowest count is next.

The counter is the Virtual Token Counter of Sheng et al. 2024 (https://arxiv.org/abs/2401.00588). A client is a path,
such as (address, user): addresses share the machine equally, and the users of an address share its part equally.
"""

from __future__ import annotations

import itertools
from collections import deque
from dataclasses import dataclass
from typing import Generic, TypeVar

OUTPUT_WEIGHT = 2  # one output token counts as much as two prompt tokens, as in the paper
_MAX_ABSENT = 1024  # counters of clients without requests, so that forged names do not fill the memory

Client = tuple[str, ...]
T = TypeVar("T")


@dataclass(slots=True, eq=False)
class ClientShare:
    """What one client, or all users of one address, have received.

    Attributes:
        tokens: Weighted number of tokens that were computed for its requests.
        num_requests: Number of its requests that wait or run.
        num_running: Number of its requests that run.
    """

    tokens: float = 0.0
    num_requests: int = 0
    num_running: int = 0


class ClientShares:
    """The shares of all clients."""

    def __init__(self) -> None:
        self._shares: dict[Client, ClientShare] = {}

    def join(self, client: Client) -> tuple[ClientShare, ...]:
        """Count a new request of a client.

        A client that had no requests starts with the smallest counter of the active clients. It cannot save up tokens
        while it does not use the server.

        Returns:
            The shares of the client and of the groups that contain it, the largest group first.
        """
        if not any(share.num_requests for share in self._shares.values()):
            self._shares.clear()  # the server was idle, so past use does not matter
        path = [self._share(client[:level]) for level in range(1, len(client) + 1)] or [self._share(())]
        for share in path:
            share.num_requests += 1
        return tuple(path)

    def leave(self, path: tuple[ClientShare, ...]) -> None:
        """Count the end of a request. `path` is what `join` returned."""
        for share in path:
            share.num_requests -= 1
        if len(self._shares) > _MAX_ABSENT:
            self._shares = {name: share for name, share in self._shares.items() if share.num_requests}

    def _share(self, name: Client) -> ClientShare:
        share = self._shares.setdefault(name, ClientShare())
        if not share.num_requests:
            others = (each.tokens for key, each in self._shares.items() if each.num_requests and key[:-1] == name[:-1])
            share.tokens = max(share.tokens, min(others, default=0.0))
        return share


class FairQueue(Generic[T]):
    """A queue of items of several clients. The items of one client stay in order."""

    def __init__(self) -> None:
        self._queues: dict[ClientShare, deque[tuple[int, tuple[ClientShare, ...], T]]] = {}
        self._numbers = itertools.count()

    def __len__(self) -> int:
        return sum(len(queue) for queue in self._queues.values())

    def num_items(self, path: tuple[ClientShare, ...]) -> int:
        """Return the number of items of one client."""
        return len(self._queues.get(path[-1], ()))

    def put(self, item: T, path: tuple[ClientShare, ...]) -> None:
        """Append an item of the client with these shares."""
        self._queues.setdefault(path[-1], deque()).append((next(self._numbers), path, item))

    def take(self, *, newcomers_only: bool = False) -> T | None:
        """Remove and return the next item: the oldest one of the client with the lowest token counter.

        Args:
            newcomers_only: Whether to consider only clients without running requests.

        Returns:
            The item, or None if the queue has no such item.
        """
        heads = [queue[0] for share, queue in self._queues.items() if not (newcomers_only and share.num_running)]
        if not heads:
            return None
        _, path, item = min(heads, key=lambda head: ([share.tokens for share in head[1]], head[0]))
        self._queues[path[-1]].popleft()
        self._drop_if_empty(path[-1])
        return item

    def remove(self, item: T, path: tuple[ClientShare, ...]) -> bool:
        """Remove an item of a client. Return whether the item was in the queue."""
        queue = self._queues.get(path[-1], deque())
        found = next((entry for entry in queue if entry[2] is item), None)
        if found is None:
            return False
        queue.remove(found)
        self._drop_if_empty(path[-1])
        return True

    def _drop_if_empty(self, share: ClientShare) -> None:
        if not self._queues[share]:
            del self._queues[share]
