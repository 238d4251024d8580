"""Convolutions on images."""

from snflow.bijections.conv.dense_kernel import Conv2d as Conv2d
