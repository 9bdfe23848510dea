"""groundup: build a language model of your own, from raw text to a model that writes."""

from importlib.metadata import version

__version__ = version("groundup")
