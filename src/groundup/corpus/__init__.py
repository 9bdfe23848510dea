"""Text in, a corpus out: sources, cleaning, filters, exact dedup, Parquet shards, a data card. No torch."""

from groundup.corpus.build import build_corpus
from groundup.corpus.card import read_card
from groundup.corpus.settings import CorpusSettings
from groundup.corpus.shards import read_documents, shard_paths
from groundup.corpus.sources import FolderSource, PackageSource, Source

__all__ = [
    "CorpusSettings",
    "FolderSource",
    "PackageSource",
    "Source",
    "build_corpus",
    "read_card",
    "read_documents",
    "shard_paths",
]
