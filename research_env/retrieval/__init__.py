"""Finding passages: `open_retriever(address, **options)` opens whatever an address stands for, behind a `Gateway`."""

from research_env.retrieval.addresses import open_retriever

__all__ = ["open_retriever"]
