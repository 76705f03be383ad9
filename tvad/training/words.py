"""The lessons of a region encoder that speaks in words, before the language model hears it.

Its classifiers are small and read numbers that no weight enters, so each clip's are computed once and a step costs a
hundredth of one of the language model.  They learn from the words of the training conversations' targets.  Paths are
learned from these clips mirrored and backwards as well, whose words are known too, and from synthetic blobs, of which any
number can be drawn; clothes from the ordinary people of the clips, of whom there are ten times as many (``people.py``).
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from tvad.region import WordedEncoder
from tvad.region.facts import Facts, looks_of
from tvad.region.objects import warm_boxes
from tvad.region.words import DRESS, mirrored, numbers, reversed_in_time, story
from tvad.training.blobs import BlobWorld, blob_lesson
from tvad.training.lessons import Lessons
from tvad.training.phase2_config import Phase2Config
from tvad.training.speaker import Speaker

_RATE, _DECAY = 2e-3, 0.05      # of AdamW
_WARM_UP = 20


@dataclass(frozen=True)
class Taught:
    """Facts of clips and the words of their targets, row by row."""

    facts: Facts
    told: Sequence[Sequence[Mapping[str, str]]]


@dataclass(frozen=True)
class Dressed:
    """Looks and views of ordinary people, and the words of their clothes."""

    look: Float[Tensor, "n v"]
    views: Float[Tensor, "n k 4 r c"]
    told: Sequence[Mapping[str, str]]


def teach_words(config: Phase2Config, speaker: Speaker, train: Lessons, world: BlobWorld, *,
                progress: bool = True) -> list[float]:
    """Teach ``speaker.region`` the words of the training clips under the variant's evidence; the loss of each step.

    Nothing happens for encoders that speak no words. A pure function of the seed: every process does the same.
    """
    encoder = speaker.region
    if not isinstance(encoder, WordedEncoder) or not config.word_steps:
        return []
    clips, people = clips_of(encoder, train, device=speaker.device, progress=progress)
    paths = [turned(encoder, train, device=speaker.device, progress=progress)]
    if config.blobs:
        paths.append(blobs_of(config, encoder, world, device=speaker.device, progress=progress))
    return teach(encoder, clips, [one for one in paths if one is not None], people, steps=config.word_steps,
                 batch=config.word_batch, seed=config.seed, progress=progress)


def teach(encoder: WordedEncoder, clips: Taught, paths: Sequence[Taught], people: Dressed | None, *, steps: int, batch: int,
          seed: int, progress: bool = True) -> list[float]:
    """Fit and train the encoder's classifiers: each step takes ``batch`` clips, as many of each of ``paths``, of which the
    paths alone are taught, and twice as many people."""
    reader, names = encoder.reader, set(encoder.taught())
    encoder.eval()      # dropout would pair things and targets by chance
    reader.fit(clips.facts, clips.told)
    sets = [(one.facts, reader.wanted(one.facts, one.told)) for one in (clips, *paths)]     # the rules pair well at once
    clothes = {} if people is None else {field.name: torch.tensor(numbers(people.told, field)) for field in DRESS}
    optimizer = torch.optim.AdamW([value for name, value in encoder.named_parameters() if name in names], lr=_RATE,
                                  weight_decay=_DECAY)
    rng, losses = np.random.default_rng([seed, 13]), []
    encoder.train()
    with torch.random.fork_rng():
        torch.manual_seed(int(rng.integers(2**62)))
        for step in tqdm(range(steps), desc="words", unit="step", disable=not progress):
            optimizer.param_groups[0]["lr"] = _RATE * min(1, (step + 1) / _WARM_UP, 2 * (1 - step / steps))
            loss = torch.zeros((), device=clips.facts.path.device)
            for number, (facts, wanted) in enumerate(sets):
                chosen = rng.integers(0, len(facts.found), batch)
                own = {name: words[chosen] for name, words in wanted.items()}
                loss = loss + reader.teach(facts.rows(chosen), own, seen_too=number == 0)
            if people is not None:
                chosen = rng.integers(0, len(people.told), 2 * batch)
                views = people.views[chosen].flip(-1) if step % 2 else people.views[chosen]
                loss = loss + reader.teach_dress(people.look[chosen], views,
                                                 {name: words[chosen] for name, words in clothes.items()})
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
    return losses


def rows_of(train: Lessons) -> dict[int, int]:
    """One conversation (row) of each clip, by the clip's number."""
    return {train.number[row]: row for row in range(len(train))}


def clips_of(encoder: WordedEncoder, train: Lessons, *, device: Any, progress: bool) -> tuple[Taught, Dressed | None]:
    """Facts of the training clips with the words of their targets, and their ordinary people."""
    rows, facts, looks, views, told = rows_of(train), [], [], [], []
    for clip in tqdm(rows, desc="facts of clips", unit="clip", disable=not progress):
        seen, heat = train.clips.look(clip).to(device), train.heat[clip].to(device)
        facts.append(encoder.facts(heat[None], seen[None]))
        people = train.clips.people[clip] if train.clips.people else ()
        if people:
            things = [warm_boxes(person.boxes, tuple(heat.shape[1:])) for person in people]
            look, view = looks_of(things, seen.float(), width=encoder.text_width)
            looks.append(look)
            views.append(view)
            told += [person.words for person in people]
    dressed = Dressed(torch.cat(looks), torch.cat(views), told) if told else None
    return Taught(Facts.together(facts), [train.story(row) for row in rows.values()]), dressed


def turned(encoder: WordedEncoder, train: Lessons, *, device: Any, progress: bool) -> Taught | None:
    """The maps of clips with one target mirrored, backwards and both, with the paths that these show; None of none."""
    facts, told = [], []
    for clip, row in tqdm(rows_of(train).items(), desc="facts of turned maps", unit="clip", disable=not progress):
        heat, words = train.heat[clip].to(device), train.story(row)
        if len(words) != 1:     # the order of several is another in a mirror
            continue
        back = [reversed_in_time(one) for one in words]
        for shown, said in ((heat.flip(2), [mirrored(one) for one in words]), (heat.flip(0), back),
                            (heat.flip(0, 2), [mirrored(one) for one in back])):
            facts.append(encoder.facts(shown[None]))
            told.append(said)
    return Taught(Facts.together(facts), told) if told else None


def blobs_of(config: Phase2Config, encoder: WordedEncoder, world: BlobWorld, *, device: Any, progress: bool) -> Taught:
    """Synthetic blobs and their paths."""
    numbers = tqdm(range(config.word_blobs), desc="facts of blobs", unit="blob", disable=not progress)
    lessons = [blob_lesson(world, seed=config.seed, number=number) for number in numbers]
    facts = Facts.together([encoder.facts(lesson.heat[None].to(device)) for lesson in lessons])
    return Taught(facts, [[story(target) for target in lesson.targets] for lesson in lessons])
