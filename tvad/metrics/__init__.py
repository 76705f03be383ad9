"""Metrics of video anomaly detection at the level of frames, pixels, regions and tracks, with intervals over videos."""

from tvad.metrics.bootstrap import Interval, bootstrap, bootstrap_regions
from tvad.metrics.common import MetricError
from tvad.metrics.components import regions_from_heatmap, tracks_from_masks
from tvad.metrics.frame import average_precision, event_auc, macro_auc, micro_auc, positive_rate, smooth
from tvad.metrics.pixel import aupro, pixel_auroc
from tvad.metrics.region import GroundTruthTracks, Regions, RegionScores, link_tracks, rbdc_tbdc

__all__ = [
    "GroundTruthTracks",
    "Interval",
    "MetricError",
    "RegionScores",
    "Regions",
    "aupro",
    "average_precision",
    "bootstrap",
    "bootstrap_regions",
    "event_auc",
    "link_tracks",
    "macro_auc",
    "micro_auc",
    "pixel_auroc",
    "positive_rate",
    "rbdc_tbdc",
    "regions_from_heatmap",
    "smooth",
    "tracks_from_masks",
]
