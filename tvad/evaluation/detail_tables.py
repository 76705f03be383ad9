"""The tables that are made of measures: scenes, alarms, paired differences, calibration, cost, and the leak."""
from __future__ import annotations

from tvad.evaluation.detectors import title_of
from tvad.evaluation.places import LEAK, LEAK_PROTOCOLS, STANDARD, Place
from tvad.evaluation.results import Results
from tvad.evaluation.sheet import NONE, NOT_RUN, Entry, Figure, Sheet
from tvad.metrics.paired import holm

_METRICS = {"micro_auc": "micro AUC", "macro_auc": "macro AUC", "ap": "AP", "pixel_auroc": "pixel AUROC", "rbdc": "RBDC",
            "tbdc": "TBDC", "latency_ap": "latency-aware AP", "video_auc": "AUC within videos",
            "yes_no_accuracy": "yes/no", "bleu4_target": "target BLEU-4", "bleu4_trajectory": "trajectory BLEU-4"}
_SCORE = "Made by: python -m tvad.evaluation score --detector <name> --on <data set>/<split>."
_COMPARE = "Made by: python -m tvad.evaluation compare <first> <second> --on <data set>/<split>."
_LEAK_SEEDS = "Mean ± standard deviation over seeds; intervals: bootstrap over the source videos."


def _known(results: Results, name: str) -> list[tuple[Place, str, str]]:
    """Place, system and variant that have a measure, standard places first."""
    order = [Place.parse(text) for text in STANDARD]
    found = dict.fromkeys((Place(one.dataset, one.split), one.system, one.variant)
                          for one in results.measures if one.name == name and one.against is None)
    return sorted(found, key=lambda key: order.index(key[0]) if key[0] in order else len(order))


def scenes(results: Results) -> Sheet:
    """Each scene of a split by itself."""
    names = ("micro_auc", "ap", "pixel_auroc", "rbdc", "tbdc")
    lines = []
    for place, system, variant in _known(results, "micro_auc"):
        for scene in sorted({one.scene for one in results.measures if one.scene and (one.dataset, one.split, one.system,
                                                                                    one.variant)
                             == (place.dataset, place.split, system, variant)}):
            lines.append((title_of(system, variant), place.title, scene, *(
                results.quantity(name, place=place, system=system, variant=variant, scene=scene) for name in names)))
    return Sheet("scenes", "By scene", ("system", "data", "scene", *(_METRICS[name] for name in names)), tuple(lines),
                 ("Intervals over the videos of the scene alone.",), intervals=True, missing="" if lines else _SCORE)


def alarms(results: Results) -> Sheet:
    """How early events are raised, and what that costs."""
    columns = [("latency_ap", "latency-aware AP", 3)]
    for recall in (80, 95):
        columns += [(f"false_alarms_at_recall_{recall}", f"false alarms/h at {recall} % recall", 1),
                    (f"false_frames_at_recall_{recall}", f"normal frames raised at {recall} %", 3),
                    (f"delay_at_recall_{recall}", f"delay at {recall} % (s)", 2)]
    lines = [(title_of(system, variant), place.title, *(
        results.quantity(name, place=place, system=system, variant=variant, digits=digits) for name, _, digits in columns))
        for place, system, variant in _known(results, "latency_ap")]
    note = ("On raw scores, since smoothing looks ahead. An event is a run of anomalous frames; one raised after d seconds "
            "counts max(0, 1 - d/3) in latency-aware AP. A false alarm is a run of raised normal frames, counted again "
            "every 10 seconds; the rate is by the hour of normal footage, of which a test split has minutes.")
    return Sheet("alarms", "Alarms: how early, and how many false ones",
                 ("system", "data", *(head for _, head, _ in columns)), tuple(lines), (note,), intervals=True,
                 missing="" if lines else _SCORE)


def paired(results: Results) -> Sheet:
    """Differences of systems on the same videos, with p-values corrected for the number of systems compared."""
    found = [one for one in results.measures if one.unit == "difference" and one.split != LEAK.split]
    lines: list[tuple[Entry, ...]] = []
    groups: dict[tuple[str, str, str], list] = {}
    for one in found:
        groups.setdefault((one.dataset, one.split, one.name), []).append(one)
    for (dataset, split, name), group in groups.items():
        tested = [one for one in group if one.p is not None]
        corrected = dict(zip((one.key for one in tested), holm([one.p for one in tested])))
        for one in group:
            second = title_of(*one.against.split("/", 1))
            gap = "undefined" if one.value is None else Figure(one.value, None, one.ci_low, one.ci_high, signed=True)
            p = corrected.get(one.key)
            lines.append((title_of(one.system, one.variant), second, Place(dataset, split).title,
                          _METRICS.get(name, name), gap, NONE if p is None else Figure(p, digits=4), str(one.n),
                          one.note or NONE))
    note = ("First system less second on the same videos; where there are several seeds, of the means over seeds. p: "
            "two-sided, corrected by Holm over the systems compared on one figure.")
    return Sheet("paired", "Paired differences", ("first", "second", "data", "figure", "difference", "p", "videos", "test"),
                 tuple(lines), (note,), intervals=True,
                 missing="" if lines else _COMPARE)


def calibration(results: Results) -> Sheet:
    """Does the probability of yes mean what it says?"""
    lines = [(title_of(system, variant), place.title,
              *(results.quantity(name, place=place, system=system, variant=variant) for name in ("ece", "brier")))
             for place, system, variant in _known(results, "ece")]
    return Sheet("calibration", "Calibration of the yes/no probability", ("system", "data", "ECE", "Brier score"),
                 tuple(lines), ("ECE over ten bins of equal width (Naeini et al. 2015); lower is better.",), intervals=True,
                 missing="" if lines else "Made from the answers of phase 2: python -m tvad.evaluation answers <file>.")


def cost(results: Results) -> Sheet:
    """Parameters, operations, speed and memory beside accuracy."""
    columns = (("parameters_tower", "tower (M)", 2, 1e6), ("parameters_language", "language model (M)", 2, 1e6),
               ("parameters_ahd", "AHD (M)", 3, 1e6), ("parameters_rae", "RAE (M)", 3, 1e6),
               ("parameters_lora", "LoRA (M)", 3, 1e6), ("flops_tower", "tower GFLOP/frame", 2, 1e9),
               ("flops_ahd", "AHD GFLOP/frame", 3, 1e9), ("speed", "frames/s", 1, 1.0),
               ("peak_memory", "memory (GiB)", 2, 1.0))
    closed = Place.parse(STANDARD[0])
    lines, regimes = [], []
    for system, variant in dict.fromkeys((one.system, one.variant) for one in results.measures if one.name == "speed"):
        own = {"system": system, "variant": variant}
        cells = [results.quantity(name, digits=digits, scale=scale, **own) for name, _, digits, scale in columns]
        cells = [NONE if cell == NOT_RUN else cell for cell in cells]
        lines.append((title_of(system, variant), *cells, results.figure("micro_auc", closed, **own),
                      results.figure("pixel_auroc", closed, **own)))
        regimes += [one.note for one in results.measured("speed", **own) if one.note]
    return Sheet("cost", "Cost beside accuracy (SimCampus, closed set, simulated)",
                 ("system", *(head for _, head, _, _ in columns), "micro AUC", "pixel AUROC"), tuple(lines),
                 tuple(f"Measured on {regime}." for regime in dict.fromkeys(regimes)),
                 missing="" if lines else "Made by: python -m tvad.evaluation cost.")


def _gap(results: Results, name: str, one: Entry, other: Entry) -> Entry:
    """The paired difference where it was tested, else that of the means."""
    wanted = (LEAK.split, name, "difference")
    tested = [found for found in results.measures if (found.split, found.name, found.unit) == wanted]
    if tested and tested[-1].value is not None:
        return Figure(tested[-1].value, None, tested[-1].ci_low, tested[-1].ci_high, signed=True)
    both = isinstance(one, Figure) and isinstance(other, Figure)
    return Figure(one.value - other.value, signed=True) if both else NONE


def leak(results: Results) -> Sheet:
    """One decoder, two splits of the data: what a random split of clips promises, and what holds on new scenes."""
    names = ("micro_auc", "ap", "pixel_auroc", "aupro", "rbdc", "tbdc")
    heads = {**_METRICS, "aupro": "AUPRO"}
    lines: list[tuple[Entry, ...]] = []
    for protocol, title in LEAK_PROTOCOLS.items():
        rows = [row for row in results.rows if (row.split, row.protocol) == (LEAK.split, protocol)]
        if rows:
            lines.append((title, *(Results(tuple(rows)).figure(name, LEAK, variant="leak") for name in names)))
    if len(lines) == 2:
        lines.append(("gap: what the leak adds", *(_gap(results, name, *pair) for name, pair in
                                                   zip(names, zip(lines[0][1:], lines[1][1:])))))
    overlap = [one for one in results.measures if one.name.startswith("leak_")]
    told = {one.name: one for one in overlap}
    tested = [found for found in results.measures if (found.split, found.unit) == (LEAK.split, "difference")]
    ps = ", ".join(f"{_METRICS.get(found.name, found.name)} {found.p:.4f}" for found in tested if found.p is not None)
    notes = [f"{name.removeprefix('leak_').replace('_', ' ')}: {one.value:.4g}" for name, one in told.items()]
    seeds = sorted({row.seed for row in results.rows if row.split == LEAK.split})
    told_seeds = f" Seeds: {', '.join(map(str, seeds))}." if seeds else ""
    same = ("Same decoder, settings, held-out clips and numbers of training pairs (within rounding); only where the "
            "training pairs come from differs. Raw scores.")
    return Sheet("leak", "What a random split of clips adds (simulated)",
                 ("training split", *(heads[name] for name in names)), tuple(lines),
                 (same, "; ".join(notes) + "." if notes else "", _LEAK_SEEDS + told_seeds,
                  f"p of the gap: {ps}." if ps else ""), rules=(2,) if len(lines) == 3 else (),
                 intervals=True,
                 missing="" if lines else "Made by: python -m tvad.evaluation leak.")
