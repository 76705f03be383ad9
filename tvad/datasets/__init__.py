"""Data sets: one module each; ``open_dataset`` finds them by name."""
from tvad.datasets.base import DATASETS, Dataset, Event, Video, data_root, open_dataset

__all__ = ["DATASETS", "Dataset", "Event", "Video", "data_root", "open_dataset"]
