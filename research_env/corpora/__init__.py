"""Passages from files: their formats, a pass over them that counts and hashes, and the hash of their content."""
