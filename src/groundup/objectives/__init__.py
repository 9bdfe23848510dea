"""Losses, each with its batch, for the one training loop."""

from groundup.objectives.base import Metrics, Objective
from groundup.objectives.next_token import NextToken

__all__ = ["Metrics", "NextToken", "Objective"]
