"""How `groundup finetune` does beside others. README.md explains it."""
