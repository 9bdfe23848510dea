"""Remote files as a text source: object stores, web servers, and datasets on the Hugging Face Hub."""

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
    """Files at https://, s3://, hf://datasets/ORG/NAME, or any other URL that fsspec supports.

    Logins are read from ~/.aws, `hf auth login` and ~/.netrc. `${NAME}` in a URL or an option is replaced by the
    environment variable NAME.
    """

    kind: Literal["remote"] = setting("remote", help="remote files, which are streamed and not stored")
    urls: list[str] = setting(
        help='URLs: "https://HOST/FILE", "s3://BUCKET/FOLDER", "hf://datasets/ORG/NAME/**/*.parquet", ...'
    )

    @field_validator("urls")
    @classmethod
    def _are_addresses(cls, urls: list[str]) -> list[str]:
        for url in urls:
            if "://" not in url:
                raise ValueError(f'{url!r} has no scheme such as "https://"')
            if "*" in url and url.startswith(("http://", "https://")):
                raise ValueError(f"patterns do not work on web servers: list each file instead of {url!r}")
        if not urls:
            raise ValueError("the setting urls needs at least one URL")
        return urls

    @property
    def default_name(self) -> str:
        """The last component of the path in the first URL."""
        return self.urls[0].partition("?")[0].rstrip("/").rpartition("/")[2].partition("*")[0] or "remote"

    @property
    def addresses(self) -> list[str]:
        """The URLs."""
        return self.urls

    def list_files(self, remote: Remote, console: Console) -> list[RemoteItem]:
        """List the files at all URLs of the source."""
        with console.progress("listing", len(self.urls), "URLs") as progress:
            found: list[RemoteItem] = []
            for url in self.urls:
                found += remote.find(resolve_variables(url))
                progress.advance()
        names = Counter(item.path for item in found)
        return [item if names[item.path] == 1 else replace(item, path=_host_and_path(item.url)) for item in found]

    def provenance(self) -> dict[str, str]:
        """Return the URLs, the number of files and the digest of the file list."""
        return {"urls": ", ".join(map(_without_query, self.urls))} | super().provenance()


def _host_and_path(url: str) -> str:
    """Return the host and path of a URL, which name a file whose base name is not unique."""
    return _without_query(url).partition("://")[2].lstrip("/")


def _without_query(url: str) -> str:
    """Remove the login and the query of a URL. A query may contain a signature."""
    scheme, _, rest = url.partition("?")[0].partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"
