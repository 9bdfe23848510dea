"""Retrieval: an index of documents, the search for passages, and answers with citations."""

from groundup.retrieval.index import Index, Passage

__all__ = ["Index", "Passage"]
