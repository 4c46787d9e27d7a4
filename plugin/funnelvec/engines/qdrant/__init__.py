"""Qdrant: a server, the client's local mode, and Edge, the engine inside this process."""
