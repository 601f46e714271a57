"""All methods to compare with, written out."""

from bench.detection.methods import counts, neighbours, outliers, windows
from bench.detection.methods.base import Method

REGISTRY: tuple[Method, ...] = (*counts.METHODS, *neighbours.METHODS, *windows.METHODS, *outliers.METHODS)
