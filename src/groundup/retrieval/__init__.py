"""Retrieval: an index of documents, the search for passages, and answers with citations."""

from typing import TYPE_CHECKING

from groundup.core.lazy import exports

if TYPE_CHECKING:
    from groundup.retrieval.answering import Citation, CitedAnswer, Reader, answer_question
    from groundup.retrieval.index import Index, Passage

__all__ = ["Citation", "CitedAnswer", "Index", "Passage", "Reader", "answer_question"]

__getattr__ = exports(
    __name__,
    {
        "CitedAnswer": "answering",
        "Citation": "answering",
        "Index": "index",
        "Passage": "index",
        "Reader": "answering",
        "answer_question": "answering",
    },
)
