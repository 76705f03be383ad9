"""Shared folders on the model hub: put there, and fetched, by huggingface_hub's own client."""
from __future__ import annotations

from pathlib import Path
from typing import Any

from tvad.errors import CheckpointError
from tvad.sharing.card import for_repository
from tvad.sharing.manifest import CARD, verify

# Nothing else is ever fetched: pickled weights could run code.
PATTERNS = ("*.safetensors", "*.json", "*.txt", "*.jinja", CARD)


def push_to_hub(folder: Path | str, repo_id: str, *, private: bool = True, token: str | bool | None = None,
                message: str = "Upload of a tvad model", api: Any = None) -> str:
    """Put a shared folder into a repository of the model hub and return its address.

    The repository is made where there is none, private unless said otherwise.  The card's five lines name the repository
    from then on.  api: the client, by default ``huggingface_hub.HfApi``.
    Raises :class:`CheckpointError` for a folder that is not as its manifest says, or where the hub refuses.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    folder = Path(folder)
    verify(folder)
    client = api or HfApi(token=token)
    try:
        client.create_repo(repo_id, repo_type="model", private=private, exist_ok=True)
        card = for_repository((folder / CARD).read_text(encoding="utf-8"), repo_id)
        client.upload_folder(repo_id=repo_id, repo_type="model", folder_path=str(folder), commit_message=message,
                             ignore_patterns=[CARD, ".cache/*", ".git/*"])
        client.upload_file(repo_id=repo_id, repo_type="model", path_in_repo=CARD, path_or_fileobj=card.encode(),
                           commit_message=message)
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise CheckpointError(f"{repo_id}: not put on the hub ({type(error).__name__}: {str(error).splitlines()[0]}); log "
                              "in with: hf auth login, and check the name (user/model)") from error
    return f"{client.endpoint}/{repo_id}"


def fetch(repo_id: str, *, revision: str | None = None, token: str | bool | None = None,
          cache_dir: Path | str | None = None) -> Path:
    """The local copy of a repository, downloaded where it is not there yet; weights that could run code are never fetched.

    Raises :class:`CheckpointError`, naming the remedy, where there is none.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    if repo_id.count("/") != 1 or repo_id.startswith((".", "/", "~")):
        raise CheckpointError(f"{repo_id}: no such folder; give a shared folder, or a hub name such as somebody/tvad-tiny")
    try:
        return Path(snapshot_download(repo_id, revision=revision, token=token, cache_dir=cache_dir,
                                      allow_patterns=list(PATTERNS)))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise CheckpointError(f"{repo_id}: no such folder here, and the hub does not give it ({type(error).__name__}); "
                              "check the name, or fetch it elsewhere and give the folder") from error
