"""Benchmarks of `groundup finetune`; see README.md."""
