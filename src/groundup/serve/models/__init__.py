"""The models that a server offers, and their loading and unloading."""
