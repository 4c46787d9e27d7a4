"""The hook: a client whose writes keep every resolution, and whose searches are funnels.

It stands below the client, in place of its transport: what the client does for its callers, such
as embedding documents and taking positional arguments, it goes on doing itself.
"""
