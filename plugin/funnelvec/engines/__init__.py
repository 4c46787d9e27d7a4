"""Engines: what stores the vectors and runs the funnel. Each is imported only when it is used."""
