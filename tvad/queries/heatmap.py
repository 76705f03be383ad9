"""Heatmaps that listen: one map for each event that the user names, from the features of one pass of the tower.

The decoder is the AHD's (an MLP a tapped block into text space, cosines, softmaxed block weights), with two differences:
it is compared with as many text directions as wanted, not two, and the directions are those of words
(``tvad.queries.words``).  The dear part, the MLPs, runs once whatever the number of queries.

How cosines become a map, ``mode``:

- ``softmax``: shares of "none of them", of every event that the decoder knows, and of one unknown query.  A query's map is
  its own share, so the events compete: what is surely a bicycle is no motorcycle.
- ``binary``: a sigmoid of each query's own cosine above a learned level; queries do not know of one another.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tvad.checkpoints import check_state, read_weights, write_weights
from tvad.errors import CheckpointError, ParameterError
from tvad.heatmap import AnomalyHeatmapDecoder, KnownBackbone, check_backbone
from tvad.queries.words import EventBook, Meaning, TextSpace

MODES = ("softmax", "binary")
FORMAT_VERSION = 1


class EventHeatmapDecoder(nn.Module):
    """Decodes tapped features to one logit a text direction and patch.

    taps, tap_width, hidden_width, text_width, temperature: as for :class:`AnomalyHeatmapDecoder`.
    wordings: the events it is trained on, by name; normal: wordings of what is none of them.
    space: the text space that directions are taken in.  mode: ``softmax`` or ``binary`` (see the module).
    Raises :class:`ParameterError` for values outside these choices.
    """

    def __init__(self, *, taps: Sequence[int], tap_width: int, hidden_width: int, text_width: int,
                 wordings: Mapping[str, Sequence[str]], normal: Sequence[str], space: TextSpace, mode: str = "softmax",
                 temperature: float = 25.0) -> None:
        super().__init__()
        if mode not in MODES or not wordings:
            raise ParameterError(f"event heatmaps: mode {mode!r} must be one of {', '.join(MODES)}, and at least one event "
                                 f"be named, got {list(wordings)}")
        self.core = AnomalyHeatmapDecoder(taps=taps, tap_width=tap_width, hidden_width=hidden_width,
                                          text_width=text_width, variant="paper", temperature=temperature)
        self.mode, self.normal = mode, tuple(normal)
        self.wordings = {name: tuple(texts) for name, texts in wordings.items()}
        self.record: dict[str, Any] = {}
        self.level = nn.Parameter(torch.tensor(0.3))     # the cosine at which a binary map is at one half
        self.register_buffer("mean", space.mean.float().clone())
        self.register_buffer("common", space.common.float().clone())
        self._book: tuple[str, EventBook] | None = None

    @property
    def taps(self) -> tuple[int, ...]:
        """Indices of the tapped blocks."""
        return self.core.taps

    def forward(self, taps: Sequence[Float[Tensor, "t h w c"]],
                directions: Float[Tensor, "k d"]) -> Float[Tensor, "t k h w"]:
        """Temperature times the fused cosine with each unit direction (binary: above the level), float32.

        Raises :class:`tvad.errors.BackboneError` when number, shape or width of the inputs do not fit.
        """
        cosines = self.core.similarities(taps, directions)
        return self.core.temperature * (cosines - self.level if self.mode == "binary" else cosines)

    def book(self, backbone: Any) -> EventBook:
        """The known events in this backbone's text space; the last backbone's is kept."""
        if self._book is None or self._book[0] != backbone.fingerprint:
            space = TextSpace(self.mean.cpu(), self.common.cpu())
            self._book = backbone.fingerprint, EventBook(backbone, self.wordings, space=space, normal=self.normal)
        return self._book[1]

    def understand(self, events: Sequence[str], backbone: Any) -> list[tuple[Meaning, ...]]:
        """What each query is taken for, one meaning for each of its alternatives.

        Raises :class:`ParameterError` for no query, a bare string, or a query without meaning.
        """
        if isinstance(events, str) or not events:
            raise ParameterError(f"events {events!r}: give a list of queries, such as ['bicycle', 'car or van']")
        book = self.book(backbone)
        return [book.resolve(event) for event in events]

    @torch.inference_mode()
    def heatmaps(self, taps: Sequence[Float[Tensor, "t h w c"]], events: Sequence[str],
                 backbone: Any) -> Float[Tensor, "k t h w"]:
        """One map for each query, 0..1, float32; the alternatives of a query ("car or van") light the same map.

        Raises :class:`ParameterError` as :meth:`understand`, :class:`tvad.errors.BackboneError` as :meth:`forward`.
        """
        return self.maps(taps, self.understand(events, backbone), self.book(backbone))

    @torch.inference_mode()
    def maps(self, taps: Sequence[Float[Tensor, "t h w c"]], queries: Sequence[Sequence[Meaning]],
             book: EventBook) -> Float[Tensor, "k t h w"]:
        """:meth:`heatmaps` of queries already understood."""
        fixed = torch.cat([book.normal[None], book.prototypes])
        unknown = list({meaning.text: meaning for query in queries for meaning in query if not meaning.known}.values())
        directions = torch.cat([fixed, *(meaning.direction[None] for meaning in unknown)])
        logits = self(taps, directions)
        known, rest = logits[:, :len(fixed)], logits[:, len(fixed):]
        place = {meaning.text: index for index, meaning in enumerate(unknown)}
        shares = known.softmax(1) if self.mode == "softmax" else known.sigmoid()

        def one(meaning: Meaning) -> Float[Tensor, "t h w"]:
            if meaning.known:
                return shares[:, 1 + book.names.index(meaning.nearest)]
            own = rest[:, place[meaning.text], None]
            return torch.cat([own, known], 1).softmax(1)[:, 0] if self.mode == "softmax" else own[:, 0].sigmoid()

        def union(query: Sequence[Meaning]) -> Float[Tensor, "t h w"]:
            # Two words for one event are one alternative.
            parts = {meaning.nearest if meaning.known else f"? {meaning.text}": meaning for meaning in query}
            return torch.stack([one(meaning) for meaning in parts.values()]).amax(0)

        return torch.stack([union(query) for query in queries])

    def save(self, path: Path | str, *, backbone_fingerprint: str, extra: Mapping[str, str] | None = None) -> Path:
        """Write weights and configuration as safetensors, atomically.  Raises :class:`StorageError` for a full disk."""
        config = {key: value for key, value in self.core.config().items() if key not in ("variant", "contrast")}
        config |= {"wordings": {name: list(texts) for name, texts in self.wordings.items()}, "normal": list(self.normal),
                   "mode": self.mode}
        record = {"kind": "event-heatmaps", "format": FORMAT_VERSION, "config": config,
                  "backbone_fingerprint": backbone_fingerprint, "extra": dict(extra or {})}
        return write_weights(path, self.state_dict(), record)

    @classmethod
    def load(cls, path: Path | str, *, backbone: KnownBackbone | None = None) -> EventHeatmapDecoder:
        """The decoder in a file of :meth:`save`, float32 on the CPU; ``backbone``: refuse one trained on another.

        Raises :class:`CheckpointError` for a missing, pickled, damaged, incomplete or foreign file.
        """
        tensors, record = read_weights(path)
        if record.get("kind") != "event-heatmaps" or record.get("format") != FORMAT_VERSION:
            raise CheckpointError(f"{path}: holds {record.get('kind')!r} of format {record.get('format')!r}, no decoder of "
                                  f"query heatmaps of format {FORMAT_VERSION}; train one: tvad.training.queries")
        try:
            model = cls(**record["config"], space=TextSpace(tensors["mean"], tensors["common"]))
        except (KeyError, TypeError, ParameterError) as error:
            raise CheckpointError(f"{path}: its record does not describe a decoder of query heatmaps ({error}); train one: "
                                  "tvad.training.queries") from error
        check_state(path, tensors, {key: tuple(value.shape) for key, value in model.state_dict().items()},
                    remedy="train one: tvad.training.queries")
        if backbone is not None:
            check_backbone(path, record, model.core, backbone)
        model.load_state_dict({key: value.float() for key, value in tensors.items()}, strict=True)
        model.record = record
        return model.eval()
