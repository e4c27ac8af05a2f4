"""Mini AN4: seven utterances of the CMU census database."""

from .builder import DatasetBuilder
from .dataset import Dataset

__all__ = ["Dataset", "DatasetBuilder"]
