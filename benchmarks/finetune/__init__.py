"""Benchmarks of `groundup finetune`. benchmarks/README.md describes them."""
