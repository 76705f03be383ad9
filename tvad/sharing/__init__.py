"""Trained models as folders that others can use: written, checked, read back, and put on the model hub.

    save_pretrained("runs/tiny", "shared/tvad-tiny")                # or a TVAD object instead of a run's folder
    model = from_pretrained("shared/tvad-tiny")                     # or a hub name: "somebody/tvad-tiny"
    push_to_hub("shared/tvad-tiny", "somebody/tvad-tiny")

Kinds: ``ahd`` (the heatmap decoder, with its scoring and the decoder of query heatmaps where there is one), ``speaker``
(region encoder and LoRA adapter of phase 2), ``bundle`` (both, with the tiny backbone inside, so that it works alone).
A folder holds safetensors and JSON, a model card and ``tvad.json`` with the hash of every file; a file that is missing, was
added or was changed is refused by its name.
"""
from tvad.sharing.folder import KINDS, from_pretrained, save_pretrained
from tvad.sharing.hub import push_to_hub
from tvad.sharing.manifest import verify

__all__ = ["KINDS", "from_pretrained", "push_to_hub", "save_pretrained", "verify"]
