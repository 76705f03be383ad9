"""Parameters of ``notebooks/your_camera.ipynb``; see :mod:`tvad.params.base` for what all notebooks share."""
from __future__ import annotations

from dataclasses import dataclass

from tvad.params.base import RunParameters, setting


@dataclass(frozen=True, kw_only=True)
class Camera(RunParameters):
    """Parameters of the user's own camera: adapt to its ordinary footage, watch other footage, find what is named."""

    # Footage.
    ordinary: str = setting("", "ordinary footage of one camera: a video, or a folder of videos or frames; empty: normal "
                            "videos of a simulated scene")
    watched: str = setting("", "footage of the same camera to look through; empty: that of the simulated scene, else the "
                           "ordinary one")
    max_videos: int = setting(0, "look through the first so many videos; 0: all", low=0, smoke=2)
    data_root: str | None = setting(None, "folder of the data sets; None: TVAD_DATA, else data/", hashed=False)
    # Model.
    backbone: str = setting("qwen2.5-vl-tiny", "name in data/zoo, a folder, or a hub name")
    ahd: str = setting("", "decoder to start from; empty: phase1/ahd.safetensors of this profile")
    # Adaptation; tvad.training.adapt.AdaptConfig takes over what it shares by name.
    seed: int = setting(0, "seed of composites, order and patch draws", low=0, high=2**31 - 1)
    steps: int = setting(1500, "optimizer steps", low=1, high=1_000_000, smoke=3)
    validate_every: int = setting(150, "steps between validations", low=1, high=1_000_000, smoke=2)
    composites: int = setting(1600, "frame pairs with simulated actors", low=2, high=1_000_000, smoke=8)
    normal: int = setting(700, "ordinary frame pairs", low=1, high=1_000_000, smoke=6)
    rehearsal: int = setting(500, "simulated pairs that keep what was learned; 0: none", low=0, high=1_000_000, smoke=4)
    val_composites: int = setting(320, "held-out frame pairs with simulated actors", low=2, high=100_000, smoke=6)
    val_normal: int = setting(320, "held-out ordinary frame pairs", low=1, high=100_000, smoke=6)
    clips: int = setting(24, "whole held-out clips on which smoothing is chosen, 0 for none", low=0, high=600, smoke=6)
    kept: float = setting(0.5, "share of the decoder's weights that stay as they were", low=0.0, high=0.99)
    tower_rank: int = setting(0, "rank of the tower's low-rank adapter; 0: the tower stays as it is", low=0, high=256)
    tower_steps: int = setting(700, "steps that train the adapter", low=1, high=1_000_000, smoke=2)
    tower_after: int = setting(500, "steps of the decoder on the adapted tower", low=1, high=1_000_000, smoke=2)
    gaps: tuple[int, ...] = setting((), "frames between the two of a pair; none: by how fast people move", low=1, high=250)
    # What is asked for by name.
    events: tuple[str, ...] = setting(("bicycle", "person running", "car or van"), "what to find, in your words")
    queries: str = setting("", "decoder of query heatmaps; empty: queries.safetensors beside the other decoder")
