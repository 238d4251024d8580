"""Monotone functions of one number that have no closed inverse, with their slopes."""
