"""pgvector: the synchronous engine, and an embedded server for those who have none."""
