"""Score a data set with any detector, and turn what it says into result rows, measures and tables.

    python -m tvad.evaluation score --detector t-vad --on simcampus/test ucsd_ped2/test --seeds 0 1 2
    accelerate launch --multi_gpu --num_processes 2 -m tvad.evaluation score --on simcampus/test [--device cpu]
    python -m tvad.evaluation compare t-vad t-vad-static --on simcampus/test
    python -m tvad.evaluation study | answers | cost | leak | tables

Scoring (``scoring``) runs a detector of the registry (``detectors``) and keeps one file a video; evaluation (``rows``,
``details``) reads annotation and detections only and never runs a model; tables (``tables``) read rows and measures
only.  What is named here is what other packages build on; the rest is imported from its own module.
"""
from tvad.evaluation.rows import Cell, evaluate, evaluate_events
from tvad.evaluation.scoring import Scored, detection_key, detection_path, score_dataset, stored

__all__ = ["Cell", "Scored", "detection_key", "detection_path", "evaluate", "evaluate_events", "score_dataset", "stored"]
