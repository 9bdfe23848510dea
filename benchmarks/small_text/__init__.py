"""Measurements of training on small texts, whose tokens are repeated for many epochs."""
