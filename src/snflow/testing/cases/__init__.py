"""The entries of the catalogue, a module a family: each has a dictionary ``CASES``, found by its name."""
