"""The dialogue set of a data set: masks to tracks, timelines and conversations, and the folder that holds them.

    train.jsonl val.jsonl test.jsonl   one conversation a line (``Conversation.as_dict``)
    README.md                          data card; ``datasets.load_dataset(folder)`` reads its file list
    manifest.json                      counts a slot and class, dropped samples with reasons and examples, where from
    complete.json                      sizes and hashes of all files, written last

A clip is a window of a video; its conversations are decided by the seed and the clip's name alone.  A sample that cannot
be told truly is dropped and counted.  The folder is written beside its place and renamed.
"""
from __future__ import annotations

import json
import os
import secrets
import shutil
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import UInt8
from tqdm.auto import tqdm

from tvad.datasets.base import Dataset, Video, hash_of
from tvad.errors import DatasetError, MissingPhaseError, ParameterError, StorageError
from tvad.language.appearance import AppearanceSource, ClipView, Drop, is_black_and_white
from tvad.language.card import data_card
from tvad.language.consistency import contradictions, told_still, unclear
from tvad.language.dialogue import ClipFacts, Conversation, Target, conversations
from tvad.language.manifest import make_command, read_manifest
from tvad.language.surroundings import SceneTruth, scene_of, walkers_pace
from tvad.language.timeline import Pace, timeline_of
from tvad.language.tracks import MaskError, tracks_from_binary, tracks_from_instances
from tvad.record import commit, complete, file_hash, is_complete, write_json
from tvad.video.clip import windows

LEAST_FRAMES = 3        # a target seen for less in a clip cannot be described
LEAST_PIXELS = 24       # its median size; fewer pixels show no colours
EXAMPLES = 3            # of each reason to drop, kept in the manifest
Masks = Literal["instances", "binary"]


@dataclass(frozen=True)
class Settings:
    """What decides the content of a dialogue set, beside the data set and the source of appearance.

    Raises :class:`ParameterError` for a ``length`` in which no target can be described, or a ``stride`` that would leave
    frames between clips unseen.
    """

    length: int = 16
    stride: int = 14
    seed: int = 0
    language: str = "en"

    def __post_init__(self) -> None:
        if self.length < LEAST_FRAMES:
            raise ParameterError(f"length: {self.length} frames are too few to describe a target; allowed: {LEAST_FRAMES} "
                                 "or more")
        if not 1 <= self.stride <= self.length:
            raise ParameterError(f"stride: {self.stride} would leave frames between clips unseen or never end; allowed: 1 "
                                 f"to the length of a clip, {self.length}")


def check_limit(limit: int) -> int:
    """``limit`` itself. Raises :class:`ParameterError` for a negative one."""
    if limit < 0:
        raise ParameterError(f"limit: {limit} videos cannot be; allowed: 1 or more, or 0 for all")
    return limit


@dataclass(frozen=True)
class Dropped:
    """A clip that gave no conversation: why, and the case in words."""

    clip: str
    reason: str
    detail: str


@dataclass
class Made:
    """Conversations of one split, and what was dropped on the way."""

    conversations: list[Conversation] = field(default_factory=list)
    dropped: list[Dropped] = field(default_factory=list)
    frames: int = 0
    seconds: float = 0.0        # of the processor, from masks to conversations, without reading or rendering


def clip_facts(view: ClipView, source: AppearanceSource, *, split: str, masks: Masks, pace: Pace | None = None,
               truth: SceneTruth | None = None, grey: bool = False) -> ClipFacts | Dropped:
    """What may be said of a clip, from its masks; or why nothing may.

    Args:
        view: the clip with its masks.
        source: of appearances.
        masks: "instances" where values stay with their targets, "binary" for 0 and one other value.
        pace: of the scene's pedestrians, where it is known.
        truth: of the surroundings, where it is known.
        grey: whether the footage has no colours.

    Raises:
        MaskError: masks of another kind or size than said, with the video's name.
    """
    track_masks = tracks_from_instances if masks == "instances" else tracks_from_binary
    length, targets = view.stop - view.start, []
    try:
        tracks = track_masks(view.masks, size=view.video.frames.size)
    except MaskError as error:
        raise MaskError(f"{view.video.dataset}, {view.name}: {error}") from error
    for track in tracks:
        if len(track.frames) < LEAST_FRAMES or np.median(track.areas) < LEAST_PIXELS:
            frames = f"{len(track.frames)} frame{'s' * (len(track.frames) > 1)}"
            return Dropped(view.name, "barely seen", f"track {track.id}: {frames}, {np.median(track.areas):.0f} pixels")
        sighting = source.of(view, track)
        if isinstance(sighting, Drop):
            return Dropped(view.name, sighting.reason, sighting.detail)
        look = sighting.look.without_colours() if grey and sighting.look else sighting.look
        timeline = timeline_of(track, frames=length, size=view.masks.shape[1:], pace=pace)
        found = list(contradictions(look, sighting.motions, timeline))
        if look is None or look.kind != "throwing":     # what is thrown moves the middle of who stands
            found += filter(None, [told_still(timeline, track, size=view.masks.shape[1:])])
        if look is None:
            found += filter(None, [unclear(timeline, track)])
        if found:
            return Dropped(view.name, f"contradiction, {found[0].partition(':')[0]}", "; ".join(found))
        targets.append((track, Target(timeline, look, sighting.motions, paced=pace is not None)))
    around = truth.of(view.start, view.stop) if truth else None
    # Specks, or an event that the script shows too small for a mask: abnormal, yet nothing can be told of it.
    if not targets and (view.masks.any() or (around is not None and around.events)):
        return Dropped(view.name, "barely seen", "no target is large enough for a track")
    # Spoken of in the order in which they come, from left to right where they come together.
    targets.sort(key=lambda pair: (pair[0].frames[0], pair[0].centres[0, 0], pair[0].id))
    return ClipFacts(view.video.id, view.start, view.stop, view.video.frames.fps, view.video.dataset, split,
                     view.video.scene or "", tuple(target for _, target in targets), around)


def speak(view: ClipView, source: AppearanceSource, settings: Settings, **options: Any) -> list[Conversation] | Dropped:
    """Masks to conversations for one clip; ``options`` as in :func:`clip_facts`."""
    facts = clip_facts(view, source, **options)
    return facts if isinstance(facts, Dropped) else conversations(facts, seed=settings.seed, code=settings.language)


def clips_of(video: Video, settings: Settings) -> Iterator[ClipView]:
    """All windows of a video with their masks; none for a video shorter than a window.

    Raises :class:`DatasetError` for a video without masks, :class:`MaskError` where they are not one a frame.
    """
    if video.masks is None:
        raise DatasetError(f"{video.id}: {video.dataset} has no masks of it; the dialogue set is made from masks")
    if len(video) < settings.length:
        return
    masks: UInt8[np.ndarray, "n h w"] = video.masks(0, len(video))
    if np.ndim(masks) != 3 or len(masks) != len(video):
        raise MaskError(f"{video.dataset}, {video.id}: masks have shape {np.shape(masks)}, expected one (height, width) "
                        f"mask for each of the {len(video)} frames; complete the masks of this video")
    for start, stop in windows(len(video), length=settings.length, stride=settings.stride):
        yield ClipView(video, start, stop, masks[start:stop])


def make_split(dataset: Dataset, split: str, source: AppearanceSource, settings: Settings, *,
               limit: int = 0) -> Made:
    """Conversations about every clip of a split (of its first ``limit`` videos; 0: all)."""
    made, masks = Made(), "instances" if dataset.name == "simcampus" else "binary"
    videos = dataset.videos(split)
    recipes: Sequence[Any] = dataset.recipes(split) if dataset.name == "simcampus" else [None] * len(videos)
    pairs = list(zip(videos, recipes, strict=True))[:limit or None]
    for video, recipe in tqdm(pairs, desc=f"conversations of {split}", unit="video", mininterval=2):
        options: dict[str, Any] = {"split": split, "masks": masks}
        if recipe is not None:
            options |= {"truth": SceneTruth(scene_of(recipe), video.text), "pace": walkers_pace(video.text)}
        options["grey"] = is_black_and_white(video.frames.read(0, 1)[0])
        for view in clips_of(video, settings):
            began = time.process_time()
            said = speak(view, source, settings, **options)
            made.seconds += time.process_time() - began
            made.frames += view.stop - view.start
            if isinstance(said, Dropped):
                made.dropped.append(said)
            else:
                made.conversations += said
        video.frames.close()
    return made


def counts_of(made: Made) -> dict[str, Any]:
    """Sizes of a split: clips, conversations, answers a slot, clips a class, dropped samples a reason with examples."""
    talks = made.conversations
    clips = {(talk.video, talk.start): talk for talk in talks}
    classes = Counter(target["class"] for talk in clips.values() for target in talk.targets)
    answers = Counter(slot for talk in talks for slot, _, _ in talk.turns())
    values: dict[str, Counter[str]] = {name: Counter() for name in ("motion", "from", "to", "speed")}
    for talk in clips.values():
        for target in talk.targets:
            for name, counter in values.items():
                counter[target[name]] += 1
    return {
        "videos": len({talk.video for talk in talks}), "clips": len(clips), "conversations": len(talks),
        "anomalous_clips": sum(talk.anomalous for talk in clips.values()),
        "targets_a_clip": _sorted(Counter(str(len(talk.targets)) for talk in clips.values())),
        "styles": _sorted(Counter(talk.style for talk in talks)), "classes": _sorted(classes), "answers": _sorted(answers),
        "values": {name: _sorted(counter) for name, counter in values.items()},
        "dropped": {"clips": len(made.dropped), "reasons": _sorted(Counter(drop.reason for drop in made.dropped)),
                    "examples": _examples(made.dropped)},
    }


def _sorted(counter: Counter[str]) -> dict[str, int]:
    return dict(sorted(counter.items(), key=lambda item: (-item[1], item[0])))


def _examples(dropped: Iterable[Dropped]) -> list[dict[str, str]]:
    seen: Counter[str] = Counter()
    kept = []
    for drop in dropped:
        seen[drop.reason] += 1
        if seen[drop.reason] <= EXAMPLES:
            kept.append(asdict(drop))
    return kept


def build(dataset: Dataset, splits: Sequence[str], source: AppearanceSource, output: str | Path, *,
          settings: Settings | None = None, limit: int = 0) -> dict[str, Any]:
    """Make the dialogue set of ``splits`` in the folder ``output`` and return its manifest.

    A finished folder of the same content (data, source, settings, code) is kept as it is.  The new one is written beside
    and renamed, so that ``output`` is the old set or the new one, never half of each.  A folder cannot be replaced in one
    step: a kill just between the two renames leaves no ``output`` but both sets whole beside it, the old one as
    ``.NAME.*.old`` (rename it back, or run again and delete it).

    Raises:
        ParameterError: a negative ``limit``.
        DatasetError: an unknown split, or one without masks.
        StorageError: the disk refuses, or ``output`` is a file or a folder of something else.
    """
    settings, output, limit = settings or Settings(), Path(output), check_limit(limit)
    key = {"dataset": dataset.name, "protocol": dataset.protocol, "appearance": source.name, "limit": limit,
           "settings": asdict(settings), "splits": {split: dataset.split_hash(split) for split in splits},
           "code": _code_hash(), **({"simulator": dataset.cache_dir.name} if dataset.name == "simcampus" else {})}
    if output.exists():
        if not output.is_dir():
            raise StorageError(f"{output}: a file, and the set is a folder; give another --output")
        if any(output.iterdir()) and not (output / "manifest.json").is_file():
            raise StorageError(f"{output}: not a dialogue set, so it is not replaced; give another folder")
        if is_complete(output)[0] and (old := read_manifest(output))["key"] == key:
            return old
    beside = output.with_name(f".{output.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        manifest = _write(dataset, splits, source, beside, settings=settings, limit=limit, key=key)
        _put(beside, output)
    except OSError as error:
        if isinstance(error, StorageError):
            raise
        raise StorageError(f"{output}: not written ({error.strerror or error}); what was there before is untouched; free "
                           "space or give another folder, then run the same command again") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return manifest


def _write(dataset: Dataset, splits: Sequence[str], source: AppearanceSource, folder: Path, *, settings: Settings,
           limit: int, key: Mapping[str, Any]) -> dict[str, Any]:
    folder.mkdir(parents=True)
    counts, speed = {}, {}
    for split in splits:
        made = make_split(dataset, split, source, settings, limit=limit)
        with open(folder / f"{split}.jsonl", "x", encoding="utf-8") as file:
            for talk in made.conversations:
                file.write(json.dumps(talk.as_dict(), ensure_ascii=False) + "\n")
        counts[split] = counts_of(made)
        speed[split] = round(made.frames / made.seconds, 1) if made.seconds else None
    files = [f"{split}.jsonl" for split in splits]
    manifest = {"key": dict(key), "splits": counts, "files": {name: {"sha256": file_hash(folder / name),
                "bytes": (folder / name).stat().st_size} for name in files}}
    (folder / "README.md").write_text(data_card(manifest), encoding="utf-8")
    # Speed and commit differ from run to run: beside the manifest, not in it.
    write_json(folder / "provenance.json", {"commit": commit(), "frames_a_second": speed})
    write_json(folder / "manifest.json", manifest)
    complete(folder, [*files, "README.md", "manifest.json", "provenance.json"])
    return manifest


def _put(beside: Path, output: Path) -> None:
    """``beside`` in the place of ``output``."""
    old = beside.with_suffix(".old")
    if output.exists():
        os.replace(output, old)
    try:
        os.replace(beside, output)
    except OSError:
        if old.exists():
            os.replace(old, output)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _code_hash() -> str:
    """Hash of what decides the words: this package's source."""
    here = Path(__file__).parent
    return hash_of([[path.name, path.read_text(encoding="utf-8")] for path in sorted(here.glob("*.py"))
                    if path.name not in ("__main__.py", "bench.py")])[:16]


def load_conversations(folder: str | Path, split: str, *, dataset: str = "simcampus") -> list[Conversation]:
    """The conversations of one split, in the order written; ``dataset`` as in :func:`read_manifest`.

    Raises:
        MissingPhaseError: no dialogue set there, or not of this split.
        DatasetError: a damaged manifest, or a line that is no conversation, named by file and number.
    """
    manifest, path = read_manifest(folder, dataset=dataset), Path(folder) / f"{split}.jsonl"
    known, name = list(manifest["splits"]), manifest["key"]["dataset"]
    if not path.is_file():
        # With the splits that it has: the command makes the whole folder anew.
        raise MissingPhaseError(f"{path}: the set has the splits {', '.join(known)}; run: "
                                f"{make_command(folder, name, splits=dict.fromkeys([*known, split]))}")
    found = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path}: no text ({error}); make the set again: "
                           f"{make_command(folder, name, splits=known)}") from error
    for number, line in enumerate(lines, start=1):
        try:
            found.append(Conversation.from_dict(json.loads(line)))
        except (ValueError, TypeError, KeyError) as error:
            raise DatasetError(f"{path}, line {number}: no conversation ({error}); make the set again: "
                               f"{make_command(folder, name, splits=known)}") from error
    return found
