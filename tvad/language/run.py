"""The dialogue set of a notebook's parameters, and sources of appearance by name."""
from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from tvad.datasets.base import Dataset, open_dataset
from tvad.language.appearance import AppearanceSource, OpenAppearance, ScriptAppearance
from tvad.language.captioning import CaptionedAppearance, HubCaptioner
from tvad.language.corpus import Settings, build

FOLDER = "dialogue"


def appearance_source(name: str, dataset: str) -> AppearanceSource:
    """A source by name: "script" (SimCampus' truth), "open" (nothing is said), or a model's folder or hub name.

    "auto" is the script for SimCampus and "open" for everything else.  Raises :class:`tvad.errors.BackboneError` for a
    model that cannot be loaded.
    """
    if name == "auto":
        name = "script" if dataset == "simcampus" else "open"
    if name == "script":
        return ScriptAppearance()
    return OpenAppearance() if name == "open" else CaptionedAppearance(HubCaptioner.from_pretrained(name), name=name)


def opened(params: Any) -> Dataset:
    """The data set that the parameters name; only SimCampus has several protocols."""
    choice = {"protocol": params.protocol} if params.dataset == "simcampus" else {}
    return open_dataset(params.dataset, root=params.data_root, **choice)


def folder_of(params: Any) -> Path:
    """Where the dialogue set of the parameters lies."""
    return params.output / FOLDER


def settings_of(params: Any) -> Settings:
    """What the parameters say of the set's content."""
    return Settings(length=params.frames_per_clip, stride=params.clip_stride, seed=params.dialogue_seed)


def dialogue_set(params: Any) -> dict[str, Any]:
    """Make the set (or keep it where it is made already) and return its manifest.

    Of SimCampus all splits, what is not on disk yet is rendered first; of real footage the evaluated split alone.
    Raises as :func:`tvad.language.corpus.build` does.
    """
    dataset = opened(params)
    splits = list(dataset.splits()) if params.dataset == "simcampus" else [params.split]
    if params.dataset == "simcampus" and not params.dialogue_videos:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        dataset.prepare(splits, workers=cores)
    return build(dataset, splits, appearance_source(params.appearance, params.dataset), folder_of(params),
                 settings=settings_of(params), limit=params.dialogue_videos)
