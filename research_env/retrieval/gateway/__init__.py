"""Between many searches and one backend: batches, a cache, tries, a circuit, and answers kept in a file."""
