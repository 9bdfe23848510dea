"""Deduplication: near-duplicate documents and repeated paragraphs, lines or spans."""

from groundup.corpus.dedup.find import FoundDuplicates, find_duplicates
from groundup.corpus.dedup.settings import NearDuplicateSettings, RepeatedTextSettings

__all__ = ["FoundDuplicates", "NearDuplicateSettings", "RepeatedTextSettings", "find_duplicates"]
