"""What is in a corpus more than once, and what nearly is: near-duplicate documents, repeated paragraphs and lines."""

from groundup.corpus.dedup.find import FoundDuplicates, find_duplicates
from groundup.corpus.dedup.settings import NearDuplicateSettings, RepeatedTextSettings

__all__ = ["FoundDuplicates", "NearDuplicateSettings", "RepeatedTextSettings", "find_duplicates"]
