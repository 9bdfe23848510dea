"""Token shards and the two paths from them: packed windows to train on, documents to score."""

from groundup.tokens.documents import TokenDocuments, TokenLists
from groundup.tokens.evaluation import DocumentWindows, document_windows
from groundup.tokens.loader import Loader, PackedWindows
from groundup.tokens.packing import ExampleLoader
from groundup.tokens.shards import TokenShards
from groundup.tokens.writing import require_room, write_shards

__all__ = [
    "DocumentWindows",
    "ExampleLoader",
    "Loader",
    "PackedWindows",
    "TokenDocuments",
    "TokenLists",
    "TokenShards",
    "document_windows",
    "require_room",
    "write_shards",
]
