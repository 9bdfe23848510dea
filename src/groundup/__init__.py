"""groundup: build a language model from raw text."""

from groundup.core.openmp import spin_briefly

spin_briefly()  # before torch is imported


def __getattr__(name: str) -> str:
    """Return the version of the installed package as `__version__`."""
    if name == "__version__":
        # Imported late, because Ctrl-C cannot be handled during this import.
        from importlib.metadata import version

        return version("groundup")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
