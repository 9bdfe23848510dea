"""Libraries that would report their use are told not to, in one place, before they are imported."""

from __future__ import annotations

import os
from collections.abc import Mapping

OFF: Mapping[str, str] = {
    "HF_HUB_DISABLE_TELEMETRY": "1",  # huggingface_hub
    "DO_NOT_TRACK": "1",  # huggingface_hub, daft, and many others
    "DAFT_ANALYTICS_ENABLED": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
}


def disable_telemetry() -> None:
    """Say so to this process, and to those that it will start; call it before such a library is imported."""
    os.environ.update(OFF)
