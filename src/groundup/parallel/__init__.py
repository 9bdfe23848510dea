"""Wraps a model from outside: dtype, threads, allocation, compilation (sharding comes here too)."""

from groundup.parallel.machine import Machine, eagerly, measure_machine, memory_bytes, place

__all__ = ["Machine", "eagerly", "measure_machine", "memory_bytes", "place"]
