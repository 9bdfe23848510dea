"""Wikipedia and its sister projects as a text source. The module finds a dump and verifies the digests of its files."""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import field_validator

from groundup.core.config import setting
from groundup.core.console import Console
from groundup.core.errors import DataError
from groundup.core.redact import redacted
from groundup.corpus.sources.credentials import resolve_variables
from groundup.corpus.sources.listed import ListedSource
from groundup.corpus.sources.remote_files import Remote, RemoteItem

_JOB = "articlesmultistreamdump"
_PAGES = re.compile(r".*-pages-articles-multistream\d*\.xml.*\.bz2")  # the dump job also publishes index files


class WikipediaSource(ListedSource):
    """The articles in one dump of a wiki. The dump files are verified with the published digests."""

    kind: Literal["wikipedia"] = setting("wikipedia", help="the articles of a Wikimedia wiki")
    language: str = setting(
        "en", help='language code of the wiki, such as "de" or "simple"', pattern=r"^[a-z]+(-[a-z]+)*$"
    )
    project: str = setting(
        "wiki", help='name of the project, such as "wiki" (Wikipedia) or "wikibooks"', pattern=r"^wiki[a-z]*$"
    )
    date: str = setting("latest", help='date of the dump, such as "20250101", or "latest" for the newest finished dump')
    base: str = setting("https://dumps.wikimedia.org", help="URL of the server of the dumps, or of a mirror")
    genre: str = setting("encyclopedia", help="genre of the text, shown in the data card")
    license: str = setting("CC-BY-SA-4.0 and GFDL", help="license of the text, shown in the data card")

    @field_validator("date")
    @classmethod
    def _is_a_day(cls, value: str) -> str:
        if value != "latest" and not re.fullmatch(r"\d{8}", value):
            raise ValueError('must be a date such as "20250101", or "latest"')
        return value

    @property
    def default_name(self) -> str:
        """The database name of the wiki, such as "enwiki"."""
        return self._wiki

    @property
    def _wiki(self) -> str:
        return self.language.replace("-", "_") + self.project

    @property
    def _root(self) -> str:
        return f"{resolve_variables(self.base).rstrip('/')}/{self._wiki}"

    @property
    def addresses(self) -> list[str]:
        """The URL of the server that publishes the dumps."""
        return [self.base]

    def list_files(self, remote: Remote, console: Console) -> list[RemoteItem]:
        """Return the files of the dump. If the date is "latest", return the files of the newest finished dump."""
        days = [self.date] if self.date != "latest" else self._days(remote)
        for day in days:
            job = self._job(remote, day)
            if job.get("status") == "done":
                console.note(f'{self.label}: using the dump of {day}; to pin it, set date = "{day}"')
                return [
                    RemoteItem(
                        name,
                        int(about["size"]),
                        url=f"{self._root}/{day}/{name}",
                        sha1=about.get("sha1", ""),
                    )
                    for name, about in sorted(job["files"].items(), key=_first_page)
                    if _PAGES.fullmatch(name)
                ]
        raise DataError(
            f"{self._wiki}: no finished dump" + (f" of {self.date}" if len(days) == 1 else ""),
            rule=f"the server keeps only recent dumps, of the 1st or 20th (found: {', '.join(days) or 'no dumps'})",
            fix='Correct language, project or date, or set date = "latest".',
        )

    def _days(self, remote: Remote) -> list[str]:
        return sorted(set(re.findall(r'href="(\d{8})/"', remote.page(f"{self._root}/"))), reverse=True)

    def _job(self, remote: Remote, day: str) -> dict[str, Any]:
        (status,) = remote.json_lines(f"{self._root}/{day}/dumpstatus.json")
        job: dict[str, Any] = status.get("jobs", {}).get(_JOB, {})
        return job

    def provenance(self) -> dict[str, str]:
        """Return the wiki, the URL of the dump, and the digest of the file list."""
        day = next(iter(self.items())).url.split("/")[-2]  # type: ignore[attr-defined]
        return {
            "wiki": self._wiki,
            "dump": redacted(f"{self.base.rstrip('/')}/{self._wiki}/{day}/"),
        } | super().provenance()


def _first_page(entry: tuple[str, Any]) -> list[int]:
    """Return the numbers in a file name, which sort `...multistream9.xml` before `...multistream10.xml`."""
    return [int(number) for number in re.findall(r"\d+", entry[0])]
