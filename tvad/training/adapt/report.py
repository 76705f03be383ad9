"""The report of an adaptation in words and plain columns."""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def as_text(report: Mapping[str, Any]) -> str:
    """What was found of the camera, and the validation figures of every choice of evidence."""
    site, best, before = report["site"], report["best"], report["before"]
    camera, look = site["camera"], site["look"]
    lines = [
        f"camera: {site['size'][1]}x{site['size'][0]} at {site['fps']:g} fps; {site['people']} single people seen, "
        f"{site['person_pixels']['middle_row']} pixels high in the middle row; taken for {camera['height_m']} m up, tilted "
        f"{camera['tilt_degrees']} degrees, focal length {camera['focal_frame_heights']} frame heights",
        f"people move at {site['pace']:g} of the pace expected from the frame rate given",
        f"look: {'grey' if look['grey'] else 'colour'}, blur {look['blur']:g} px, sharpening {look['sharpen']:g}, noise "
        f"{look['noise']:g}, light beneath feet {look['shadow']:g}",
        f"footage: {len(report['videos']['training'])} videos for training, {len(report['videos']['held_out'])} held out",
        f"validation (held-out normal footage and composites on it): pixel AUROC {before['val_pixel_auroc']:.4f} before, "
        f"{best['val_pixel_auroc']:.4f} after; micro AUC {before['val_micro_auc']:.4f} before, {best['val_micro_auc']:.4f} "
        f"after (step {best['step']})" + ("" if len(report["history"]) > 1 else "; nothing was trained"),
        f"frames between the two of a pair: {', '.join(map(str, report['config']['gaps']))}",
        *_of_zoom(report),
        *_of_tower(report),
        *_of_weights(report),
        *_of_clips(report),
        "", f"{'evidence':44} pixel   micro   hard    pasted  clip spread",
    ]
    for title, found in report["options"].items():
        lines.append(f"{title:44} {found['val_pixel_auroc']:.4f}  {found['val_micro_auc']:.4f}  {found['hard_auc']:.4f}  "
                     f"{found['paste_auc']:.4f}  {found['clip_spread']:.2f}")
    first = next(iter(report["options"].values()), {"by_kind": {}})
    lines += ["", "micro AUC by event (first line of evidence): "
              + ", ".join(f"{kind} {value:.3f}" for kind, value in first["by_kind"].items()),
              "", "seconds: " + ", ".join(f"{name} {value:g}" for name, value in report["seconds"].items())]
    if site["people"] < 12:
        lines.insert(1, "WARNING: hardly any people were seen; scale and paths are guesses, give footage with more people")
    return "\n".join(lines) + "\n"


def _of_zoom(report: Mapping[str, Any]) -> list[str]:
    """How large the pictures are seen, and what was tried."""
    tried = ", ".join(f"{zoom} {value:.3f}" for zoom, value in report["zooms"].items())
    told = f" (events against real pairs, AUC: {tried})" if tried else ""
    return [f"seen {report['config']['zooms'][0]:g} times as large{told}"]


def _of_weights(report: Mapping[str, Any]) -> list[str]:
    """How much of the decoder was kept, and what the mixture reaches; an adapted tower has a decoder of its own."""
    kept = report["config"]["kept"]
    if "tower" in report or not kept:
        return []
    found = next(iter(report["options"].values()), {})
    reached = "".join(f", {name} {found[key]:.4f}" for name, key in (("pixel AUROC", "val_pixel_auroc"),
                                                                    ("micro AUC", "val_micro_auc")) if key in found)
    return [f"the detector mixes that step with {kept:.0%} of the weights from before{reached}"]


def _of_clips(report: Mapping[str, Any]) -> list[str]:
    """What whole held-out clips decided."""
    if not (found := report.get("clips")):
        why = "no room, or no event seen" if report["config"]["clips"] else "none were asked for"
        how = "by the people's pace" if report["config"]["smoothing"] == "pace" else "over as many frames as before"
        return [f"whole held-out clips say nothing of smoothing ({why}): scores are smoothed {how}"]
    figures, (pairs, patches) = found["figures"], found["blur"]
    reached = [f"{name} {min(values.values()):.4f} to {max(values.values()):.4f}" for name, values in
               (("micro AUC", figures["micro_auc"]), ("pixel AUROC", figures["pixel_auroc"])) if values]
    return [f"smoothing chosen on {figures['clips']} whole held-out clips with pasted actors ({', '.join(reached)}): "
            f"scores over {found['sigma']:g} frames, heatmaps over {pairs:g} pairs and {patches:g} patches"]


def _of_tower(report: Mapping[str, Any]) -> list[str]:
    """What adapting the tower changed, where it was adapted."""
    if "tower" not in report:
        return ["tower: frozen"]
    frozen, losses, config = report["tower"]["frozen"], report["tower"]["losses"], report["config"]
    told = f"loss {losses[0]['train_loss']:.4f} at first, {losses[-1]['train_loss']:.4f} at last; " if losses else ""
    hard = next(iter(frozen["options"].values()), {}).get("hard_auc", float("nan"))
    return [f"tower: low-rank adapter of rank {config['tower_rank']}, {config['tower_steps']} steps, {told}with the frozen "
            f"tower pixel AUROC {frozen['best']['val_pixel_auroc']:.4f}, micro AUC {frozen['best']['val_micro_auc']:.4f}, "
            f"hard {hard:.4f}"]
