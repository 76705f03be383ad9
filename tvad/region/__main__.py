"""``python -m tvad.region``: how readable each variant's tokens are, on synthetic tracks; one JSON line a variant.

``read``: R2 of a ridge probe on the untrained encoder's tokens.  ``named``: share of held-out clips whose 3x3 cell of
origin and of destination one linear layer names, after encoder and layer were trained together for a few steps (chance
is about 0.12).  The regime is stated in the line; runs are deterministic by seed on one machine.
"""
from __future__ import annotations

import argparse
import json
import time
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from tvad.region import ENCODERS, make_encoder
from tvad.region.blobs import BlobTracks, blob_tracks, cells
from tvad.region.probe import read_back, tokens_of

OPTIONS: dict[str, dict[str, Any]] = {"paper": {"hidden_width": 128}}  # 1024 is the middle of the 7B model's heads


def named(variant: str, tracks: BlobTracks, *, width: int, held_out: int, steps: int, seed: int) -> dict[str, float]:
    """Accuracy of origin and destination cell on the last clips, trained on the others."""
    torch.manual_seed(seed)
    encoder = make_encoder(variant, text_width=width, scale=0.2, **OPTIONS.get(variant, {}))
    reader = nn.Linear(encoder.tokens(tracks.present.shape[1]) * width, 18)
    wanted = torch.stack([cells(place) for place in tracks.ends()], 1)
    optimizer = torch.optim.AdamW([*encoder.parameters(), *reader.parameters()], lr=2e-3)
    for _ in range(steps):
        rows = torch.randint(len(wanted) - held_out, (32,))
        logits = reader(encoder(tracks.heatmaps[rows]).flatten(1)).view(-1, 2, 9)
        loss = F.cross_entropy(logits.flatten(0, 1), wanted[rows].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        logits = reader(tokens_of(encoder, tracks.heatmaps[-held_out:]).flatten(1)).view(-1, 2, 9)
    right = (logits.argmax(-1) == wanted[-held_out:]).float().mean(0).tolist()
    return {"from": round(right[0], 3), "to": round(right[1], 3)}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tvad.region", description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=600)
    parser.add_argument("--held-out", type=int, default=200)
    parser.add_argument("--steps", type=int, default=150, help="training steps of 32 clips")
    parser.add_argument("--grid", type=int, nargs=2, default=(12, 18))
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--variants", nargs="+", default=list(ENCODERS), choices=list(ENCODERS))
    chosen = parser.parse_args(arguments)
    tracks = blob_tracks(chosen.clips, grid=tuple(chosen.grid), seed=chosen.seed)
    for variant in chosen.variants:
        began = time.perf_counter()
        torch.manual_seed(chosen.seed)
        encoder = make_encoder(variant, text_width=chosen.width, **OPTIONS.get(variant, {}))
        readings = read_back(tokens_of(encoder, tracks.heatmaps), tracks.facts(), held_out=chosen.held_out)
        t, h, w = tracks.heatmaps.shape[1:]
        print(json.dumps({
            "variant": variant, "tokens": encoder.tokens(t), "mflops": round(encoder.flops(t, h, w) / 1e6, 1),
            "parameters": sum(value.numel() for value in encoder.parameters()),
            "read": {name: round(reading.r2, 3) for name, reading in readings.items()},
            "named": named(variant, tracks, width=chosen.width, held_out=chosen.held_out, steps=chosen.steps,
                           seed=chosen.seed),
            "seconds": round(time.perf_counter() - began, 1), "clips": chosen.clips, "steps": chosen.steps,
            "grid": list(chosen.grid), "seed": chosen.seed, "torch": torch.__version__}), flush=True)


if __name__ == "__main__":
    main()
