"""Benchmarks of groundup, compared with other programs; see README.md."""
