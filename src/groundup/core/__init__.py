"""Base of all packages: configs, artifacts, console output, files, locks and errors."""
