"""Training of the small modules on top of the frozen model: phase 1, the heatmap decoder."""
from tvad.training.common import TrainResult
from tvad.training.phase1 import Phase1Config, train_heatmap

__all__ = ["Phase1Config", "TrainResult", "train_heatmap"]
