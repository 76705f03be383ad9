"""Names of models to directories: the tiny zoo that ships with the workbook, a local directory, or a hub name."""

from __future__ import annotations

from pathlib import Path

from tvad.errors import BackboneError

ZOO = Path(__file__).resolve().parents[2] / "data" / "zoo"


def resolve(name: str | Path) -> Path:
    """The directory of a model: ``data/zoo/<name>``, a path, or the local snapshot of a hub model (downloaded if needed).

    Raises BackboneError, naming the remedy, when there is none.
    """
    for candidate in (ZOO / str(name), Path(name).expanduser()):
        if (candidate / "config.json").is_file():
            return candidate
    text = str(name)
    if text.count("/") == 1 and not text.startswith((".", "/", "~")) and not Path(text).exists():
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

        try:
            return Path(snapshot_download(text, allow_patterns=["*.json", "*.safetensors", "*.txt", "*.jinja"]))
        except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
            raise BackboneError(
                f"{text}: cannot be fetched from the model hub ({type(error).__name__}); download it elsewhere and give "
                "the directory's path, or use the built-in qwen2.5-vl-tiny"
            ) from error
    raise BackboneError(
        f"{text}: no model directory (config.json) here or in {ZOO.name}/; give a directory, a hub name such as "
        "Qwen/Qwen2.5-VL-7B-Instruct, or qwen2.5-vl-tiny (rebuild it with: make zoo)"
    )
