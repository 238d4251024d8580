"""Rearrangements of the event: they move numbers and change none, so that log|det| = 0."""

from snflow.bijections.reshaping.flatten import Flatten as Flatten
from snflow.bijections.reshaping.squeeze import Squeeze as Squeeze
