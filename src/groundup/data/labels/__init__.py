"""Labeled texts for classifiers: reading, splits, batches, and TF-IDF features."""
