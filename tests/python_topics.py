"""Real text for the tests: the 79 topics of Python's language reference, as `help()` shows them in CPython 3.11.7.

Each CPython has its own version in `pydoc_data.topics`. With the text of 3.13, pinned losses and counted duplicates
differ, so the tests read this copy. License: tests/data/LICENSE-python.txt.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path

TOPICS: dict[str, str] = json.loads(
    gzip.decompress((Path(__file__).parent / "data" / "python_topics.json.gz").read_bytes())
)
