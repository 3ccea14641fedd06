"""An Elasticsearch cluster: connect to it, search an index, build and verify one."""
