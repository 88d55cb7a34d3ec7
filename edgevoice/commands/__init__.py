"""One module per sub-command of `edgevoice`.

Each has ``HELP`` (one line), ``add_arguments(parser)`` and ``run(arguments) -> exit code``.
Nothing heavy is imported at the top of a command module: `edgevoice --help` reads them all.
"""
