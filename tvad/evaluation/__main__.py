"""Command line of the evaluation, see ``tvad.evaluation``."""
from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import tvad.evaluation
from tvad.errors import MissingPhaseError, ParameterError, TvadError
from tvad.evaluation.detectors import DETECTORS
from tvad.evaluation.measures import Measure, put_measures
from tvad.evaluation.places import STANDARD, Place
from tvad.evaluation.results import EVALUATION_FILE, LEAK_FILE, MEASURE_FILE
from tvad.params import project_root
from tvad.record import Row, replace_rows

OURS = "t-vad"      # whose rows the study keeps
_HELP = {
    "score": "score detectors on places; rows and measures into the output folder",
    "compare": "paired differences of scored detectors: the first less each of the others",
    "study": "scenes, alarms and paired differences of what the study has scored, without a model",
    "answers": "calibration of the yes/no answers in a file of phase 2, and paired differences to another file",
    "cost": "parameters, operations, speed and memory of a detector on this machine",
    "leak": "train and measure one decoder under a random split of clips and under a scene-disjoint one",
    "tables": "every table as CSV, Markdown and LaTeX, from rows and measures alone",
}


def parser() -> argparse.ArgumentParser:
    """The command line; every command has its own ``--help``."""
    made = argparse.ArgumentParser(prog="python -m tvad.evaluation", description=tvad.evaluation.__doc__,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = made.add_subparsers(dest="command", required=True, metavar="|".join(_HELP))
    each = {name: commands.add_parser(name, help=said, description=said) for name, said in _HELP.items()}
    for name in ("score", "compare", "cost", "leak"):
        each[name].add_argument("--backbone", default="qwen2.5-vl-tiny", help="name in data/zoo, folder or hub name")
        each[name].add_argument("--device", default="auto", help="auto, cpu or cuda; under accelerate launch each process "
                                                                 "takes its own")
    for name in ("score", "compare", "study"):
        each[name].add_argument("--on", nargs="+", default=list(STANDARD), metavar="DATASET/SPLIT",
                                help=f"default: {' '.join(STANDARD)}")
        each[name].add_argument("--root", help="folder of the data sets; default: TVAD_DATA, else data/")
        each[name].add_argument("--max-videos", type=int, default=0, metavar="N", help="the first N videos of each place")
        each[name].add_argument("--samples", type=int, default=1000, help="bootstrap samples over videos")
    for name in ("score", "compare", "study", "leak"):
        each[name].add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2] if name == "study" else [0])
    each["study"].add_argument("--variants", nargs="+", default=[entry.variant for entry in DETECTORS.values()
                                                                 if entry.system == OURS])
    each["study"].add_argument("--study", type=Path, metavar="FOLDER", help="one configuration's; default: the newest in "
                                                                            "runs/study")
    for name in ("score", "cost"):
        each[name].add_argument("--detector", nargs="+", default=["t-vad"], help="names of the registry (detectors.py)")
        each[name].add_argument("--decoder", default="", metavar="FILE", help="weights of T-VAD instead of the study's")
    each["score"].add_argument("--events", nargs="+", default=[], help="the user's own words, for detectors that listen")
    each["score"].add_argument("--incomplete", action="store_true", help="take a real set of which clips are missing")
    each["compare"].add_argument("detectors", nargs="+", help="two names of the registry or more, scored before")
    each["cost"].add_argument("--speaker", metavar="FOLDER", help="what phase 2 left, for the sizes of RAE and LoRA")
    each["answers"].add_argument("file", type=Path)
    each["answers"].add_argument("--variant", default="full")
    each["answers"].add_argument("--against", type=Path, metavar="FILE", help="answers of another variant to the same "
                                                                              "questions")
    each["answers"].add_argument("--against-variant", default="other", metavar="NAME")
    each["answers"].add_argument("--on", default=STANDARD[0], metavar="DATASET/SPLIT")
    each["answers"].add_argument("--seed", type=int, default=0)
    each["leak"].add_argument("--videos", type=int, default=0, metavar="N", help="cut N test videos, evenly spaced; 0: all")
    each["leak"].add_argument("--steps", type=int, default=600)
    each["tables"].add_argument("--profile", default="tiny")
    each["tables"].add_argument("--rows", nargs="+", default=[], metavar="FOLDER",
                                help="folders with rows.jsonl and measures.jsonl besides runs/evaluation")
    for name in ("score", "compare", "study", "answers", "cost", "leak"):
        each[name].add_argument("--keep", metavar="PROFILE", default="", help="also put what is measured into "
                                "figures/<PROFILE>, which is committed and which tables read; replaces what it measured "
                                "there before" + (". Rows of T-VAD are not kept: they are the study's"
                                                  if name == "score" else ""))
    for name, said in each.items():
        said.add_argument("--output", metavar="FOLDER", help="default: " + ("figures/<profile>/tables" if name == "tables"
                                                                            else "runs/evaluation"))
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status: 1 with one line on the error stream where something is amiss."""
    given = parser().parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    root = project_root()
    given.output = Path(given.output) if given.output else root / "runs" / "evaluation"
    try:
        if getattr(given, "keep", ""):
            _check_keep(given, root)
        {"score": _score, "compare": _compare, "study": _study, "answers": _answers, "cost": _cost, "leak": _leak,
         "tables": _tables}[given.command](given, root)
    except TvadError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


def _check_keep(given: argparse.Namespace, root: Path) -> None:
    """Raises ParameterError for a profile that there is not and for a part of a split, before any work."""
    known = sorted(path.stem for path in (root / "notebooks" / "profiles").glob("*.yaml"))
    if given.keep not in known:
        raise ParameterError(f"--keep {given.keep!r}: no such profile; choose one of {', '.join(known)}")
    if getattr(given, "max_videos", 0) or getattr(given, "incomplete", False):
        raise ParameterError("--keep: figures of some videos do not stand for a split; leave --max-videos and --incomplete "
                             "away, or do not keep them")


def _put(given: argparse.Namespace, root: Path, measures: Sequence[Measure], rows: Sequence[Row] = (), *,
         file: str = LEAK_FILE) -> None:
    """Measures into the output folder; with ``--keep`` these and ``rows`` also into the profile's figures."""
    put_measures(given.output / MEASURE_FILE, measures)
    if given.keep:
        folder = root / "figures" / given.keep
        put_measures(folder / MEASURE_FILE, measures)
        if rows:
            replace_rows(folder / file, rows)
        print(f"kept in {folder}: {len(measures)} measures, {len(rows)} rows", flush=True)


def _score(given: argparse.Namespace, root: Path) -> None:
    from accelerate import Accelerator

    from tvad.evaluation.detectors import Order, entry_of, open_detector
    from tvad.evaluation.engine import evaluate_detector

    places = [Place.parse(text) for text in given.on]
    entries = {name: entry_of(name) for name in given.detector}
    accelerator = Accelerator(cpu=given.device == "cpu")
    device = str(accelerator.device) if accelerator.num_processes > 1 else given.device
    failed, opened = [], {}
    for place in places:      # all of them first: a missing set stops the command before any work
        options = {"complete": False} if given.incomplete and place.dataset != "simcampus" else {}
        # one process renders what is missing, the others then find it
        with accelerator.main_process_first():
            opened[place] = place.videos(root=given.root, limit=given.max_videos, **options)
    for name, entry in entries.items():
        for place, videos in opened.items():
            for seed in given.seeds:
                order = Order(backbone=given.backbone, decoder=given.decoder, trained=place.trained, seed=seed,
                              device=device, root=root)
                try:
                    detector = open_detector(name, order)
                    found = evaluate_detector(detector, place, videos, output=given.output, name=name, seed=seed,
                                              system=entry.system, variant=entry.variant, events=given.events,
                                              samples=given.samples, accelerator=accelerator)
                except (MissingPhaseError, ParameterError) as error:     # the same in every process
                    failed.append(f"{name} on {place}, seed {seed}: {error}")
                    continue
                if accelerator.is_main_process:
                    said = ", ".join(f"{row.metric} {row.value:.3f}" for row in found.rows
                                     if row.event is None and row.value is not None and row.sigma != 0)
                    print(f"{name} on {place}, seed {seed}, {len(videos)} videos in {found.seconds:.0f} s: {said}",
                          flush=True)
                    _put(given, root, found.measures, () if entry.system == OURS else found.rows, file=EVALUATION_FILE)
    if failed:
        raise MissingPhaseError(f"{len(failed)} evaluations could not be made; " + " | ".join(failed))


def _compare(given: argparse.Namespace, root: Path) -> None:
    from tvad.evaluation.compare import differences
    from tvad.evaluation.detectors import entry_of
    from tvad.evaluation.engine import detections_folder
    from tvad.evaluation.rows import Cell
    from tvad.evaluation.scoring import load_detections

    if len(given.detectors) < 2:
        raise ParameterError("compare: name two detectors or more; the first is compared with each of the others")
    entries = [entry_of(name) for name in given.detectors]
    for place in (Place.parse(text) for text in given.on):
        videos = place.videos(root=given.root, limit=given.max_videos)
        found = [[load_detections(detections_folder(given.output, name, seed, place), videos) for seed in given.seeds]
                 for name in given.detectors]
        for entry, other in zip(entries[1:], found[1:]):
            cell = Cell(variant=entries[0].variant, dataset=place.dataset, split=place.split, protocol=place.protocol,
                        seed=given.seeds[0], config="", sigma=0.0, system=entries[0].system, samples=given.samples)
            made = differences(found[0], other, videos, cell, against=f"{entry.system}/{entry.variant}")
            _put(given, root, made)
            for one in made:
                said = one.note if one.value is None else (f"{one.value:+.4f} [{one.ci_low:+.4f}, {one.ci_high:+.4f}] "
                                                           f"p {one.p:.4f}")
                print(f"{place}: {entries[0].title} less {entry.title}, {one.name}: {said}", flush=True)


def _study(given: argparse.Namespace, root: Path) -> None:
    from tvad.evaluation.arms import arms_measures

    folders = sorted((root / "runs" / "study").glob("*/full-*"), key=lambda folder: folder.stat().st_mtime)
    study = given.study or (folders[-1].parent if folders else None)
    if study is None or not study.is_dir():
        raise MissingPhaseError(f"{study or root / 'runs' / 'study'}: no study here; run: make study")
    for place in (Place.parse(text) for text in given.on):
        videos = place.videos(root=given.root, limit=given.max_videos)
        made, missing = arms_measures(study, place, videos, variants=given.variants, seeds=given.seeds,
                                      samples=given.samples)
        _put(given, root, made)
        print(f"{place}: {len(made)} measures" + "".join(f"; {text}" for text in missing), flush=True)


def _answers(given: argparse.Namespace, root: Path) -> None:
    from tvad.evaluation.compare import answer_differences
    from tvad.evaluation.details import answer_measures
    from tvad.evaluation.rows import Cell
    from tvad.study.answers import read_answers

    place = Place.parse(given.on)
    cell = Cell(variant=given.variant, dataset=place.dataset, split=place.split, protocol=place.protocol, seed=given.seed,
                config="", sigma=0.0)
    said = read_answers(given.file)
    made = answer_measures(said, cell)
    if not made:
        raise MissingPhaseError(f"{given.file}: no yes/no answer with a probability; answer again with phase 2")
    if given.against is not None:
        made += answer_differences([said], [read_answers(given.against)], cell, against=f"t-vad/{given.against_variant}")
    _put(given, root, made)
    print("\n".join(f"{one.name} {one.value:+.4f} {one.unit}, n {one.n}" for one in made))


def _cost(given: argparse.Namespace, root: Path) -> None:
    from tvad.evaluation.cost import cost_measures
    from tvad.evaluation.detectors import Order, entry_of, open_detector

    for name in given.detector:
        entry = entry_of(name)
        order = Order(backbone=given.backbone, decoder=given.decoder, device=given.device, root=root,
                      options={"load_language_model": True})
        made = cost_measures(open_detector(name, order), system=entry.system, variant=entry.variant, speaker=given.speaker)
        _put(given, root, made)
        print("\n".join(f"{entry.title}: {one.name} {one.value:,.6g} {one.unit}" for one in made), flush=True)


def _leak(given: argparse.Namespace, root: Path) -> None:
    from tvad.backbones.qwen import QwenBackbone
    from tvad.evaluation.leak import LeakSettings, leak_study, spread
    from tvad.evaluation.results import Results
    from tvad.evaluation.tables import TABLES
    from tvad.params import Phase1

    backbone = QwenBackbone.from_pretrained(given.backbone, taps=Phase1().taps, device=given.device)
    parts = {split: Place("simcampus", split).videos(render=False) for split in ("train", "val", "test")}
    source = spread(parts["test"], given.videos or len(parts["test"]))
    rows, measures = leak_study(backbone, source=source, train=parts["train"], val=parts["val"], seeds=given.seeds,
                                output=given.output, settings=LeakSettings(steps=given.steps),
                                cache_dir=root / "data" / "cache")
    _put(given, root, measures, rows)
    print(TABLES["leak"](Results(tuple(rows), tuple(measures))).markdown())


def _tables(given: argparse.Namespace, root: Path) -> None:
    from tvad.evaluation.results import Results
    from tvad.evaluation.tables import TABLES

    evaluation = root / "runs" / "evaluation"
    target = given.output if given.output != evaluation else root / "figures" / given.profile / "tables"
    results = Results.gather(root, run=root / "runs" / given.profile, more=[evaluation, *given.rows])
    for table in TABLES.values():
        print("\n".join(str(path) for path in table(results).write(target)), flush=True)


if __name__ == "__main__":
    sys.exit(main())
