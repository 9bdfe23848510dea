"""groundup's training speed beside its peers', measured in one run; see README.md beside this directory."""
