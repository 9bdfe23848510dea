"""Benchmarks of `groundup collect`; see README.md."""
