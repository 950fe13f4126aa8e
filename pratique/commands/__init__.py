"""One file a verb: `configure(parser)` declares its arguments, `run(arguments)` does it and returns the exit code."""
