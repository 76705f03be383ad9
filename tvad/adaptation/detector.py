"""A detector adapted to one camera: heat on that camera's own scale, further evidence fused, several frame gaps.

    detector = AdaptedDetector.load("runs/adapted/camera", backbone, prototypes=model.prototypes)
    detection = detector.detect("camera.mp4")

It is made by ``TVAD.adapt`` or ``tvad.training.adapt``.  What its parts of evidence are: ``tvad.adaptation.evidence``.
"""
from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor

from tvad.adaptation.evidence import Calibration, Fusion, blurred, fuse, log_odds, squash
from tvad.adaptation.oneclass import NormalBank
from tvad.adaptation.tower import is_adapted, load_tower, save_tower
from tvad.adaptation.views import reduced
from tvad.cores import on_each_core
from tvad.detection import DEFAULT_SCORING, Detection, Scoring, finish, top_mean
from tvad.errors import CheckpointError, DatasetError, ParameterError
from tvad.heatmap import AnomalyHeatmapDecoder
from tvad.record import write_json
from tvad.video.clip import Clip
from tvad.video.frames import Frames
from tvad.video.read import open_frames

_AT_ONCE = 4        # pairs that a core looks at in one go: enough parts for all cores, even of a short video
_TOWER, _BANK, _SETTINGS = "tower.safetensors", "bank.safetensors", "fusion.json"


@dataclass
class AdaptedDetector:
    """Backbone (its tower perhaps adapted too), adapted decoder and what is known of the camera; a
    :class:`tvad.detector.Detector`.

    ``batch``: pairs a pass of the tower on a GPU.
    """
    backbone: Any
    decoder: AnomalyHeatmapDecoder
    prototypes: Float[Tensor, "2 d"]
    calibration: Calibration
    fusion: Fusion = Fusion()
    bank: NormalBank | None = None
    scoring: Scoring = DEFAULT_SCORING
    batch: int = 16
    key: str = ""
    name: str = field(default="t-vad-adapted", init=False)

    def __post_init__(self) -> None:
        if self.fusion.oneclass and self.bank is None:
            raise ParameterError("adapted detector: the fusion asks for a one-class score and there is no bank; "
                                 "adapt with oneclass on, or set fusion.oneclass to 0")
        self.fusion = replace(self.fusion, gaps=self.fusion.gaps or (1,))
        self.decoder.eval()

    @property
    def fingerprint(self) -> str:
        """What decides the scores: backbone, adaptation, fusion, scale and scoring."""
        scale = self.calibration
        return (f"{self.backbone.fingerprint}-{self.key}-{self.fusion}-{scale.zero:.9g}-{scale.unit:.9g}-{scale.frame:.9g}-"
                f"{scale.steady}-{self.scoring}")

    def save(self, folder: Path | str) -> Path:
        """Write decoder, the tower's adapter where there is one, levels, bank and settings into a folder.

        ``fusion.json`` is taken away first and written last: a folder without it was left half written.  Adapter and bank
        of an earlier detector are deleted.
        """
        folder, tower = Path(folder), ""
        stale = [_SETTINGS] + [_TOWER] * (not is_adapted(self.backbone)) + [_BANK] * (self.bank is None)
        for name in stale:
            (folder / name).unlink(missing_ok=True)
        if is_adapted(self.backbone):
            save_tower(folder / _TOWER, self.backbone)
            tower = self.backbone.tower_adapter[0]["adapter_fingerprint"]
        self.decoder.save(folder / "ahd.safetensors", backbone_fingerprint=self.backbone.fingerprint)
        self.calibration.save(folder / "levels.safetensors")
        if self.bank is not None:
            self.bank.save(folder / _BANK, backbone_fingerprint=self.backbone.fingerprint)
        self.scoring.save(folder / "detector.json")
        write_json(folder / _SETTINGS, {**asdict(self.fusion), "key": self.key, "tower": tower,
                                        "zoom": getattr(self.backbone, "zoom", 1.0)})
        return folder

    @classmethod
    def load(cls, folder: Path | str, backbone: Any, *, prototypes: Float[Tensor, "2 d"], fusion: Fusion | None = None,
             batch: int = 16) -> AdaptedDetector:
        """What :meth:`save` wrote. Raises :class:`CheckpointError` for a damaged folder or another backbone.

        ``backbone``: the one that adaptation began with; where the tower was adapted, the detector's is a twin of it.
        """
        folder = Path(folder)
        try:
            stored = json.loads((folder / _SETTINGS).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{folder / _SETTINGS}: no adapted detector ({error}); "
                                  "run: make adapt VIDEO=…") from error
        key, tower, zoom = stored.pop("key"), stored.pop("tower", ""), stored.pop("zoom", 1.0)
        backbone = backbone if zoom == 1 else backbone.enlarged(zoom)
        if tower:
            backbone = load_tower(folder / _TOWER, backbone)
            if (found := backbone.tower_adapter[0]["adapter_fingerprint"]) != tower:
                raise CheckpointError(f"{folder / _TOWER}: adapter {found}, the detector was made with {tower}; the folder "
                                      "mixes two adaptations, adapt again: make adapt VIDEO=…")
        bank, fusion = folder / _BANK, fusion or Fusion(**stored)
        return cls(backbone, AnomalyHeatmapDecoder.load(folder / "ahd.safetensors", backbone=backbone).to(backbone.device),
                   prototypes, Calibration.load(folder / "levels.safetensors"), fusion,
                   NormalBank.load(bank, backbone=backbone) if fusion.oneclass and bank.is_file() else None,
                   Scoring.load(folder / "detector.json"), batch, key)

    @torch.inference_mode()
    def parts(self, pairs: UInt8[np.ndarray, "n 2 h w 3"], *, fps: float = 1.0,
              gap: int = 1) -> dict[str, Float32[np.ndarray, "n gh gw"]]:
        """All evidence of frame pairs, as :func:`fuse` takes it; errors as :meth:`detect`."""
        frames = pairs.reshape(-1, *pairs.shape[2:])
        sight = self.backbone.see(Clip(frames, fps, 0, "pairs"))
        grid, wanted = tuple(sight.taps[0].shape[1:3]), self.calibration.grid
        if grid != wanted:
            raise CheckpointError(f"adapted detector: its camera gives maps of {wanted}, this footage {grid}; is it of the "
                                  "same camera? adapt to it: make adapt VIDEO=…")
        found = {f"heat@{gap}": log_odds(self.decoder, sight.taps, self.prototypes)}
        if self.bank is not None and self.fusion.oneclass:
            found[f"oneclass@{gap}"] = self.bank.score(sight.taps).cpu().numpy()
        return found

    def detect(self, source: Any) -> Detection:
        """Score a video file, a folder of frames, a ``Frames`` or a data set's ``Video``.

        Raises :class:`DatasetError` for a video without frames, :class:`tvad.errors.VideoError` for a damaged one and
        :class:`tvad.errors.CheckpointError` for pictures of another shape than the camera's.
        """
        return detect_all({"": self}, source)[""]

    def score(self, video: Any, events: Sequence[str] = ()) -> Detection:
        """``detect`` under the protocol of all detectors; the map does not depend on ``events``."""
        return self.detect(video)


@torch.inference_mode()
def detect_all(detectors: Mapping[str, AdaptedDetector], source: Any) -> dict[str, Detection]:
    """What detectors that differ in fusion, calibration or scoring alone say of one video, which passes the tower once.

    Errors as :meth:`AdaptedDetector.detect`; :class:`ParameterError` for detectors of different decoders or banks.
    """
    first = next(iter(detectors.values()))
    if any(getattr(one, part) is not getattr(first, part) for one in detectors.values()
           for part in ("decoder", "bank", "backbone")):
        raise ParameterError("detect_all: the detectors have different weights; give those of one adaptation")
    if isinstance(source, (str, Path)):
        source = open_frames(source)
    frames: Frames = getattr(source, "frames", source)
    name, size = getattr(source, "id", frames.name), tuple(frames.size)
    if not len(frames):
        raise DatasetError(f"{name}: the video has no frames; check the file")
    # Whoever asks for most sees for all.
    gaps = sorted({gap for one in detectors.values() for gap in one.fusion.gaps})
    seer = replace(first, fusion=Fusion("place", max(one.fusion.oneclass for one in detectors.values()), tuple(gaps)))
    fused: dict[str, list] = {title: [] for title in detectors}
    for parts in _evidence(seer, reduced(frames, first.backbone)):
        for title, one in detectors.items():
            fused[title].append(fuse(parts, one.calibration, one.fusion))
    step, count, found = getattr(first.backbone, "temporal_patch_size", 2), len(frames), {}
    for title, one in detectors.items():
        maps = np.concatenate(fused[title])
        scores = squash(top_mean(maps, one.scoring.top_fraction), one.calibration)
        heat = squash(blurred(maps, one.fusion.blur), one.calibration.of_heat(one.fusion.blur))
        found[title] = finish(name, np.repeat(scores, step)[:count], np.repeat(heat, step, axis=0)[:count], size=size,
                              scoring=one.scoring)
    return found


def _evidence(detector: AdaptedDetector, frames: Frames) -> Iterator[dict[str, Float32[np.ndarray, "n h w"]]]:
    """All evidence of a video, some pairs at a time."""
    starts = list(range(0, len(frames), getattr(detector.backbone, "temporal_patch_size", 2)))
    device = getattr(detector.backbone, "device", "cpu")
    batch = detector.batch if torch.device(device).type != "cpu" else min(detector.batch, _AT_ONCE)

    def pictures() -> Iterator[dict[int, UInt8[np.ndarray, "n 2 h w 3"]]]:
        for first in range(0, len(starts), batch):
            chosen, found = starts[first:first + batch], {}
            for gap in detector.fusion.gaps:
                # The last frames are judged by the last whole pair: a pair cut short would show slower people.
                first_of = [min(start, max(0, len(frames) - 1 - gap)) for start in chosen]
                indices = [index for start in first_of for index in (start, min(start + gap, len(frames) - 1))]
                unique, back = np.unique(indices, return_inverse=True)
                found[gap] = frames.take(unique)[back].reshape(len(chosen), 2, *frames.size, 3)
            yield found

    def evidence(pairs: Mapping[int, UInt8[np.ndarray, "n 2 h w 3"]]) -> dict[str, Float32[np.ndarray, "n gh gw"]]:
        found = [detector.parts(some, fps=frames.fps, gap=gap) for gap, some in pairs.items()]
        return {name: maps for part in found for name, maps in part.items()}

    yield from on_each_core(evidence, pictures(), device=device)
