"""Text sources. To add a kind of source, write a module with a subclass of `SourceConfig` and add it to `Source`."""

from typing import Annotated

from pydantic import Field

from groundup.corpus.sources.base import Item, Opener, SourceConfig
from groundup.corpus.sources.crawl import CrawlSource
from groundup.corpus.sources.folder import FolderSource
from groundup.corpus.sources.links import LinksSource
from groundup.corpus.sources.package import PackageSource
from groundup.corpus.sources.remote import RemoteSource
from groundup.corpus.sources.wikipedia import WikipediaSource

Source = Annotated[
    FolderSource | PackageSource | RemoteSource | CrawlSource | LinksSource | WikipediaSource,
    Field(discriminator="kind"),
]

__all__ = [
    "CrawlSource",
    "FolderSource",
    "Item",
    "LinksSource",
    "Opener",
    "PackageSource",
    "RemoteSource",
    "Source",
    "SourceConfig",
    "WikipediaSource",
]
