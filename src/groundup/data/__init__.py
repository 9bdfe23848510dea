"""Training data: reading examples from tables, token shards, sequence packing, and data loaders."""

from typing import TYPE_CHECKING

from groundup.core.lazy import exports

if TYPE_CHECKING:
    from groundup.data.columns import ConversationSettings
    from groundup.data.conversations.packing import ExampleLoader
    from groundup.data.conversations.reading import (
        Conversations,
        ExampleSources,
        question_of,
        read_conversations,
        split_by_hash,
        without_prompts_of,
    )
    from groundup.data.tables import Table, cell_text, read_table, table_identity
    from groundup.data.tokens.documents import TokenDocuments, TokenLists
    from groundup.data.tokens.evaluation import DocumentWindows, document_windows
    from groundup.data.tokens.loader import Loader, PackedWindows
    from groundup.data.tokens.shards import TokenShards
    from groundup.data.tokens.writing import require_shard_space, write_shards

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
        "Conversations": "conversations.reading",
        "DocumentWindows": "tokens.evaluation",
        "ExampleLoader": "conversations.packing",
        "ExampleSources": "conversations.reading",
        "Loader": "tokens.loader",
        "PackedWindows": "tokens.loader",
        "Table": "tables",
        "TokenDocuments": "tokens.documents",
        "TokenLists": "tokens.documents",
        "TokenShards": "tokens.shards",
        "cell_text": "tables",
        "document_windows": "tokens.evaluation",
        "question_of": "conversations.reading",
        "read_conversations": "conversations.reading",
        "read_table": "tables",
        "require_shard_space": "tokens.writing",
        "split_by_hash": "conversations.reading",
        "table_identity": "tables",
        "without_prompts_of": "conversations.reading",
        "write_shards": "tokens.writing",
    },
)
