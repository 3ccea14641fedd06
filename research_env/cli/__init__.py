"""The commands of `python -m research_env`, one file each."""
