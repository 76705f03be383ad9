"""T-VAD as a detector: backbone and heatmap decoder assembled, from any video to a ``Detection``.

    model = TVAD.from_pretrained("qwen2.5-vl-tiny", "runs/tiny/phase1/ahd.safetensors")
    sight = model.see(clip)                 # one pass of the vision tower
    heat = model.heatmap(sight)             # Float[Tensor, "t h w"], 0..1
    found = model.heatmap(sight, events=["bicycle", "car or van"])      # one map a query, from the same pass
    detection = model.detect("camera.mp4")
    adapted = model.adapt("my_camera/").detector                        # from ordinary footage, without labels

A video is cut into windows that cover every frame; several windows share a pass of the tower, and several decoders may
share it too (``score_many``), which makes seeds and ablations cost one pass.  The general heatmap never depends on the
user's question (specification 2.2), so ``events`` do not change ``score``; what the user names is found by ``find`` and
``heatmap(sight, events=...)``, which need a decoder of query heatmaps (``tvad.queries.heatmap``).
"""
from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Mapping, Protocol, Sequence

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from tvad.backbones.qwen import QwenBackbone, Sight
from tvad.cores import in_windows
from tvad.detection import DEFAULT_SCORING, Detection, Scoring, finish, top_mean
from tvad.errors import CheckpointError, DatasetError
from tvad.heatmap import AnomalyHeatmapDecoder
from tvad.prompts import prototypes as text_prototypes
from tvad.queries.finding import find
from tvad.queries.heatmap import EventHeatmapDecoder
from tvad.video.clip import Clip, stitch
from tvad.video.frames import Frames
from tvad.video.read import open_frames

if TYPE_CHECKING:
    from tvad.training.adapt import AdaptConfig, AdaptResult


class Detector(Protocol):
    """Anything that scores a video; ``fingerprint`` changes with whatever may change its scores."""
    name: str
    fingerprint: str

    def score(self, video: Any, events: Sequence[str] = ()) -> Detection: ...


class StaticView:
    """A backbone that sees no motion: both frames of each temporal patch are the first of them (a control)."""

    def __init__(self, backbone: Any) -> None:
        self.backbone = backbone
        self.name, self.fingerprint = f"{backbone.name}-static", f"static-{backbone.fingerprint}"
        self.vision_fingerprint = f"static-{getattr(backbone, 'vision_fingerprint', backbone.fingerprint)}"
        self.taps, self.tap_width, self.text_width = backbone.taps, backbone.tap_width, backbone.text_width
        self.temporal_patch_size = backbone.temporal_patch_size

    @property
    def device(self) -> Any:
        """Where the wrapped backbone computes; decoders must lie there too."""
        return getattr(self.backbone, "device", "cpu")

    @property
    def dtype(self) -> Any:
        """What the wrapped backbone computes in."""
        return getattr(self.backbone, "dtype", "")

    @property
    def input_size(self) -> Any:
        """The wrapped backbone's rule from (height, width) of footage to what it sees; None where it has none."""
        return getattr(self.backbone, "input_size", None)

    @property
    def zoom(self) -> float:
        """How many times as large the wrapped backbone sees."""
        return getattr(self.backbone, "zoom", 1.0)

    @property
    def enlarged(self) -> Any:
        """The wrapped backbone's way to an enlarged twin, whose view is without motion too; None where it has none."""
        make = getattr(self.backbone, "enlarged", None)
        return None if make is None else lambda zoom: StaticView(make(zoom))

    def see(self, clip: Clip, *, tokens: bool = False) -> Sight:
        """The clip as the wrapped backbone sees it frozen; same shapes."""
        return self.see_many([clip], tokens=tokens)[0]

    def see_many(self, clips: Sequence[Clip], *, tokens: bool = False) -> list[Sight]:
        """Several frozen clips in one pass."""
        return self.backbone.see_many([self._frozen(clip) for clip in clips], tokens=tokens)

    def embed_prompts(self, sentences: Sequence[str]) -> Float[Tensor, "n d"]:
        """As the wrapped backbone."""
        return self.backbone.embed_prompts(sentences)

    def _frozen(self, clip: Clip) -> Clip:
        first = np.arange(len(clip.frames)) // self.temporal_patch_size * self.temporal_patch_size
        return Clip(clip.frames[first], clip.fps, clip.start, clip.video)


class TVAD:
    """The heatmap mode of T-VAD; make it with ``from_pretrained``.

    ``batch``: clips a pass of the tower on a GPU; on a CPU each core takes one.  ``queries``: the decoder of query
    heatmaps, where there is one; ``query_scoring``: from its maps to scores, by default as from the general ones.
    """
    name = "t-vad"

    def __init__(self, backbone: Any, decoder: AnomalyHeatmapDecoder, *, prototypes: Float[Tensor, "2 d"],
                 scoring: Scoring = DEFAULT_SCORING, batch: int = 4, queries: EventHeatmapDecoder | None = None,
                 query_scoring: Scoring | None = None) -> None:
        self.backbone, self.decoder, self.scoring, self.batch = backbone, decoder.eval(), scoring, batch
        self.queries, self.query_scoring = queries, query_scoring or scoring
        self.prototypes = prototypes.float()

    @classmethod
    def from_pretrained(cls, backbone: Any, ahd: Path | str, *, scoring: Scoring | None = None,
                        cache_dir: Path | str | None = None, batch: int = 4,
                        queries: Path | str | Literal[False] | None = None, **options: Any) -> TVAD:
        """Assemble from a backbone (object, zoo name, folder or hub name) and a decoder file of phase 1.

        ``scoring``: by default ``detector.json`` beside the decoder, else the defaults. ``cache_dir`` keeps the text
        prototypes. ``queries``: a decoder file of query heatmaps, by default ``queries.safetensors`` beside the decoder
        where that is there, False for none; its scoring is ``queries.json`` beside it, where that is there, else the
        general one.
        ``options`` go to ``QwenBackbone.from_pretrained``; taps are the decoder's by default.
        Raises :class:`CheckpointError` when the decoder belongs to another backbone or is damaged.
        """
        if isinstance(backbone, (str, Path)):
            options.setdefault("taps", AnomalyHeatmapDecoder.load(ahd).taps)
            backbone = QwenBackbone.from_pretrained(backbone, **options)
        decoder = AnomalyHeatmapDecoder.load(ahd, backbone=backbone).to(getattr(backbone, "device", "cpu"))
        record = Path(ahd).with_name("detector.json")
        if scoring is None:
            scoring = Scoring.load(record) if record.is_file() else DEFAULT_SCORING
        text = text_prototypes(backbone, cache_dir=cache_dir)
        beside = Path(ahd).with_name("queries.safetensors")
        queries = None if queries is False else queries or (beside if beside.is_file() else None)
        listener, query_scoring = None, None
        if queries is not None:
            listener = EventHeatmapDecoder.load(queries, backbone=backbone).to(getattr(backbone, "device", "cpu"))
            record = Path(queries).with_suffix(".json")
            query_scoring = Scoring.load(record) if record.is_file() else None
        return cls(backbone, decoder, prototypes=text, scoring=scoring, batch=batch, queries=listener,
                   query_scoring=query_scoring)

    @property
    def fingerprint(self) -> str:
        """Hash of backbone, decoder weights and settings, prototypes and scoring."""
        digest = hashlib.sha256(f"{self.backbone.fingerprint} {self.scoring} {self.decoder.config()}".encode())
        digest.update(self.prototypes.cpu().numpy().tobytes())
        for name, value in sorted(self.decoder.state_dict().items()):
            digest.update(name.encode() + value.cpu().float().numpy().tobytes())
        return digest.hexdigest()[:24]

    def see(self, clip: Clip) -> Sight:
        """One pass of the vision tower."""
        return self.backbone.see(clip)

    @torch.inference_mode()
    def heatmap(self, sight: Sight, events: Sequence[str] = ()) -> Float[Tensor, "t h w"] | Float[Tensor, "k t h w"]:
        """Anomaly probability of each patch, one map a temporal patch, float32; with ``events`` one such map a query.

        Raises :class:`tvad.errors.ParameterError` for a query without meaning, :class:`CheckpointError` where there is no
        decoder for queries.
        """
        if not events:
            return self.decoder.heatmap(sight.taps, self.prototypes)
        return self._listener().heatmaps(sight.taps, events, self.backbone)

    def detect(self, source: Any) -> Detection:
        """Score a video file, a folder of frames, a ``Frames`` or a data set's ``Video``."""
        if isinstance(source, (str, Path)):
            source = open_frames(source)
        return score_many(self.backbone, {"only": self.decoder}, source, prototypes=self.prototypes,
                          scoring=self.scoring, batch=self.batch)["only"]

    def find(self, source: Any, events: Sequence[str]) -> dict[str, Detection]:
        """A ``Detection`` for each query, in one pass of the tower over what ``detect`` takes; errors as ``heatmap``."""
        if isinstance(source, (str, Path)):
            source = open_frames(source)
        return find(self.backbone, self._listener(), source, events, scoring=self.query_scoring, batch=self.batch)

    def _listener(self) -> EventHeatmapDecoder:
        if self.queries is None:
            raise CheckpointError("this detector has no decoder of query heatmaps, so it cannot find events by name; train "
                                  "one (tvad.training.queries.train_queries) and give its file as queries=")
        return self.queries

    def adapt(self, source: Any, *, output_dir: Path | str | None = None, config: AdaptConfig | None = None,
              rehearsal: Sequence[Any] | None = None, cache_dir: Path | str | None = None,
              progress: bool = True) -> AdaptResult:
        """Adapt to one camera from its normal footage: a video, a folder of videos or of frames, ``Frames`` or ``Video``.

        This model stays as it is; the result holds the adapted detector, which is also in ``output_dir`` (by default
        ``runs/adapted/<name of the footage>``).  ``rehearsal``: videos with masks, seen so that nothing is forgotten, by
        default SimCampus' training videos, ``()`` for none.  ``cache_dir``: of features, by default ``data/cache``.
        Raises :class:`DatasetError` for too little footage or several frame sizes,
        :class:`tvad.errors.ParameterError` where a folder must be named, :class:`tvad.errors.StorageError` when the
        disk refuses.
        """
        # A detector at work needs no trainer.
        from tvad.datasets import open_dataset
        from tvad.params import project_root
        from tvad.training.adapt.run import adapt, folder_of

        folder = folder_of(source) if output_dir is None else output_dir
        rehearsal = open_dataset("simcampus").videos("train") if rehearsal is None else rehearsal
        return adapt(self, source, output_dir=folder, config=config, rehearsal=rehearsal, progress=progress,
                     cache_dir=project_root() / "data" / "cache" if cache_dir is None else cache_dir)

    def score(self, video: Any, events: Sequence[str] = ()) -> Detection:
        """``detect`` under the protocol of all detectors; the heatmap does not depend on ``events``."""
        return self.detect(video)


@torch.inference_mode()
def score_many(backbone: Any, decoders: Mapping[str, AnomalyHeatmapDecoder], video: Any, *,
               prototypes: Float[Tensor, "2 d"], scoring: Scoring | Mapping[str, Scoring] = DEFAULT_SCORING,
               batch: int = 4) -> dict[str, Detection]:
    """Score one video (``Video`` or ``Frames``) with several decoders in one pass of the tower.

    ``scoring`` may differ by decoder in all but the windows. Decoders must lie on the backbone's device.
    Raises :class:`tvad.errors.VideoError` for unreadable frames, :class:`CheckpointError` for a decoder of other taps.
    """
    frames: Frames = getattr(video, "frames", video)
    name = getattr(video, "id", frames.name)
    if not len(frames):
        raise DatasetError(f"{name}: the video has no frames; check the file")
    each = {key: scoring if isinstance(scoring, Scoring) else scoring[key] for key in decoders}
    lengths = {(choice.frames_per_clip, choice.stride) for choice in each.values()}
    if len(lengths) != 1:
        raise CheckpointError(f"{name}: decoders that share a pass need the same windows, got {sorted(lengths)}")
    wrong = [key for key, decoder in decoders.items() if tuple(decoder.taps) != tuple(backbone.taps)]
    if wrong:
        raise CheckpointError(f"decoder {wrong[0]}: made for taps {decoders[wrong[0]].taps}, the backbone "
                              f"{backbone.name} gives {tuple(backbone.taps)}; open the backbone with these taps")
    length, stride = lengths.pop()
    heat: dict[str, list] = {key: [] for key in decoders}
    tops: dict[str, list] = {key: [] for key in decoders}
    step = backbone.temporal_patch_size

    def maps_of(clips: Sequence[Clip]) -> list[dict[str, Float32[np.ndarray, "t h w"]]]:
        return [{key: decoder.heatmap(sight.taps, prototypes).float().cpu().numpy() for key, decoder in decoders.items()}
                for sight in backbone.see_many(clips)]

    for start, count, found in in_windows(frames, maps_of, length=length, stride=stride, name=name, batch=batch,
                                          device=getattr(backbone, "device", "cpu")):
        for key, maps in found.items():
            heat[key].append((start, np.repeat(maps, step, axis=0)[:count]))
            tops[key].append((start, np.repeat(top_mean(maps, each[key].top_fraction), step)[:count]))
    return {key: finish(name, stitch(tops[key], len(frames)), stitch(heat[key], len(frames)), size=tuple(frames.size),
                        scoring=each[key]) for key in decoders}
