"""Examples to learn from: tables, conversations in them, labels in them. No torch."""

from groundup.examples.tables import Table, cell_text, read_table, table_identity

__all__ = ["Table", "cell_text", "read_table", "table_identity"]
