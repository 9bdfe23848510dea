"""Examples to learn from: tables, conversations in them, labels in them. No torch."""

from groundup.examples.columns import ConversationRules
from groundup.examples.conversations import (
    Conversations,
    ExampleSources,
    question_of,
    read_conversations,
    split_by_hash,
    without_prompts_of,
)
from groundup.examples.tables import Table, cell_text, read_table, table_identity

__all__ = [
    "ConversationRules",
    "Conversations",
    "ExampleSources",
    "Table",
    "cell_text",
    "question_of",
    "read_conversations",
    "read_table",
    "split_by_hash",
    "table_identity",
    "without_prompts_of",
]
