"""One module per subcommand: ``add_arguments(parser)`` and ``run(args) -> exit status``.

`run` raises `FunnelvecError` for what fails and calls ``args.usage_error(text)`` for arguments
that cannot be used; `funnelvec.cli` prints both.
"""
