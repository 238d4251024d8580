"""The rows of the table of speed."""
