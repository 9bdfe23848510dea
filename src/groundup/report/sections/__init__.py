"""Sections of the reports. A section is empty if the stages that it describes have not run."""
