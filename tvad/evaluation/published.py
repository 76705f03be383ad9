"""The paper's tables, as facts with their source; no number of ours is in this file, and nobody retypes these.

Source: Gu, Li, Wang, Aksit, "Text-guided Fine-Grained Video Anomaly Detection" (arXiv 2511.00524; CVPR 2026 workshop),
tables as shown in the authors' own talk.  All values are fractions here; the paper prints percent.  Figures of UBnormal are
of the split that the paper calls "Validation"; the same baselines on UBnormal's test split are far lower, so these must
never stand beside test figures without their label.
"""
from __future__ import annotations

from dataclasses import dataclass

CITATION = "Gu et al., Text-guided Fine-Grained Video Anomaly Detection, arXiv 2511.00524"
SPLIT = "validation (as published)"


@dataclass(frozen=True)
class Heat:
    """A line of the paper's table of heatmaps on UBnormal."""

    method: str
    micro_auc: float
    macro_auc: float
    rbdc: float
    tbdc: float


@dataclass(frozen=True)
class Talk:
    """A line of the paper's table of dialogue: value and standard deviation of each figure on one data set."""

    method: str
    size: str
    dataset: str
    bleu4_target: tuple[float, float]
    bleu4_trajectory: tuple[float, float]
    yes_no_accuracy: tuple[float, float]


@dataclass(frozen=True)
class Ablated:
    """A line of the paper's ablation; ``parameters`` in millions, as printed; None where the paper has a dash."""

    variant: str
    parameters: float
    rbdc: tuple[float, float] | None
    tbdc: tuple[float, float] | None
    bleu4_target: tuple[float, float] | None
    bleu4_trajectory: tuple[float, float] | None
    yes_no_accuracy: tuple[float, float] | None


def _percent(value: float, spread: float) -> tuple[float, float]:
    return round(value / 100, 6), round(spread / 100, 6)


HEATMAPS: tuple[Heat, ...] = tuple(Heat(name, *(round(value / 100, 6) for value in values)) for name, *values in (
    ("Georgescu et al.", 58.5, 94.4, 18.580, 48.213),
    ("Georgescu et al. (fine-tuned)", 68.2, 95.3, 28.654, 58.097),
    ("Sultani et al. (pre-trained)", 61.1, 89.4, 0.001, 0.012),
    ("Sultani et al. (fine-tuned)", 51.8, 88.0, 0.001, 0.001),
    ("TimeSformer (fine-tuned, 1/32)", 86.1, 89.2, 0.008, 0.021),
    ("TimeSformer (fine-tuned, 1/8)", 83.4, 90.6, 0.009, 0.023),
    ("TimeSformer (fine-tuned, 1/4)", 78.5, 89.2, 0.006, 0.018),
    ("T-VAD, AHD one-shot", 94.5, 85.2, 64.300, 74.400),
    ("T-VAD, AHD fine-tuned", 94.8, 87.8, 67.800, 76.700),
))

_TALKS = (
    ("Qwen2.5-VL zero-shot", "7B", (18.74, .82), (27.33, 1.05), (61.03, .38), (16.20, .85), (24.18, 1.08), (65.62, .41)),
    ("Qwen2.5-VL 1-shot", "7B", (50.42, .58), (78.91, .72), (92.36, .24), (44.35, .62), (70.82, .75), (87.24, .27)),
    ("LLaVA-1.6 1-shot", "7B", (47.68, .60), (75.42, .74), (91.07, .26), (42.11, .64), (68.07, .78), (85.91, .28)),
    ("MiniCPM-V 2.6 1-shot", "7B", (52.34, .54), (80.41, .69), (93.11, .23), (46.70, .59), (72.88, .73), (86.94, .26)),
    ("Idefics2 1-shot", "8B", (44.29, .62), (73.84, .76), (90.12, .27), (39.51, .66), (65.92, .80), (84.03, .29)),
    ("InternVL 1-shot", "8B", (55.73, .50), (82.65, .66), (94.28, .22), (49.84, .55), (71.63, .70), (88.65, .24)),
    ("T-VAD, RAE 1-shot", "7B", (62.67, .45), (88.84, .53), (97.67, .12), (50.32, .49), (78.10, .58), (89.73, .18)),
)
DIALOGUE: tuple[Talk, ...] = tuple(
    Talk(method, size, dataset, *(_percent(*pair) for pair in pairs[start:start + 3]))
    for dataset, start in (("ShanghaiTech", 0), ("UBnormal", 3)) for method, size, *pairs in _TALKS)

_HEAT_PAIR = (_percent(67.8, .36), _percent(76.7, .41))
_SPOKEN_WITHOUT = (_percent(61.82, .42), _percent(85.47, .51), _percent(95.38, .18))
ABLATION: tuple[Ablated, ...] = (
    Ablated("no-ahd", 8299.71, None, None, *_SPOKEN_WITHOUT),
    Ablated("no-rae", 8317.13, *_HEAT_PAIR, None, None, None),
    Ablated("no-rae-no-ahd", 8274.74, None, None, *_SPOKEN_WITHOUT),
    Ablated("full", 8324.67, *_HEAT_PAIR, _percent(62.67, .45), _percent(88.84, .53), _percent(97.67, .12)),
)
# What a reader of the ablation must know.
ABLATION_NOTE = ("The paper's rows without AHD and without both are identical, and its smallest parameter count lies below "
                 "that of the stock model.")
