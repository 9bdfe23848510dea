"""Wikipedia (and its sisters) as a source of text: the dump's address is found, its digests are checked."""

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
_PAGES = re.compile(r".*-pages-articles-multistream\d*\.xml.*\.bz2")  # the same job leaves indexes, as text


class WikipediaSource(ListedSource):
    """The articles of a wiki, from its dump of one day, with the digests that the dump's own page tells."""

    kind: Literal["wikipedia"] = setting("wikipedia", help="the articles of a Wikimedia wiki")
    language: str = setting("en", help='the wiki\'s language code, e.g. "de", "simple"', pattern=r"^[a-z]+(-[a-z]+)*$")
    project: str = setting("wiki", help='"wiki" is Wikipedia; "wikibooks", "wikinews", ...', pattern=r"^wiki[a-z]*$")
    date: str = setting("latest", help='day of the dump, e.g. "20250101", or "latest": the newest finished one')
    base: str = setting("https://dumps.wikimedia.org", help="where the dumps are: the original or a mirror")
    genre: str = setting("encyclopedia", help="kind of text, for the data card")
    license: str = setting("CC-BY-SA-4.0 and GFDL", help="license of the text, for the data card")

    @field_validator("date")
    @classmethod
    def _is_a_day(cls, value: str) -> str:
        if value != "latest" and not re.fullmatch(r"\d{8}", value):
            raise ValueError('a day is written as "20250101"; or "latest"')
        return value

    @property
    def default_name(self) -> str:
        """The wiki, as the dumps call it."""
        return self._wiki

    @property
    def _wiki(self) -> str:
        return self.language.replace("-", "_") + self.project

    @property
    def _root(self) -> str:
        return f"{resolve_variables(self.base).rstrip('/')}/{self._wiki}"

    @property
    def addresses(self) -> list[str]:
        """Where the dumps are."""
        return [self.base]

    def list_files(self, remote: Remote, console: Console) -> list[RemoteItem]:
        """The parts of the dump; of "latest", the newest one that is finished."""
        days = [self.date] if self.date != "latest" else self._days(remote)
        for day in days:
            job = self._job(remote, day)
            if job.get("status") == "done":
                console.note(f'{self.label}: the dump of {day}; to pin it, write date = "{day}"')
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
            rule=f"dumps of the last months are kept, from a 1st or a 20th (seen: {', '.join(days) or 'none'})",
            fix='Correct language, project or date, or give date = "latest".',
        )

    def _days(self, remote: Remote) -> list[str]:
        return sorted(set(re.findall(r'href="(\d{8})/"', remote.page(f"{self._root}/"))), reverse=True)

    def _job(self, remote: Remote, day: str) -> dict[str, Any]:
        (status,) = remote.json_lines(f"{self._root}/{day}/dumpstatus.json")
        job: dict[str, Any] = status.get("jobs", {}).get(_JOB, {})
        return job

    def provenance(self) -> dict[str, str]:
        """The wiki and the dump's address."""
        day = next(iter(self.items())).url.split("/")[-2]  # type: ignore[attr-defined]
        return {
            "wiki": self._wiki,
            "dump": redacted(f"{self.base.rstrip('/')}/{self._wiki}/{day}/"),
        } | super().provenance()


def _first_page(entry: tuple[str, Any]) -> list[int]:
    """`...multistream10.xml-p3p9.bz2` after `...multistream9.xml-p1p2.bz2`."""
    return [int(number) for number in re.findall(r"\d+", entry[0])]
