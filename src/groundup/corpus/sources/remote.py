"""Files at an address as a source of text: an object store, a web server, a dataset on the hub."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Literal

from pydantic import field_validator

from groundup.core.config import setting
from groundup.core.console import Console
from groundup.corpus.sources.credentials import resolve_variables
from groundup.corpus.sources.listed import ListedSource
from groundup.corpus.sources.remote_files import Remote, RemoteItem


class RemoteSource(ListedSource):
    """Files at addresses: https://, s3://, hf://datasets/ORG/NAME, or any other that fsspec knows.

    Logins come from where each store's own tools have them (~/.aws, `hf auth login`, ~/.netrc), or from the
    environment: `${NAME}` in an address or an option stands for the variable NAME.
    """

    kind: Literal["remote"] = setting("remote", help="files at addresses, read from where they are")
    urls: list[str] = setting(
        help='addresses: "https://HOST/FILE", "s3://BUCKET/FOLDER", "hf://datasets/ORG/NAME/**/*.parquet", ...'
    )

    @field_validator("urls")
    @classmethod
    def _are_addresses(cls, urls: list[str]) -> list[str]:
        for url in urls:
            if "://" not in url:
                raise ValueError(f'an address begins with a scheme, as "https://..."; {url!r} has none')
            if "*" in url and url.startswith(("http://", "https://")):
                raise ValueError(f"a web server does not list its files: name each of them instead of {url!r}")
        if not urls:
            raise ValueError("at least one address is needed")
        return urls

    @property
    def default_name(self) -> str:
        """The end of the first address."""
        return self.urls[0].partition("?")[0].rstrip("/").rpartition("/")[2].partition("*")[0] or "remote"

    @property
    def addresses(self) -> list[str]:
        """The URLs."""
        return self.urls

    def list_files(self, remote: Remote, console: Console) -> list[RemoteItem]:
        """What is at the addresses."""
        with console.progress("listing", len(self.urls), "addresses") as progress:
            found: list[RemoteItem] = []
            for url in self.urls:
                found += remote.find(resolve_variables(url))
                progress.advance()
        names = Counter(item.path for item in found)
        return [item if names[item.path] == 1 else replace(item, path=_place_in(item.url)) for item in found]

    def provenance(self) -> dict[str, str]:
        """The addresses, too."""
        return {"addresses": ", ".join(map(_without_query, self.urls))} | super().provenance()


def _place_in(url: str) -> str:
    """Host and path: the name of a file where another one has the same."""
    return _without_query(url).partition("://")[2].lstrip("/")


def _without_query(url: str) -> str:
    """Signed addresses hold a key behind the question mark, and old ones a login before the @."""
    scheme, _, rest = url.partition("?")[0].partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"
