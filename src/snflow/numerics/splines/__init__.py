"""Monotone splines as pure functions of tensors, one kind a file."""
