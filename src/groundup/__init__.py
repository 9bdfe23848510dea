"""groundup: build a language model of your own, from raw text to a model that writes."""

from groundup.core.moved import keep_old_paths
from groundup.core.openmp import spin_briefly

keep_old_paths()
spin_briefly()  # before any module of ours imports torch


def __getattr__(name: str) -> str:
    if name == "__version__":
        # Not at import: Ctrl-C can be handled only afterwards.
        from importlib.metadata import version

        return version("groundup")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
