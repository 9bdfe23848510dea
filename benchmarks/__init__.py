"""Benchmarks that compare groundup with other programs. README.md describes them."""
