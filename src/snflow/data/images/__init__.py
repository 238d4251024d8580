"""Datasets of images, each read from the files in which it was published."""
