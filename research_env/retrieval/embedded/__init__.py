"""Indexes on this machine: BM25 by tantivy, vectors by faiss, or both."""
