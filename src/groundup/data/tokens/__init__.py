"""Tokenized documents: token shards on disk, and batches for pretraining and evaluation."""
