"""How `groundup collect` does beside its peers, part by part. README.md explains it."""
