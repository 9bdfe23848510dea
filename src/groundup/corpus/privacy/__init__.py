"""Personal data and secrets are found and masked with typed marks. No torch.

The settings are read by every `--help`; the finders, whose patterns take some 60 ms to compile, only when they are
used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from groundup.corpus.privacy.settings import KINDS, PrivacySettings

if TYPE_CHECKING:
    from groundup.corpus.privacy.masker import Masked, Masker, placeholder_token

__all__ = ["KINDS", "Masked", "Masker", "PrivacySettings", "placeholder_token"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from groundup.corpus.privacy import masker

    return getattr(masker, name)
