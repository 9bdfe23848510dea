"""Deduplication: removal of near-duplicate documents and of repeated paragraphs, lines or spans of words."""

from groundup.corpus.dedup.find import FoundDuplicates, find_duplicates
from groundup.corpus.dedup.settings import NearDuplicateSettings, RepeatedTextSettings

__all__ = ["FoundDuplicates", "NearDuplicateSettings", "RepeatedTextSettings", "find_duplicates"]
