"""Write what a run left, or a detector at hand, as a folder to share, and make a model of such a folder again."""
from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tvad.backbones.zoo import ZOO, resolve
from tvad.checkpoints import read_weights
from tvad.errors import CheckpointError, MissingPhaseError, StorageError
from tvad.record import COMPLETE, Row, commit, read_rows, versions
from tvad.sharing.card import write_card
from tvad.sharing.manifest import verify, write_manifest
from tvad.widgets.models import find_models

KINDS = ("bundle", "ahd", "speaker")
DECODER, SCORING, QUERIES, QUERY_SCORING = "ahd.safetensors", "detector.json", "queries.safetensors", "queries.json"
SPEAKER, BACKBONE = "speaker", "backbone"


def save_pretrained(source: Any, target: Path | str, *, kind: str | None = None, include_backbone: bool | None = None,
                    rows: Sequence[Row] | None = None, limits: Sequence[str] = (), license: str = "mit") -> Path:
    """Write ``source`` as a folder to share and return it; a folder of the same name is replaced.

    source: a run's folder, such as ``runs/tiny`` (``phase1/`` and, where phase 2 was run, ``phase2/``), or a
    :class:`tvad.detector.TVAD`, of which the heatmap decoders are written.  kind: one of ``KINDS``; by default all that
    there is.  include_backbone: put the frozen backbone in as well; by default where it is one of the zoo.  rows:
    measured figures for the card, by default the run's own.  limits: further sentences for the card.
    Raises :class:`MissingPhaseError` where a part is not there, :class:`CheckpointError` for damaged parts and for an
    unknown kind, :class:`tvad.errors.StorageError` when the disk refuses.
    """
    target = Path(target)
    if kind is not None and kind not in KINDS:
        raise CheckpointError(f"{target}: kind {kind!r} is unknown; choose one of {', '.join(KINDS)}")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as beside:
        folder = Path(beside) / "new"
        folder.mkdir()
        if isinstance(source, (str, Path)):
            facts = _of_run(Path(source), folder, kind)
            rows = _rows_of(Path(source)) if rows is None else rows
        else:
            facts = _of_detector(source, folder, kind)
        zoo = _zoo_folder(facts["backbone"])
        if zoo is not None if include_backbone is None else include_backbone:
            _copy_backbone(zoo or resolve(facts["backbone"]), folder / BACKBONE)
        facts["own_backbone"] = (folder / BACKBONE).is_dir()
        content = write_manifest(folder, {**facts, "commit": commit(), "versions": versions()})
        write_card(folder, content, rows=rows or (), limits=limits, license=license)
        _replace(folder, target)
    return target


def from_pretrained(source: Path | str, *, backbone: Any = None, ahd: Path | str | None = None, revision: str | None = None,
                    token: str | bool | None = None, cache_dir: Path | str | None = None, **options: Any) -> Any:
    """The model in a shared folder or hub repository: a ``TVAU`` where it can converse, else a ``TVAD``.

    backbone: object, folder or name, by default the folder's own, else the one that its manifest names.  ahd: the
    decoder of phase 1 for a ``speaker``, which has none of its own: a shared folder or a weight file.  revision, token,
    cache_dir: of a download.  options: of ``TVAD.from_pretrained``.
    Raises :class:`CheckpointError` for a folder with a missing, added or changed file, or of another backbone.
    """
    from tvad.sharing.hub import fetch

    folder = Path(source) if Path(source).expanduser().is_dir() else fetch(
        str(source), revision=revision, token=token, cache_dir=cache_dir)
    folder = Path(folder).expanduser()
    content = verify(folder)
    if backbone is None:
        backbone = folder / BACKBONE if content["own_backbone"] else content["backbone"]
    decoder = folder / DECODER
    if not decoder.is_file():
        if ahd is None:
            raise CheckpointError(f"{folder}: holds a speaker without a heatmap decoder; give one as ahd=, a shared folder "
                                  "or an ahd.safetensors")
        decoder = Path(ahd) / DECODER if Path(ahd).is_dir() else Path(ahd)
        if Path(ahd).is_dir():
            verify(ahd)
    if (folder / SPEAKER).is_dir():
        from tvad.conversation import TVAU

        model = TVAU.from_phase2(backbone, decoder, folder / SPEAKER, **options)
    else:
        from tvad.detector import TVAD

        model = TVAD.from_pretrained(backbone, decoder, **options)
    if backbone == folder / BACKBONE:
        model.backbone.name = content["backbone"]       # not that of the folder inside
    return model


def _of_run(run: Path, folder: Path, kind: str | None) -> dict[str, Any]:
    """Copy the parts of a run; returns the facts of the manifest."""
    phase1 = run / "phase1" if (run / "phase1").is_dir() else run
    decoder, speaker = phase1 / DECODER, find_models(run).speaker
    if kind != "speaker" and not decoder.is_file():
        raise MissingPhaseError(f"{decoder}: phase 1 has left no decoder here; run: make reproduce")
    if kind in ("speaker", "bundle") and speaker is None:
        raise MissingPhaseError(f"{run / 'phase2'}: phase 2 has left no finished model here; run: make reproduce, or share "
                                "kind='ahd'")
    facts: dict[str, Any] = {"kind": kind or ("bundle" if speaker is not None else "ahd")}
    if facts["kind"] != "speaker":
        for name in (DECODER, SCORING, QUERIES, QUERY_SCORING):
            if (phase1 / name).is_file():
                shutil.copyfile(phase1 / name, folder / name)
        facts |= _decoder_facts(folder)
    if facts["kind"] != "ahd":
        from tvad.conversation.saved import read_record

        record = read_record(speaker)       # whole, and of this format
        listed = json.loads((speaker / COMPLETE).read_text(encoding="utf-8"))["files"]
        for name in (*listed, COMPLETE):
            (folder / SPEAKER / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(speaker / name, folder / SPEAKER / name)
        facts |= {"backbone": record["backbone"], "language_fingerprint": record["language_fingerprint"],
                  "variant": record["variant"]}
    params = phase1 / "params.json"
    if params.is_file():
        facts["data"] = {name: value for name, value in json.loads(params.read_text(encoding="utf-8")).items()
                         if name in ("dataset", "protocol", "split", "seed", "steps", "train_pairs")}
    data = phase1 / "data.json"
    if data.is_file():
        facts["splits"] = json.loads(data.read_text(encoding="utf-8"))      # role, name, size and hash of each
    return facts


def _of_detector(model: Any, folder: Path, kind: str | None) -> dict[str, Any]:
    if kind not in (None, "ahd"):
        raise CheckpointError(f"{type(model).__name__}: of a model at hand the heatmap decoders alone can be shared "
                              f"(kind='ahd'); for {kind!r} give the run's folder, such as runs/tiny")
    extra = {"backbone": model.backbone.name, **model.decoder.record.get("extra", {})}
    model.decoder.save(folder / DECODER, backbone_fingerprint=model.backbone.fingerprint, extra=extra)
    model.scoring.save(folder / SCORING)
    if model.queries is not None:
        extra = {"backbone": model.backbone.name, **model.queries.record.get("extra", {})}
        model.queries.save(folder / QUERIES, backbone_fingerprint=model.backbone.fingerprint, extra=extra)
        model.query_scoring.save(folder / QUERY_SCORING)
    return {"kind": "ahd", **_decoder_facts(folder)}


def _decoder_facts(folder: Path) -> dict[str, Any]:
    _, record = read_weights(folder / DECODER)
    extra = record.get("extra", {})
    scoring = folder / SCORING
    return {"backbone": extra.get("backbone", ""), "backbone_fingerprint": record.get("backbone_fingerprint", ""),
            "training": {name: json.loads(extra[name]) for name in ("phase1", "best") if name in extra},
            "scoring": json.loads(scoring.read_text(encoding="utf-8")) if scoring.is_file() else {}}


def _rows_of(run: Path) -> list[Row]:
    """What was measured of the weights as they will be opened: without a camera's view, which is no part of the folder."""
    path = run / "results.jsonl"
    return [row for row in read_rows(path) if row.variant != "matched-view"] if path.is_file() else []


def _zoo_folder(name: str) -> Path | None:
    return ZOO / name if name and (ZOO / name / "config.json").is_file() else None


def _copy_backbone(source: Path, target: Path) -> None:
    target.mkdir()
    for path in sorted(source.iterdir()):
        if path.suffix in (".safetensors", ".json", ".jinja", ".txt"):
            shutil.copyfile(path, target / path.name)


def _replace(folder: Path, target: Path) -> None:
    """Put the finished folder in its place; what was there goes only when the new one is whole and lies there.

    Raises :class:`StorageError` when the disk refuses; what was there is then there again.
    """
    old = folder.parent / "old"
    if target.exists():
        verify(target)                      # nothing but a shared model is ever replaced
    try:
        if target.exists():
            target.rename(old)
        folder.rename(target)
    except OSError as error:
        if old.exists():
            old.rename(target)
        raise StorageError(f"{target}: the folder could not be put in its place ({error.strerror or error}); what was "
                           "there is untouched. Close what has it open, see to rights and space, and write it again"
                           ) from error


