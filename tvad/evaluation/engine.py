"""The engine: score one detector on one place with all processes and machines at hand, then rows and measures.

Under ``accelerate launch`` each process takes every k-th video on its own device; what is on disk is not scored again,
so a broken run goes on.  All processes meet after scoring and tell their failures; the first one then reads all
detections, which must lie in a folder that it can see, and writes rows and measures.  What fails there is told to the
others, which raise it too, so that none waits for ever.  Any number of processes gives the same rows, as a video's
detection depends on nothing else.
"""
from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import gather_object

from tvad.detection import DEFAULT_SCORING, Detection
from tvad.errors import DatasetError, StorageError, TvadError
from tvad.evaluation.details import detail_measures
from tvad.evaluation.measures import Measure, put_measures
from tvad.evaluation.places import Place
from tvad.evaluation.rows import Cell, evaluate, evaluate_events
from tvad.evaluation.scoring import Scored, detection_key, detection_path, score_dataset, stored
from tvad.record import Row, replace_rows
from tvad.scenes.types import OPEN_SET_EVENTS


@dataclass(frozen=True)
class Outcome:
    """What one evaluation gave; rows and measures are empty in all processes but the first."""

    rows: tuple[Row, ...]
    measures: tuple[Measure, ...]
    seconds: float


def detections_folder(output: Path | str, name: str, seed: int, place: Place) -> Path:
    """Where a detector's detections lie: apart by name, training protocol, seed and place."""
    return Path(output) / f"{name}-{place.trained}-seed{seed}" / f"{place.dataset}-{place.split}"


def evaluate_detector(detector: Any, place: Place, videos: Sequence[Any], *, output: Path | str, name: str,
                      variant: str = "full", system: str | None = None, seed: int = 0, events: Sequence[str] = (),
                      samples: int = 1000, accelerator: Accelerator | None = None, progress: bool = True) -> Outcome:
    """Score ``videos``, write ``rows.jsonl`` and ``measures.jsonl`` in ``output``, and return what is in them.

    ``name``: of the detector in the registry, which names its folder; ``system`` (by default the detector's own name) and
    ``variant``: what rows carry. Collective: all processes must call it.

    Raises:
        DatasetError: videos that failed, all of them named with their process, after all others were scored and kept;
            or detections that this process cannot see.
        StorageError: the disk refused in some process.
        TvadError: in all processes but the first, whatever else stopped the first.
    """
    began = time.monotonic()
    accelerator = accelerator or Accelerator()
    folder = detections_folder(output, name, seed, place)
    scored = score_shared(detector, videos, folder, events=events, accelerator=accelerator, progress=progress)

    def write() -> tuple[list[Row], list[Measure]]:
        cell = cell_of(detector, place, system=system, variant=variant, seed=seed, samples=samples)
        rows, measures = figures_of(scored.detections, videos, cell)
        replace_rows(Path(output) / "rows.jsonl", rows)
        put_measures(Path(output) / "measures.jsonl", measures)
        return rows, measures

    rows, measures = _by_the_first(write, accelerator) or ([], [])
    return Outcome(tuple(rows), tuple(measures), time.monotonic() - began)


def score_shared(detector: Any, videos: Sequence[Any], folder: Path | str, *, events: Sequence[str] = (),
                 accelerator: Accelerator | None = None, progress: bool = True) -> Scored:
    """``score_dataset`` by all processes; the first gets all detections, the others their own.

    Only the first process shows its bar, whose share stands for all. Raises as :func:`evaluate_detector`, in every
    process, so that none is left waiting.
    """
    accelerator = accelerator or Accelerator()
    rank, count = accelerator.process_index, accelerator.num_processes
    failed: list[tuple[str, str]] = []
    scored = Scored({})
    try:
        scored = score_dataset(detector, videos, folder, events=events, part=(rank, count),
                               progress=progress and accelerator.is_main_process)
        failed = list(scored.failures)
    except StorageError as error:
        failed = [("", str(error))]
    # Every process gets here, so that a failure of one is told by all and none waits for ever.
    every = gather_object([(process, *failure) for process, failure in zip([rank] * len(failed), failed)])
    disk = [text for _, video, text in every if not video]
    if disk:
        raise StorageError(disk[0])
    if count > 1:
        every = [(process, video, f"process {process}: {text}") for process, video, text in every]
    Scored({}, tuple((video, text) for _, video, text in every)).check()
    if count == 1:
        return scored
    rest = _by_the_first(lambda: _of_others(detector, videos, Path(folder), events, scored.detections), accelerator)
    return Scored({**scored.detections, **(rest or {})})


def _by_the_first(work: Callable[[], Any], accelerator: Accelerator) -> Any:
    """What ``work`` gives the first process, None in the others, which wait for it; its error is raised in all of them."""
    found, caught = None, None
    if accelerator.is_main_process:
        try:
            found = work()
        except Exception as error:      # whatever it is, the others must hear of it
            caught = error
    told = gather_object([] if caught is None else [(type(caught).__name__, str(caught))])
    if caught is not None:
        raise caught
    if told:
        kind, text = told[0]
        # The same kind in every process, so that all go on or stop alike.
        known = {one.__name__: one for one in TvadError.__subclasses__()}.get(kind)
        raise known(f"process 0: {text}") if known else TvadError(f"process 0: {kind}: {text}")
    return found


def _of_others(detector: Any, videos: Sequence[Any], folder: Path, events: Sequence[str],
               own: Mapping[str, Detection]) -> dict[str, Detection]:
    found, unseen = {}, []
    for video in videos:
        if video.id not in own:
            kept = stored(detection_path(folder, video), detection_key(detector, video, events))
            if kept is None:
                unseen.append(video.id)
            else:
                found[video.id] = kept
    if unseen:
        raise DatasetError(f"{folder}: {len(unseen)} detections that other processes wrote are not here, first of "
                           f"{unseen[0]}; give an output folder that all machines share")
    return found


def cell_of(detector: Any, place: Place, *, variant: str, seed: int, samples: int = 1000,
            system: str | None = None) -> Cell:
    """What the rows of a detector on a place share; smoothing is the detector's own, 0 where it has none."""
    scoring = getattr(detector, "scoring", None)
    return Cell(variant=variant, dataset=place.dataset, split=place.split, protocol=place.protocol, seed=seed,
                config=detector.fingerprint[:12], sigma=0.0 if scoring is None else scoring.sigma,
                system=system or detector.name, samples=samples,
                choice=(scoring or DEFAULT_SCORING).choice_on(str(place)))


def figures_of(detections: Mapping[str, Detection], videos: Sequence[Any],
               cell: Cell) -> tuple[list[Row], list[Measure]]:
    """All rows of a cell, with those of the kept-out events on the open set, and its measures."""
    rows = evaluate(detections, videos, cell)
    if cell.protocol == "open-set":
        rows += evaluate_events(detections, videos, cell, kinds=OPEN_SET_EVENTS, name="kept-out")
    return rows, detail_measures(detections, videos, cell)
