"""Base of every package: settings, artifacts, the console, files and errors."""
