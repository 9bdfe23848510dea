"""Benchmarks of `groundup collect`. benchmarks/README.md describes them."""
