"""Data of a recipe: from its source to checked lhotse cuts.

A config names data by reference; :func:`load_dataset` finds the package that knows it,
:func:`create_dataset` makes it, :func:`check_cuts` says what is wrong with it.
"""

from espnet3.data.builder import DatasetBuilder
from espnet3.data.checks import check_cuts
from espnet3.data.creation import create_dataset
from espnet3.data.dataset import Dataset, transcript
from espnet3.data.manifests import load_cuts, save_cuts
from espnet3.data.reference import DatasetReference, load_dataset

__all__ = [
    "Dataset",
    "DatasetBuilder",
    "DatasetReference",
    "check_cuts",
    "create_dataset",
    "load_cuts",
    "load_dataset",
    "save_cuts",
    "transcript",
]
