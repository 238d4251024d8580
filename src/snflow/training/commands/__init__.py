"""One module a command of the command line; each takes the words behind its name and returns an exit code."""
