"""Which weights the demo shows: found in a run's folder, loaded, and said in words where they are missing.

    runs/<profile>/phase1/ahd.safetensors           heatmaps; without it nothing can be shown
    runs/<profile>/phase1/queries.safetensors       heatmaps of events that the user names
    runs/<profile>/phase2/…/phase2.json             the conversation

A fresh clone has none of them: ``make reproduce`` makes them.  Nothing here raises for weights that are missing or
belong to another backbone: a page shows the reason instead of a traceback.
"""
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tvad.errors import TvadError
from tvad.params.phase2 import not_run_for
from tvad.record import COMPLETE

DECODER, QUERIES, SPEAKER = "phase1/ahd.safetensors", "queries.safetensors", "phase2.json"
# Where phase 1 and a training of its own leave the decoder of query heatmaps.
_QUERY_FOLDERS = ("phase1", "queries", ".")


@dataclass(frozen=True)
class Found:
    """Weight files of one run, None where there is none."""

    run: Path
    ahd: Path | None
    queries: Path | None
    speaker: Path | None


@dataclass(frozen=True)
class Models:
    """What could be loaded; each ``no_…`` says in words why a part is not there and what makes it, else it is empty."""

    detector: Any = None
    talker: Any = None
    no_detector: str = ""
    no_queries: str = ""
    no_talker: str = ""
    name: str = ""


def find_models(run: Path | str) -> Found:
    """The weights that ``run`` holds; of several speakers the full one, whose training is finished."""
    run = Path(run)
    ahd = run / DECODER
    queries = [run / folder / QUERIES for folder in _QUERY_FOLDERS if (run / folder / QUERIES).is_file()]
    speakers = [path.parent for path in sorted((run / "phase2").rglob(SPEAKER)) if (path.parent / COMPLETE).is_file()]
    # "full" is the whole system; the others are rows of an ablation.
    speakers.sort(key=lambda folder: ("full" not in str(folder.relative_to(run)), len(folder.parts), str(folder)))
    return Found(run, ahd if ahd.is_file() else None, queries[0] if queries else None, speakers[0] if speakers else None)


def load_models(run: Path | str, *, backbone: str = "qwen2.5-vl-tiny", cache_dir: Path | str | None = None,
                dataset: str = "simcampus") -> Models:
    """Load what ``run`` holds; what is missing, damaged or foreign is left out and told in the result.

    dataset: that the run is of; a conversation is learned on simulated scenes alone.
    """
    found, shown = find_models(run), _short(run)
    if found.ahd is None:
        return Models(no_detector=f"There are no weights in {shown}/phase1 yet. In a terminal, run: {_remedy(run)} "
                                  "(about ten minutes), then reload this page.")
    # The page is up before these are imported.
    from tvad.backbones.qwen import QwenBackbone
    from tvad.detector import TVAD
    from tvad.heatmap import AnomalyHeatmapDecoder

    try:
        taps = AnomalyHeatmapDecoder.load(found.ahd).taps
        tower = QwenBackbone.from_pretrained(backbone, taps=taps, load_language_model=found.speaker is not None)
        detector = TVAD.from_pretrained(tower, found.ahd, cache_dir=cache_dir, batch=1, queries=False)
    except TvadError as error:
        return Models(no_detector=plain(error, run))
    no_queries = _add_queries(detector, found, run)
    talker, no_talker = _talker(tower, found, not_run_for(dataset), cache_dir)
    return Models(detector, talker, "", no_queries, no_talker, tower.name)


def _add_queries(detector: Any, found: Found, run: Path | str) -> str:
    """Give the detector its decoder of queries; why it has none, in words."""
    from tvad.detection import Scoring
    from tvad.queries.heatmap import EventHeatmapDecoder

    if found.queries is None:
        return f"Finding events by name needs its own decoder, {_short(run)}/phase1/{QUERIES}; run: {_remedy(run)}"
    try:
        queries = EventHeatmapDecoder.load(found.queries, backbone=detector.backbone).to(detector.backbone.device)
        record = found.queries.with_suffix(".json")
        scoring = Scoring.load(record) if record.is_file() else detector.scoring
    except TvadError as error:
        said = plain(error, run)
        return said if "make reproduce" in said else f"{said}; run: {_remedy(run)}"
    detector.queries, detector.query_scoring = queries, scoring
    return ""


def _talker(tower: Any, found: Found, not_run: str, cache_dir: Path | str | None) -> tuple[Any, str]:
    if found.speaker is None and not_run:
        return None, (f"There is no conversation with these weights: {not_run}. The model of the simulated scenes can be "
                      "asked about your own footage: make demo VIDEOS=<a video, or a folder of videos or frames>")
    if found.speaker is None:
        return None, (f"The conversation needs the weights of phase 2, which {_short(found.run)}/phase2 does not hold yet. "
                      f"In a terminal, run: {_remedy(found.run)}, then reload this page.")
    from tvad.conversation import TVAU

    try:
        return TVAU.from_phase2(tower, found.ahd, found.speaker, cache_dir=cache_dir, batch=1, queries=False), ""
    except TvadError as error:
        return None, plain(error, found.run)


def plain(error: Exception, run: Path | str) -> str:
    """An error's own words, with the folder above the run's taken off its paths."""
    base = str(Path(run).resolve().parent.parent)
    return str(error).replace(base + "/", "")


def _remedy(run: Path | str) -> str:
    """What makes the weights of a run: that of its own profile."""
    folder = Path(run)
    other = folder.parent.name == "runs" and folder.name != "tiny"
    return f"make reproduce PROFILE={folder.name}" if other else "make reproduce"


def _short(run: Path | str) -> str:
    parts = Path(run).parts
    return "/".join(parts[-2:])
