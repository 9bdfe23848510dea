"""Sections of the reports. A section is empty if its stages have not run."""
