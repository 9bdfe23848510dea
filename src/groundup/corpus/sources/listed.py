"""What sources elsewhere have in common: their files are listed once, and read from where they are."""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import cast

from groundup.core.config import setting
from groundup.core.console import Console
from groundup.core.errors import DataError
from groundup.core.files import cache_dir, read_json, write_json
from groundup.core.locks import locked
from groundup.core.redact import redacted_config
from groundup.corpus.fetching.network import Network, netrc_logins, user_agent
from groundup.corpus.sources.base import Item, Opener, SourceConfig
from groundup.corpus.sources.credentials import revealed, with_login, without_login
from groundup.corpus.sources.remote_files import Remote, RemoteItem


class ListedSource(SourceConfig):
    """Files elsewhere. `fetch` lists them; the text itself is streamed by whoever opens an item, and kept nowhere.

    The list (names, sizes, versions) stays in the cache, and a file that is no longer the one that was listed is an
    error: a corpus that is gone on with tomorrow is made of the same files as today.
    """

    edition: str = setting(
        "", help="any word, e.g. today's date: files are listed once, and anew when this is another word"
    )
    pin: str | None = setting(
        None, help="digest of the list of files (the data card tells it); another list than this is refused"
    )
    options: dict[str, str | int | bool] = setting(
        {}, help="options of an object store's library, e.g. {anon = true} of s3fs"
    )
    allow_private_hosts: bool = setting(False, help="also read from hosts at private addresses: a mirror of your own")

    @property
    def addresses(self) -> list[str]:
        """The addresses that the files are listed by, as the recipe has them."""
        return []

    @abstractmethod
    def list_files(self, remote: Remote, console: Console) -> list[RemoteItem]:
        """Find the files, in a fixed order, over the network if need be."""

    @property
    def remote(self) -> Remote:
        """How the files are reached."""
        public_only = not self.allow_private_hosts
        options = {key: revealed(each) if isinstance(each, str) else each for key, each in self.options.items()}
        return Remote(Network(public_only=public_only, agent=user_agent(), credentials=netrc_logins()), options)

    def identity(self) -> str:
        """The pin, or what the files are listed by."""
        return self.pin or self._key

    @property
    def _key(self) -> str:
        wanted = self.model_dump(mode="json", exclude=set(SourceConfig.model_fields) - {"files"} | {"pin"})
        wanted = redacted_config(wanted, variables=False)  # another password lists the same files
        return hashlib.blake2b(json.dumps(wanted, sort_keys=True).encode(), digest_size=16).hexdigest()

    @property
    def _list(self) -> Path:
        return cache_dir() / "lists" / f"{self._key}.json"

    def fetch(self, console: Console) -> None:
        """List the files, unless that was done before.

        Raises:
            DownloadError: the list, or a file of it, is out of reach.
            DataError: nothing was found, or not what is pinned.
        """
        with locked(self._list.with_suffix(".lock"), wait=True):
            if not self._list.is_file():
                found = [item for item in self.list_files(self.remote, console) if self.chooses(item.path)]
                if not found:
                    raise DataError(
                        f"{self.label}: no files" + (f" that match {self.files}" if self.files else ""),
                        rule="a source needs at least one file",
                        fix="Check the address and the patterns in `files`.",
                    )
                write_json(self._list, [asdict(item) | {"url": without_login(item.url)} for item in found])
        if self.pin not in (None, self._digest):
            raise DataError(
                f"{self.label}: the list of its files has the digest {self._digest}",
                rule=f"the recipe pins {self.pin}",
                fix="If the new files are wanted, change `pin`; if they were listed at another time, change `edition`.",
            )

    @property
    def _digest(self) -> str:
        return hashlib.blake2b(self._list.read_bytes(), digest_size=16).hexdigest()

    def items(self) -> list[Item]:
        """The files of the list."""
        return [_as_item(value) for value in read_json(self._list)]

    def open_items(self, items: Iterable[Item]) -> Iterator[tuple[Item, Opener]]:
        """Give each file with the call that opens it where it is."""
        remote, addresses = self.remote, self.addresses
        for item in cast(Iterable[RemoteItem], items):
            yield item, partial(remote.open, replace(item, url=with_login(item.url, addresses)))

    def digest(self, item: Item) -> str:
        """What its store says of its version (an ETag, or when it was changed): the file is not read for it."""
        version = getattr(item, "version", "")
        return f"version:{version}" if version else ""

    def provenance(self) -> dict[str, str]:
        """How many files, and what pins them."""
        return {"files listed": f"{len(self.items()):,}", "pin": self._digest}


def _as_item(value: dict[str, object]) -> RemoteItem:
    ranges = tuple((start, size) for start, size in cast(list[tuple[int, int]], value.pop("ranges")))
    return RemoteItem(**cast(dict[str, str], value), ranges=ranges)  # type: ignore[arg-type]
