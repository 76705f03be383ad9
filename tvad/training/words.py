"""The lessons of a region encoder that speaks in words, before the language model hears it.

Its classifiers are small and read numbers that no weight enters, so each clip's are computed once and a step costs a
hundredth of one of the language model.  They learn from the words of the training conversations' targets, and the path
from synthetic blobs as well, of which any number can be drawn.
"""
from __future__ import annotations

import numpy as np
import torch
from tqdm.auto import tqdm

from tvad.region import WordedEncoder
from tvad.region.facts import Facts
from tvad.region.words import story
from tvad.training.blobs import BlobWorld, blob_lesson
from tvad.training.lessons import Lessons
from tvad.training.phase2_config import Phase2Config
from tvad.training.speaker import Speaker

_RATE, _DECAY = 2e-3, 0.05      # of AdamW
_WARM_UP = 20


def teach_words(config: Phase2Config, speaker: Speaker, train: Lessons, world: BlobWorld, *,
                progress: bool = True) -> list[float]:
    """Teach ``speaker.region`` the words of the training clips under the variant's evidence; the loss of each step.

    Nothing happens for encoders that speak no words. A pure function of the seed: every process does the same.
    """
    encoder = speaker.region
    if not isinstance(encoder, WordedEncoder) or not config.word_steps:
        return []
    rows = {train.number[row]: row for row in range(len(train))}      # one conversation of each clip
    told = [train.story(row) for row in rows.values()]
    device, steps = speaker.device, config.word_steps
    facts = Facts.together([encoder.facts(train.heat[clip][None].to(device), train.clips.tokens(clip)[None].to(device))
                            for clip in tqdm(rows, desc="facts of clips", unit="clip", disable=not progress)])
    blobs = _blobs(config, encoder, world, speaker, progress=progress) if config.blobs else None
    names = set(encoder.taught())
    optimizer = torch.optim.AdamW([value for name, value in encoder.named_parameters() if name in names], lr=_RATE,
                                  weight_decay=_DECAY)
    rng, losses = np.random.default_rng([config.seed, 13]), []
    encoder.train()
    with torch.random.fork_rng():
        torch.manual_seed(int(rng.integers(2**62)))
        for step in tqdm(range(steps), desc="words", unit="step", disable=not progress):
            optimizer.param_groups[0]["lr"] = _RATE * min(1, (step + 1) / _WARM_UP, 2 * (1 - step / steps))
            chosen = rng.integers(0, len(told), config.word_batch)
            loss = encoder.teach(facts.rows(chosen), [told[place] for place in chosen])
            if blobs is not None:
                chosen = rng.integers(0, len(blobs[1]), config.word_batch)
                loss = loss + encoder.teach(blobs[0].rows(chosen), [blobs[1][place] for place in chosen], seen_too=False)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
    return losses


def _blobs(config: Phase2Config, encoder: WordedEncoder, world: BlobWorld, speaker: Speaker, *,
           progress: bool) -> tuple[Facts, list[list[dict[str, str]]]]:
    numbers = tqdm(range(config.word_blobs), desc="facts of blobs", unit="blob", disable=not progress)
    lessons = [blob_lesson(world, seed=config.seed, number=number) for number in numbers]
    facts = Facts.together([encoder.facts(lesson.heat[None].to(speaker.device)) for lesson in lessons])
    return facts, [[story(target) for target in lesson.targets] for lesson in lessons]
