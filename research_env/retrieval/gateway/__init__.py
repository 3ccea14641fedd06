"""Between many searches and one backend: batches, a cache, retries, a circuit breaker, answers kept in a file."""
