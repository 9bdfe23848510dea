"""Where text comes from. A new kind is one module with one subclass of `SourceConfig`, listed in `Source`."""

from typing import Annotated

from pydantic import Field

from groundup.corpus.sources.base import Item, Opener, SourceConfig
from groundup.corpus.sources.folder import FolderSource
from groundup.corpus.sources.package import PackageSource

Source = Annotated[FolderSource | PackageSource, Field(discriminator="kind")]

__all__ = ["FolderSource", "Item", "Opener", "PackageSource", "Source", "SourceConfig"]
