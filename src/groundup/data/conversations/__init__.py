"""Conversations for instruction tuning: reading, checks, token ids, and packing of whole examples."""
