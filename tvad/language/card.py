"""The data card of a dialogue set: what it holds, where from, how it was made, what it must not be used for."""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_CARD = """\
---
license: mit
language: [{language}]
task_categories: [video-text-to-text]
tags: [video-anomaly-detection, {dataset}]
configs:
- config_name: default
  data_files:
{data_files}
---
# Conversations about {title}

Multi-turn conversations about short clips ({length} frames): is there an anomaly, what does the target look like, how does
it move, from where, to where, along which path; then open questions on time, place, people and reasons. Made by
`python -m tvad.language` from the masks of the data set; source of appearance: `{appearance}`.{simulated}

{table}

## A line

`messages` take the form of transformers' chat templates. The first holds a video part without a path: the clip is frames
`start` to `stop` (exclusive) of `video`, to be given to the processor beside the text. Every message names its `slot`.
`style` is "turns" (short canonical answers, for measuring), "report" (all in one line) or "sentences" (many wordings; the
canonical answer stands in `references`). `slots` and `targets` hold the truth by slot; "none" where there is none.

```python
from datasets import load_dataset
row = load_dataset("path/to/this/folder", split="{split}")[0]
text = processor.apply_chat_template(row["messages"], tokenize=False)
```

## How it was made

Masks are linked to tracks, tracks become timelines (entry, exit, place, straight legs, speed), and timelines and looks
become answers by fixed grammars, never by a model; see `tvad/language`. Looks, motion and path must agree; what does not,
or is hardly seen, is dropped: {dropped}. `manifest.json` counts slots, classes and drops, with examples.

Colours in black-and-white footage are told as dark, grey or light. Hair, age or identity are never told. Seed {seed},
language {language}, code {code}.
"""


def data_card(manifest: Mapping[str, Any]) -> str:
    """The card in Markdown, with the front matter by which ``datasets`` finds the files."""
    key, splits = manifest["key"], manifest["splits"]
    rows = [("split", "videos", "clips", "anomalous clips", "conversations", "dropped clips")]
    rows += [(split, *(str(counts[name]) for name in ("videos", "clips", "anomalous_clips", "conversations")),
              str(counts["dropped"]["clips"])) for split, counts in splits.items()]
    table = "\n".join("| " + " | ".join(row) + " |" for row in (rows[0], ["---"] * len(rows[0]), *rows[1:]))
    reasons: dict[str, int] = {}
    for counts in splits.values():
        for reason, count in counts["dropped"]["reasons"].items():
            reasons[reason] = reasons.get(reason, 0) + count
    simulated = key["dataset"] == "simcampus"
    return _CARD.format(
        language=key["settings"]["language"], dataset=key["dataset"], length=key["settings"]["length"],
        title="SimCampus (simulated footage)" if simulated else f"{key['dataset']} (real footage)",
        data_files="\n".join(f"  - split: {split}\n    path: {split}.jsonl" for split in splits),
        appearance=key["appearance"], table=table, split=next(iter(splits)), seed=key["settings"]["seed"], code=key["code"],
        simulated=" All footage is simulated: figures measured on it say nothing about real cameras by themselves."
        if simulated else "",
        dropped=", ".join(f"{reason} ({count})" for reason, count in sorted(reasons.items())) or "nothing")
