"""Environment variables that disable the telemetry of third-party libraries."""

from __future__ import annotations

import os
from collections.abc import Mapping

OFF: Mapping[str, str] = {
    "HF_HUB_DISABLE_TELEMETRY": "1",  # huggingface_hub
    "DO_NOT_TRACK": "1",  # huggingface_hub, daft and others
    "DAFT_ANALYTICS_ENABLED": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
}


def disable_telemetry() -> None:
    """Disable telemetry in this process and its child processes. Call this before importing such a library."""
    os.environ.update(OFF)
