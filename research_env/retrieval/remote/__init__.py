"""Retrieval over HTTP: a client and a server of the Search-R1 and ReSearch protocols."""
