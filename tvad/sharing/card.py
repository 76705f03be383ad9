"""The model card of a shared folder: what it is, how to use it, data, splits, figures, limits, hashes."""
from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tvad.record import Row, atomic_write
from tvad.sharing.manifest import CARD

MAX_ROWS = 40
HERE = "path/to/this/folder"        # until it has a name on the hub
_TITLES = {"bundle": "T-VAD: heatmaps and a conversation", "ahd": "T-VAD: anomaly heatmap decoder",
           "speaker": "T-VAD: region encoder and LoRA adapter"}
_USES = {"ahd": """\
from tvad.sharing import from_pretrained
model = from_pretrained("{name}"{more})
detection = model.detect("video.mp4")
print(detection.frame_scores.max())             # how anomalous the worst moment is, 0 to 1
print(len(detection.regions), "regions found")  # where: frame, box, score, track""", "talk": """\
from tvad.sharing import from_pretrained
from tvad.video import read_clip
model = from_pretrained("{name}"{more})
talk = model.converse(read_clip("video.mp4", start=0, frames=16))
print(talk.decide("Is there any anomaly in the video?", options=("Yes.", "No.")))  # and the probability of yes"""}
_SIMULATED = ("Every figure on SimCampus is of simulated footage: it says nothing about real cameras by itself.",
              "The tiny model knows street scenes seen from above, about 240x360 pixels, and few words.")
_ALWAYS = ("A score is no proof: a person must look before anybody acts on it, and nobody should be judged by it alone.",
           "It knows neither faces nor identities and must not be used to single people out.",
           "What is ordinary differs from place to place; adapt it to a camera before use: make adapt VIDEO=<footage>.")


def write_card(folder: Path | str, content: Mapping[str, Any], *, rows: Sequence[Row] = (), limits: Sequence[str] = (),
               license: str = "mit") -> None:
    """Write ``README.md`` into a shared folder whose manifest is ``content``."""
    folder = Path(folder)
    atomic_write(folder / CARD, card_text(content, name=HERE, rows=rows, limits=limits,
                                          license=license).encode())


def card_text(content: Mapping[str, Any], *, name: str, rows: Sequence[Row] = (), limits: Sequence[str] = (),
              license: str = "mit") -> str:
    """The card in Markdown, with the front matter that the hub reads (huggingface_hub's own ``ModelCardData``)."""
    from huggingface_hub import ModelCardData

    simulated = any(row.dataset == "simcampus" for row in rows) or _trained_on(content) == "simcampus"
    data = ModelCardData(
        license=license, library_name="tvad", tags=["video-anomaly-detection", "anomaly-heatmap", "tvad"],
        pipeline_tag="video-text-to-text" if content["kind"] != "ahd" else None, language="en",
        base_model=content["backbone"] if "/" in content["backbone"] else None,
        model_name=_TITLES[content["kind"]], eval_results=_results(rows) or None)
    said = [*(_SIMULATED if simulated else ()), *_ALWAYS, *limits]
    return "\n".join([
        "---", data.to_yaml(), "---", f"# {_TITLES[content['kind']]}", "", _about(content), "", "## Use", "",
        "```python", use_of(content, name), "```", "", "## Data", "", _data(content), "", "## Figures", "", _figures(rows),
        "", "## Limits", "", *(f"- {one}" for one in said), "", "## How it was trained", "", "```json",
        json.dumps({key: content[key] for key in ("training", "scoring", "data", "variant") if content.get(key)}, indent=1,
                   sort_keys=True), "```", "", "## Files", "", _files(content), ""])


def use_of(content: Mapping[str, Any], name: str) -> str:
    """The five lines of code that the card shows."""
    more = ', ahd="path/to/phase1/ahd.safetensors"' if content["kind"] == "speaker" else ""
    return _USES["ahd" if content["kind"] == "ahd" else "talk"].format(name=name, more=more)


def for_repository(card: str, repo_id: str) -> str:
    """The card with the name of a repository in its five lines."""
    return re.sub(r'from_pretrained\("[^"]*"', f'from_pretrained("{repo_id}"', card, count=1)


def _about(content: Mapping[str, Any]) -> str:
    backbone = content["backbone"] or "an unnamed backbone"
    inside = "inside this folder" if content["own_backbone"] else "to be had by its own name"
    what = {"bundle": "Anomaly heatmaps of a video, and a conversation about them",
            "ahd": "A decoder that makes anomaly heatmaps of a frozen vision tower's features",
            "speaker": "What lets a language model speak of an anomaly heatmap: region encoder and LoRA adapter"}
    return (f"{what[content['kind']]}. Backbone: `{backbone}`, frozen, {inside}. Method: Gu, Li, Wang, Akşit, *Text-guided "
            "Fine-Grained Video Anomaly Detection*, arXiv 2511.00524; this is an independent implementation, the workbook "
            "`tvad`.")


def _trained_on(content: Mapping[str, Any]) -> str:
    return next((split["dataset"] for split in content.get("splits", ()) if split.get("role") == "training"), "")


def _data(content: Mapping[str, Any]) -> str:
    splits = content.get("splits")
    if not splits:
        return "The run's record of its splits is not part of this folder."
    lines = ["| role | data set | split | protocol | videos | frames | hash |", "|---|---|---|---|---|---|---|"]
    lines += ["| " + " | ".join(str(split.get(key, "")) for key in
                                ("role", "dataset", "split", "protocol", "videos", "frames", "hash")) + " |"
              for split in splits]
    return "\n".join(lines)


def _figures(rows: Sequence[Row]) -> str:
    shown = [row for row in rows if row.value is not None and row.event is None][:MAX_ROWS]
    if not shown:
        return "No figures were measured of these weights in the run that left them."
    lines = ["Fractions; in brackets the 95 % interval, bootstrap over videos.", "",
             "| system | variant | data set | split | metric | value | seed |", "|---|---|---|---|---|---|---|"]
    for row in shown:
        interval = "" if row.ci_low is None else f" ({row.ci_low:.3f} to {row.ci_high:.3f})"
        kind = f"{row.dataset} (simulated)" if row.dataset == "simcampus" else row.dataset
        smooth = "" if row.sigma is None else ", smoothed" if row.sigma > 0 else ", raw"
        lines.append(f"| {row.system} | {row.variant} | {kind} | {row.split}, {row.protocol} | {row.metric}{smooth} | "
                     f"{row.value:.3f}{interval} | {row.seed} |")
    return "\n".join(lines)


def _results(rows: Sequence[Row]) -> list[Any]:
    """The headline figures as the hub's own records; of smoothed and raw scores the smoothed."""
    from huggingface_hub import EvalResult

    wanted = {"micro_auc": "Micro AUC", "rbdc": "RBDC", "tbdc": "TBDC", "yes_no_balanced_accuracy": "Balanced accuracy"}
    chosen = [row for row in rows if row.metric in wanted and row.value is not None and row.event is None
              and row.variant == "full" and row.split.startswith("test")]
    smooth = {replace(row, sigma=None, choice=None).key for row in chosen if row.sigma}
    chosen = [row for row in chosen if row.sigma != 0 or replace(row, sigma=None, choice=None).key not in smooth]
    return [EvalResult(task_type="video-anomaly-detection", dataset_type=row.dataset, dataset_split=row.split,
                       dataset_name=f"SimCampus (simulated), {row.protocol}" if row.dataset == "simcampus"
                       else f"{row.dataset}, {row.protocol}",
                       metric_type=row.metric, metric_name=wanted[row.metric], metric_value=round(row.value, 4))
            for row in chosen[:MAX_ROWS]]


def _files(content: Mapping[str, Any]) -> str:
    lines = ["| file | bytes | sha256 |", "|---|---|---|"]
    lines += [f"| {name} | {entry['bytes']:,} | `{entry['sha256']}` |" for name, entry in content["files"].items()]
    return "\n".join(lines)
