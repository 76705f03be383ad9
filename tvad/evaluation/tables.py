"""Every table of phase 3 from rows and measures alone; a cell without rows says "not run", none is ever filled in.

The paper's figures (``published``) stand beside ours with the paper's own label of its split.  They are of other footage,
so no line of theirs may be compared with one of ours; the tables say so.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping

from tvad.evaluation import published
from tvad.evaluation.detail_tables import alarms, calibration, cost, leak, paired, scenes
from tvad.evaluation.detectors import DETECTORS, title_of
from tvad.evaluation.places import STANDARD, Place
from tvad.evaluation.results import Results
from tvad.evaluation.sheet import NONE, NOT_RUN, Entry, Figure, Sheet
from tvad.scenes.types import OPEN_SET_EVENTS

PLACES = tuple(map(Place.parse, STANDARD))
CLOSED, OPEN, PED2 = PLACES
_HEAT = {"micro_auc": "micro AUC", "macro_auc": "macro AUC", "rbdc": "RBDC", "tbdc": "TBDC",
         "pixel_auroc": "pixel AUROC", "aupro": "AUPRO"}
_SPOKEN = {"bleu4_target": "target BLEU-4", "bleu4_trajectory": "trajectory BLEU-4", "yes_no_accuracy": "yes/no",
           "yes_no_balanced_accuracy": "balanced yes/no", "slot_class": "class", "slot_colours": "colours",
           "slot_motion": "motion", "slot_from": "from", "slot_to": "to"}
_ABLATED = {"full": "full", "no-rae": "without RAE", "no-ahd": "without AHD", "no-rae-no-ahd": "without both",
            "no-lora": "without LoRA", "shuffled-evidence": "trained on other clips' heatmaps",
            "swapped": "full, answering with another clip's heatmap", "oracle-evidence": "masks for heatmaps (upper bound)"}
_PARTS = {"full": ("ahd", "rae"), "no-rae": ("ahd",), "no-ahd": ("rae",), "no-rae-no-ahd": (),
          "oracle-evidence": ("rae",), "shuffled-evidence": ("ahd", "rae"), "swapped": ("ahd", "rae"),
          "no-lora": ("ahd", "rae")}
OTHER_FOOTAGE = ("Lines of the paper are of other footage than ours and cannot be compared with them; its UBnormal figures "
                 f"are of the split that it calls validation. {published.CITATION}.")
SEEDS = ("Mean ± standard deviation over seeds; intervals: 95 % bootstrap over videos, ends averaged over seeds. Nothing "
         "was chosen on test labels.")
STUDY = "Lines that say \"not run\" come from: make study."


def heatmaps(results: Results) -> Sheet:
    """The paper's table of heatmaps, then ours: closed and open set, validation, and real footage."""
    lines: list[tuple[Entry, ...]] = []
    for line in published.HEATMAPS:
        values = (Figure(getattr(line, name)) if hasattr(line, name) else NONE for name in _HEAT)
        lines.append((f"{line.method} (paper)", "UBnormal", published.SPLIT, *values))
    rules = [len(lines)]
    for place in (*PLACES, Place("simcampus", "val")):
        split = f"{place.split} ({place.protocol}{', settings chosen on it' if place.split == 'val' else ''})"
        for title, source, variant in (("T-VAD", results, "full"), (title_of("t-vad", "adapted"), results, "adapted"),
                                       ("T-VAD, this run", Results(results.run), "full")):
            if (source is results and variant == "full") or source.found("micro_auc", place, variant=variant):
                lines.append((f"{title} (ours)", place.title, split,
                              *(source.figure(name, place, variant=variant) for name in _HEAT)))
    return Sheet("heatmaps", "Heatmaps: frames, pixels, regions and tracks", ("system", "data", "split", *_HEAT.values()),
                 tuple(lines), (OTHER_FOOTAGE, SEEDS, _seeds(results), _rates(results)), tuple(rules),
                 missing=_missing(lines))


def dialogue(results: Results) -> Sheet:
    """The paper's table of dialogue, then ours."""
    names = list(_SPOKEN)
    lines: list[tuple[Entry, ...]] = []
    for line in published.DIALOGUE:
        values = (Figure(*getattr(line, name)) if hasattr(line, name) else NONE for name in names)
        lines.append((f"{line.method}, {line.size} (paper)", line.dataset, NONE, *values))
    rules = [len(lines)]
    for place in PLACES:
        known = dict.fromkeys([("t-vad", "full"), *((system, variant) for system, variant in results.systems(
            place, spoken=True) if system != "t-vad")])
        for system, variant in known:
            lines.append((f"{title_of(system, variant)} (ours)", place.title, f"{place.split} ({place.protocol})",
                          *(results.figure(name, place, system=system, variant=variant) for name in names)))
    note = ("BLEU-4 and slots are of anomalous clips, yes/no of all. The published spreads are the paper's own, "
            "which does not say over what.")
    return Sheet("dialogue", "Dialogue: answers to questions about clips", ("system", "data", "split", *_SPOKEN.values()),
                 tuple(lines), (OTHER_FOOTAGE, SEEDS, note), tuple(rules), missing=_missing(lines, phase=2))


def ablation(results: Results) -> Sheet:
    """The paper's ablation, then ours; every line of ours is a training of its own."""
    head = ("variant", "data", "parameters (M)", "RBDC", "TBDC", "target BLEU-4", "trajectory BLEU-4", "yes/no",
            "balanced yes/no")
    lines: list[tuple[Entry, ...]] = []
    for line in published.ABLATION:
        pairs = (line.rbdc, line.tbdc, line.bleu4_target, line.bleu4_trajectory, line.yes_no_accuracy)
        lines.append((f"{_ABLATED[line.variant]} (paper)", "UBnormal, ShanghaiTech", Figure(line.parameters, digits=2),
                      *(NONE if pair is None else Figure(*pair) for pair in pairs), NONE))
    rules = [len(lines)]
    for variant, title in _ABLATED.items():
        heat = tuple(results.figure(name, CLOSED) if variant in ("full", "no-rae", "no-lora") else NONE
                     for name in ("rbdc", "tbdc"))
        said = tuple(results.figure(name, CLOSED, variant=variant) for name in
                     ("bleu4_target", "bleu4_trajectory", "yes_no_accuracy", "yes_no_balanced_accuracy"))
        lines.append((f"{title} (ours)", CLOSED.title, _parameters(results, variant), *heat, *said))
    notes = ("RBDC and TBDC are of the heatmap decoder, which is the same in all our variants that have one.",
             published.ABLATION_NOTE, OTHER_FOOTAGE, SEEDS)
    return Sheet("ablation", "Ablation: what each module adds", head, tuple(lines), notes, tuple(rules),
                 missing=_missing(lines, phase=2))


def detectors(results: Results) -> Sheet:
    """Every system of the registry, and any other that has rows, on the three standard places under one protocol."""
    names = ("micro_auc", "macro_auc", "ap", "pixel_auroc", "rbdc", "tbdc")
    heads = {**_HEAT, "ap": "AP"}
    lines: list[tuple[Entry, ...]] = []
    rules = []
    for place in PLACES:
        rules.append(len(lines))
        listed = dict.fromkeys([*((entry.system, entry.variant) for entry in DETECTORS.values()), *results.systems(place)])
        for system, variant in listed:
            seeds = results.seeds(place, system=system, variant=variant)
            lines.append((title_of(system, variant), place.title, ", ".join(map(str, seeds)) or NONE,
                          *(results.figure(name, place, system=system, variant=variant) for name in names)))
    configs = sorted({row.config for row in results.rows if (row.system, row.variant, row.split) in
                      {("t-vad", "full", place.split) for place in PLACES} and row.event is None and row.metric in names})
    mixed = f"T-VAD's rows come from {len(configs)} configurations ({', '.join(configs)})." if len(configs) > 1 else ""
    note = ("Open set: four kinds of event were kept out of training; the figures are of all events. UCSD Ped2 is real, "
            "and no label of it was used in training or in choosing anything.")
    return Sheet("detectors", "Every detector on simulated and real footage",
                 ("system", "data", "seeds", *(heads[name] for name in names)), tuple(lines),
                 (SEEDS, note, _rates(results), mixed), tuple(rules), intervals=True, missing=_missing(lines))


def events(results: Results) -> Sheet:
    """Frame AUC of each kind of event against all normal frames, by system, closed and open."""
    columns = [(place, entry) for place in (CLOSED, OPEN) for entry in DETECTORS.values()
               if results.found("micro_auc", place, system=entry.system, variant=entry.variant)]
    kinds = {row.event for row in results.rows if row.event and row.metric == "micro_auc"
             and row.dataset == "simcampus" and row.split in (CLOSED.split, OPEN.split)}
    kinds = sorted(kinds, key=lambda kind: (kind == "kept-out", kind))
    lines = [(kind.replace("_", " "), *(results.figure("micro_auc", place, system=entry.system, variant=entry.variant,
                                                       event=kind) for place, entry in columns)) for kind in kinds]
    lines = [tuple(NONE if kind == "kept-out" and cell == NOT_RUN else cell for cell in line)
             for kind, line in zip(kinds, lines)]
    head = ("event", *(f"{entry.title}, {place.protocol}" for place, entry in columns))
    return Sheet("events", "By kind of event: micro AUC against all normal frames (simulated)", head, tuple(lines),
                 (SEEDS,), missing="" if lines else "No rows by event yet; run: make study.")


def queries(results: Results) -> Sheet:
    """Heatmaps of what is named: each event asked of every video, on the closed and the open set."""
    names = {"query_micro_auc": "micro AUC", "query_pixel_auroc": "pixel AUROC", "query_wrong_ratio": "wrong queries' heat"}
    asked = {row.event for row in results.rows if row.metric in names and row.dataset == "simcampus" and row.event}
    lines = []
    for event in (None, *sorted(asked)) if asked else ():
        kept_out = " (kept out)" if event in OPEN_SET_EVENTS else ""
        lines.append(("all, mean" if event is None else event.replace("_", " ") + kept_out,
                      *(results.figure(name, place, event=event) for place in (CLOSED, OPEN) for name in names)))
    head = ("asked for", *(f"{title}, {place.protocol}" for place in (CLOSED, OPEN) for title in names.values()))
    note = ("Each event is asked by its name of every test video. Wrong queries' heat: on the frames of an event, the mean "
            "map of what the video does not show as a share of that of the event itself; lower is better. "
            "Kept out: no anomaly in the open set's training, known there by name alone.")
    return Sheet("queries", "Heatmaps of what is named (simulated)", head, tuple(lines), (note, SEEDS), rules=(1,),
                 missing=_missing(lines) if lines else "No rows of queries yet; run: make study.")


TABLES: Mapping[str, Callable[[Results], Sheet]] = {
    "heatmaps": heatmaps, "dialogue": dialogue, "ablation": ablation, "detectors": detectors, "events": events,
    "queries": queries, "scenes": scenes, "alarms": alarms, "paired": paired, "calibration": calibration, "cost": cost,
    "leak": leak,
}


def _parameters(results: Results, variant: str) -> Entry:
    """Millions of parameters of a variant with the frozen model: the parts that it runs."""
    wanted = ("tower", "language", *_PARTS[variant], *(() if variant == "no-lora" else ("lora",)))
    found = [results.measured(f"parameters_{part}", system="t-vad", variant="full") for part in wanted]
    if not all(found):
        return NOT_RUN
    return Figure(sum(part[-1].value for part in found) / 1e6, digits=2)


def _seeds(results: Results) -> str:
    told = [f"{place.title}: {', '.join(map(str, results.seeds(place)))}" for place in PLACES if results.seeds(place)]
    return f"Seeds: {'; '.join(told)}." if told else ""


def _rates(results: Results) -> str:
    rates = [(place.title, results.rate(place)) for place in PLACES]
    told = [f"{title} {rate:.3f}" for title, rate in rates if rate is not None]
    return f"Share of anomalous frames: {', '.join(told)}." if told else ""


def _missing(lines: list[tuple[Entry, ...]], *, phase: int = 1) -> str:
    if not any(cell == NOT_RUN for line in lines for cell in line):
        return ""
    return STUDY if phase == 1 else "Lines that say \"not run\" come from: python -m tvad.study run --phase 2."
