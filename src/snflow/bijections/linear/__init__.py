"""Linear layers on vectors."""

from snflow.bijections.linear.dense import Dense as Dense
from snflow.bijections.linear.linear_map import LinearMap as LinearMap
from snflow.bijections.linear.linear_map import LogDetRule as LogDetRule
