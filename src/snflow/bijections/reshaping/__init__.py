"""Rearrangements of the event, and the split that sends a part of it out of the flow."""

from snflow.bijections.reshaping.flatten import Flatten as Flatten
from snflow.bijections.reshaping.split import Split as Split
from snflow.bijections.reshaping.squeeze import Squeeze as Squeeze
