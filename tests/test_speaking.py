"""Phase 2 as a whole: a cell of the ablation from training to rows, and conversations that get what training gave."""
from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from phase2_fakes import FRAMES, NAMES, SMALL, TALKS, TEXT, VIDEOS

from tvad.conversation import TVAU
from tvad.datasets.base import hash_of
from tvad.errors import DatasetError, MissingPhaseError
from tvad.study.answers import read_answers
from tvad.study.speaking import Spoken, cell_key, read_seconds, speak_cell, spread_clips
from tvad.training import phase2, variants
from tvad.training.answering import evidence_of
from tvad.training.evidence import ClipRange, decoder_key
from tvad.training.speaker import load_speaker
from tvad.video.clip import Clip

pytest_plugins = ("phase2_fakes",)


@pytest.mark.parametrize("name", ["full", "no-rae", "no-ahd", "no-rae-no-ahd"])
def test_a_conversation_gets_what_training_gave(backbone, decoder, tmp_path, name):
    config = replace(SMALL, variant=name, every=2, pool=2, looks=2)
    speaker = phase2.new_speaker(config, backbone)
    extra = {"calibration": 1.5, "economy": asdict(config.economy), "constant": variants.CONSTANT, "phase2": asdict(config)}
    folder = speaker.save(tmp_path / "model", extra=extra)
    speaker.release()
    decoder.save(tmp_path / "ahd.safetensors", backbone_fingerprint=backbone.fingerprint)
    model = TVAU.from_phase2(backbone, tmp_path / "ahd.safetensors", folder, cache_dir=tmp_path)
    seen = model.look([Clip(VIDEOS["a"].frames.read(0, FRAMES), 10.0, 0, "a")])[0]
    model.language_model.unload()
    clips = phase2.open_clips(config, backbone, decoder, TALKS[:1], VIDEOS, prototypes=model.prototypes, cache_dir=tmp_path,
                              progress=False)
    speaker = load_speaker(folder, backbone)
    given = evidence_of(phase2.open_lessons(config, speaker, TALKS[:1], clips, backbone=backbone), 0)
    speaker.release()
    assert model.calibration == 1.5 and seen.view == given.view and seen.view.grid == (2, 4, 6)
    assert torch.allclose(seen.seen, given.seen.float(), atol=2e-2, rtol=1e-2)
    if name == "no-rae-no-ahd":
        assert seen.anomaly is None and given.anomaly is None
    else:
        assert torch.allclose(seen.anomaly, given.anomaly, atol=5e-2, rtol=1e-2)
        assert bool(seen.anomaly.any()) == (name != "no-rae")
    (folder / "complete.json").unlink()
    with pytest.raises(MissingPhaseError, match="phase 2 leaves its model there"):
        TVAU.from_phase2(backbone, tmp_path / "ahd.safetensors", folder, cache_dir=tmp_path)


def test_a_cell_is_trained_answered_and_told_in_rows(backbone, decoder, root, tmp_path):
    data = Spoken({"train": TALKS, "val": TALKS}, {"train": VIDEOS, "val": VIDEOS})
    config = replace(SMALL, steps=2, blob_steps=1, validate_every=3, asked="core")
    options = {"prototypes": TEXT, "cache_dir": root, "splits": ("val",), "samples": 10, "progress": False}
    rows = speak_cell(config, backbone, decoder, data, output=tmp_path, **options)
    assert {row.variant for row in rows} == {"full", "swapped"} and {row.split for row in rows} == {"val"}
    assert {"yes_no_balanced_accuracy", "bleu4_target", "slot_from"} <= {row.metric for row in rows}
    assert {row.config for row in rows} == {cell_key(replace(config, seed=3, variant="no-rae"), backbone, decoder, data,
                                                        prototypes=TEXT)}
    settings = {name: value for name, value in asdict(config).items() if name not in ("variant", "seed", "hidden_width")}
    parts = [settings, backbone.language_fingerprint, decoder_key(decoder, TEXT), data.key]
    assert rows[0].config == hash_of(parts)[:12]        # a setting that is left to a default elsewhere is no part of it
    wide = [cell_key(replace(config, region="worded", hidden_width=width), backbone, decoder, data, prototypes=TEXT)
            for width in (None, 64)]
    assert wide[0] != wide[1]
    reworded = replace(data, conversations={**data.conversations, "train": [replace(TALKS[0], scene="t"), *TALKS[1:]]})
    assert reworded.key != data.key                 # what is said counts, not the names of the clips
    assert [one.video for one in read_answers(tmp_path / "answers-full-val.jsonl") if one.slot == "anomaly"] == list(NAMES)
    seconds = read_seconds(tmp_path)
    assert set(seconds) == {"training", "answering val"}
    speak_cell(config, backbone, decoder, data, output=tmp_path, **{**options, "splits": ()})
    assert read_seconds(tmp_path) == seconds        # nothing was trained, so nothing is said of how long it takes


def test_few_clips_are_spread_over_videos_first_and_then_over_time():
    clips = [ClipRange(name, 10 * number, 10 * number + 10) for name in "abcd" for number in range(8)]
    for count in (1, 3, 4, 6, 11, 31):
        chosen = spread_clips(clips, count)
        each = [sum(clip.video == name for clip in chosen) for name in "abcd"]
        assert len(chosen) == len(set(chosen)) == count and max(each) - min(each) <= 1
        assert chosen == [clip for clip in clips if clip in set(chosen)]        # the order of the whole set
    assert len({clip.start for clip in spread_clips(clips, 4)}) > 1             # not the beginning of every video
    for name in "abcd":
        starts = sorted(clip.start for clip in spread_clips(clips, 12) if clip.video == name)
        assert np.diff(starts).min() > 10                                       # three of eight: no neighbours
    assert spread_clips(clips, 0) == clips and spread_clips(clips, 99) == clips
    data = Spoken({"train": TALKS}, {"train": VIDEOS})
    assert [one.video for one in data.spread(train=2).conversations["train"]] == ["a", "c"]
    assert data.styled("report").conversations == {"train": []}
    with pytest.raises(DatasetError, match="no conversations of split 'test'; there are train"):
        data.spread(test=3)
