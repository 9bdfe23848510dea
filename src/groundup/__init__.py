"""groundup: build a language model of your own, from raw text to a model that writes."""

from importlib.metadata import version

from groundup.openmp import spin_briefly

spin_briefly()  # before any module of ours imports torch

__version__ = version("groundup")
