"""Free Spoken Digit Dataset as strings of digits."""

from .builder import DatasetBuilder
from .dataset import Dataset

__all__ = ["Dataset", "DatasetBuilder"]
