"""pgvector: the engine in two forms, `aio` and `sync`, and an embedded server of our own."""
