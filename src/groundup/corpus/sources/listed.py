"""Base class for sources with remote files. The files are listed once and then streamed."""

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
from groundup.corpus.sources.credentials import resolve_variables, with_login, without_login
from groundup.corpus.sources.remote_files import Remote, RemoteItem


class ListedSource(SourceConfig):
    """Base class of sources with remote files.

    `fetch` lists the files. If a file is opened, its content is streamed and not stored.

    The file list (names, sizes, versions) is cached. If a file has changed since it was listed, opening it raises an
    error. A run that is resumed later therefore reads the same files.
    """

    edition: str = setting("", help="any text, such as today's date; the file list is cached until this text changes")
    pin: str | None = setting(
        None, help="expected digest of the file list, as shown in the data card; a different list is an error"
    )
    options: dict[str, str | int | bool] = setting(
        {}, help="options for the fsspec file system, such as {anon = true} for s3fs"
    )
    allow_private_hosts: bool = setting(False, help="allow hosts with private IP addresses, such as an internal mirror")

    @property
    def addresses(self) -> list[str]:
        """The URLs at which files are listed, as written in the recipe."""
        return []

    @abstractmethod
    def list_files(self, remote: Remote, console: Console) -> list[RemoteItem]:
        """Find the files over the network.

        Args:
            remote: Access to remote files.
            console: Output for progress.

        Returns:
            The files in a fixed order.
        """

    @property
    def remote(self) -> Remote:
        """Access to the remote files with the options and logins of this source."""
        public_only = not self.allow_private_hosts
        options = {
            key: resolve_variables(each) if isinstance(each, str) else each for key, each in self.options.items()
        }
        return Remote(Network(public_only=public_only, agent=user_agent(), credentials=netrc_logins()), options)

    def identity(self) -> str:
        """Return the setting `pin`, or a digest of the settings that select the files if `pin` is not set."""
        return self.pin or self._key

    @property
    def _key(self) -> str:
        selection = self.model_dump(mode="json", exclude=set(SourceConfig.model_fields) - {"files"} | {"pin"})
        selection = redacted_config(selection, variables=False)  # a password does not change which files are listed
        return hashlib.blake2b(json.dumps(selection, sort_keys=True).encode(), digest_size=16).hexdigest()

    @property
    def _list(self) -> Path:
        return cache_dir() / "lists" / f"{self._key}.json"

    def fetch(self, console: Console) -> None:
        """List the files, unless the cache already contains the list.

        Args:
            console: Output for progress.

        Raises:
            DownloadError: The file list, or a file in the list, is unreachable.
            DataError: No file was found, or the digest of the file list differs from the setting `pin`.
        """
        with locked(self._list.with_suffix(".lock"), wait=True):
            if not self._list.is_file():
                found = [item for item in self.list_files(self.remote, console) if self.chooses(item.path)]
                if not found:
                    raise DataError(
                        f"{self.label}: no files" + (f" that match {self.files}" if self.files else ""),
                        rule="a source needs at least one file",
                        fix="Check the URL and the patterns in `files`.",
                    )
                write_json(self._list, [asdict(item) | {"url": without_login(item.url)} for item in found])
        if self.pin not in (None, self._digest):
            raise DataError(
                f"{self.label}: the file list has digest {self._digest}",
                rule=f"the recipe pins {self.pin}",
                fix="To use the new files, update `pin`. To list the files again, change `edition`.",
            )

    @property
    def _digest(self) -> str:
        return hashlib.blake2b(self._list.read_bytes(), digest_size=16).hexdigest()

    def items(self) -> list[Item]:
        """Return the listed files."""
        return [_as_item(value) for value in read_json(self._list)]

    def open_items(self, items: Iterable[Item]) -> Iterator[tuple[Item, Opener]]:
        """Yield each file with a function that opens a stream of the file."""
        remote, addresses = self.remote, self.addresses
        for item in cast(Iterable[RemoteItem], items):
            yield item, partial(remote.open, replace(item, url=with_login(item.url, addresses)))

    def digest(self, item: Item) -> str:
        """Return the version that the remote store reports for a file (an ETag or a modification time)."""
        version = getattr(item, "version", "")
        return f"version:{version}" if version else ""

    def provenance(self) -> dict[str, str]:
        """Return the number of listed files, and the digest of the file list that a recipe can pin."""
        return {"files listed": f"{len(self.items()):,}", "pin": self._digest}


def _as_item(value: dict[str, object]) -> RemoteItem:
    ranges = tuple((start, size) for start, size in cast(list[tuple[int, int]], value.pop("ranges")))
    return RemoteItem(**cast(dict[str, str], value), ranges=ranges)  # type: ignore[arg-type]
