"""Adaptation to one camera from its normal footage alone.

    result = model.adapt("my_camera/")          # or, from the command line: make adapt VIDEO=my_camera/
    result.detector.detect("my_camera/today.mp4")

The camera's place is surveyed (``tvad.scenes.composite``), simulated actors are put into its footage, and the decoder is
fine-tuned on them from its current weights, half of which are mixed in again at the end; the tower stays frozen, and each
pair's features are made once, unless ``tower_rank`` has it adapted too.  Validation is on held-out footage with actors of
other seeds, smoothing is chosen on whole held-out clips with them (``clips``); no label of the camera is ever asked for.
``match_view`` finds view, scale and smoothing and trains nothing.  ``trial`` judges settings on simulated scenes that play
the camera.
"""
from tvad.training.adapt.config import AdaptConfig
from tvad.training.adapt.run import AdaptResult, adapt
from tvad.training.adapt.view import VIEWING, match_view

__all__ = ["VIEWING", "AdaptConfig", "AdaptResult", "adapt", "match_view"]
