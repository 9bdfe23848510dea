"""Training data: reading examples from tables, token shards, sequence packing, and data loaders."""

from typing import TYPE_CHECKING

from groundup.core.lazy import exports

if TYPE_CHECKING:
    from groundup.data.columns import ConversationSettings
    from groundup.data.conversations import (
        Conversations,
        ExampleSources,
        question_of,
        read_conversations,
        split_by_hash,
        without_prompts_of,
    )
    from groundup.data.documents import TokenDocuments, TokenLists
    from groundup.data.evaluation import DocumentWindows, document_windows
    from groundup.data.loader import Loader, PackedWindows
    from groundup.data.packing import ExampleLoader
    from groundup.data.shards import TokenShards
    from groundup.data.tables import Table, cell_text, read_table, table_identity
    from groundup.data.writing import require_shard_space, write_shards

__all__ = [
    "ConversationSettings",
    "Conversations",
    "DocumentWindows",
    "ExampleLoader",
    "ExampleSources",
    "Loader",
    "PackedWindows",
    "Table",
    "TokenDocuments",
    "TokenLists",
    "TokenShards",
    "cell_text",
    "document_windows",
    "question_of",
    "read_conversations",
    "read_table",
    "require_shard_space",
    "split_by_hash",
    "table_identity",
    "without_prompts_of",
    "write_shards",
]

__getattr__ = exports(
    __name__,
    {
        "ConversationSettings": "columns",
        "Conversations": "conversations",
        "DocumentWindows": "evaluation",
        "ExampleLoader": "packing",
        "ExampleSources": "conversations",
        "Loader": "loader",
        "PackedWindows": "loader",
        "Table": "tables",
        "TokenDocuments": "documents",
        "TokenLists": "documents",
        "TokenShards": "shards",
        "cell_text": "tables",
        "document_windows": "evaluation",
        "question_of": "conversations",
        "read_conversations": "conversations",
        "read_table": "tables",
        "require_shard_space": "writing",
        "split_by_hash": "conversations",
        "table_identity": "tables",
        "without_prompts_of": "conversations",
        "write_shards": "writing",
    },
)
