"""What the tests of the paper's figures share: a run of toy footage on disk, with detections, study rows and answers."""
from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
from training_fakes import toy_split, toy_video

from tvad.detection import Scoring, finish
from tvad.evaluation import Cell, detection_path, evaluate
from tvad.figures import __main__ as command
from tvad.figures import gallery, stored
from tvad.language.dialogue import Conversation
from tvad.metrics.text import Answer
from tvad.params import base, phase4
from tvad.record import append_rows
from tvad.study.answers import write_answers
from tvad.study.phase1 import Part

CORE = ("anomaly", "target", "motion", "from", "to", "trajectory")
SAID = {"anomaly": "Yes.", "target": "A red car.", "motion": "Driving.", "from": "From the left.", "to": "To the right.",
        "trajectory": "Starts at the left, moves towards the right, stays in view."}
SIGMA = 2.0


def videos() -> tuple:
    return toy_split("paper", 6)


def heat_of(video, *, hit: float, seed: int = 0) -> np.ndarray:
    """A map on a grid of 6 x 9 that is warm where the square is, in a share of the frames, and noise elsewhere."""
    rng = np.random.default_rng([seed, *video.id.encode()])
    heat = 0.3 * rng.random((len(video), 6, 9)).astype(np.float32)
    masks = video.masks(0, len(video)) > 0
    cells = masks.reshape(len(video), 6, 10, 9, 10).any((2, 4))
    found = rng.random(len(video)) < hit
    return np.where(cells & found[:, None, None], 0.9, heat).astype(np.float32)


def detection(video, *, hit: float = 0.8, sigma: float = SIGMA):
    heat = heat_of(video, hit=hit)
    return finish(video.id, heat.max((1, 2)), heat, size=video.frames.size, scoring=Scoring(sigma=sigma))


def talk(video, start: int, stop: int) -> Conversation:
    """A conversation in six turns about a clip; on a normal clip two."""
    anomalous = bool(video.labels[start:stop].any())
    told = SAID if anomalous else {"anomaly": "No.", "target": "None."}
    messages = []
    for slot, said in told.items():
        content = ([] if messages else [{"type": "video"}]) + [{"type": "text", "text": f"What is the {slot}, please?"}]
        messages += [{"role": "user", "slot": slot, "references": [], "content": content},
                     {"role": "assistant", "slot": slot, "references": [], "content": [{"type": "text", "text": said}]}]
    slots = {"anomaly": "yes" if anomalous else "no", "class": "car", "trajectory": told.get("trajectory", "none")}
    return Conversation(f"simcampus/{video.id}:{start}-{stop}/turns", video.id, start, stop, 10.0, "simcampus", "test", "s",
                        anomalous, "turns", tuple(messages), slots)


def talks() -> list[Conversation]:
    return [talk(video, start, start + 10) for video in videos() for start in (0, 10, 20)]


def answers(conversations, *, wrong: int = 4) -> list[Answer]:
    """Right answers, but every ``wrong``-th one of a target."""
    given = []
    for number, one in enumerate(conversations):
        for place, (slot, _, said) in enumerate(one.turns()):
            missed = one.anomalous and slot != "anomaly" and (number + place) % wrong == 0
            given.append(Answer(one.video, slot, "From the top." if missed else said, (said,),
                                event="car" if one.anomalous else None, probability=0.9 if slot == "anomaly" else None))
    return given


def at_root(patch, folder) -> None:
    """Everything that asks for the checkout gets ``folder``, and the data set's test split is toy footage."""
    for module in (base, phase4, stored, gallery, command):
        patch.setattr(module, "project_root", lambda: folder)
    patch.setattr(stored, "open_part", lambda params, *, dataset, protocol, split, limit=0: Part(
        dataset, protocol, split, videos()[:limit or None], "0" * 64))


def write_run(root, profile: str = "tiny") -> None:
    """What phases 1 and 2 and the study leave of a profile, as far as figures read it."""
    run, shown = root / "runs" / profile, videos()
    found = {video.id: detection(video) for video in shown}
    for video in shown:
        found[video.id].save(detection_path(run / "phase1" / "detections" / "test", video))
    Scoring(sigma=SIGMA, chosen_on="simcampus/val").save(run / "phase1" / "detector.json")
    cell = Cell(variant="full", dataset="simcampus", split="test", protocol="scene-disjoint", seed=0, config="c",
                sigma=SIGMA, samples=10)
    rows = evaluate(found, shown, cell)
    append_rows(root / "figures" / profile / "study.jsonl",
                [replace(row, seed=seed, variant=name) for seed in (0, 1) for row in rows
                 for name in ("full", "control-static")])
    spoken = replace(rows[0], split="val", event=None, sigma=None, positive_rate=None, ci_low=0.6, ci_high=0.9)
    append_rows(root / "figures" / profile / "curve.jsonl",
                [replace(spoken, seed=seed, variant=name, metric=metric, value=value + seed / 10,
                         n=9 if metric.startswith("yes") else 5)
                 for seed in (0, 1) for name, value in (("full", 0.7), ("full, clips x 0.25", 0.45))
                 for metric in ("yes_no_balanced_accuracy", "bleu4_target", "bleu4_trajectory")])
    conversations = talks()
    (run / "dialogue").mkdir()
    (run / "dialogue" / "test.jsonl").write_text("".join(json.dumps(one.as_dict()) + "\n" for one in conversations))
    write_answers(run / "phase2" / "answers-full-test.jsonl", answers(conversations))


__all__ = ["CORE", "SAID", "SIGMA", "answers", "at_root", "detection", "heat_of", "talk", "talks", "toy_video", "videos",
           "write_run"]
