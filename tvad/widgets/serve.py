"""The demo as a page on the user's own machine, through Voila: loopback alone, and nothing but the page.

Visitors cannot run code: Voila's kernels take widget messages only (a test sends one that asks for more).  Sources and
tracebacks are not sent, no file of the notebook's folder is served, and requests that come under another host name (a
page elsewhere that rebinds its own) are refused.
"""
from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from tvad.errors import MissingPhaseError
from tvad.params.base import project_root
from tvad.params.demo import Demo

HOST = "127.0.0.1"
PORT = 8866
IDLE_SECONDS = 30 * 60      # a kernel without a page goes after this
# The page speaks to this server alone: what templates would fetch from elsewhere (icons that it does not use) is not.
POLICY = "; ".join((
    "default-src 'self'", "script-src 'self' 'unsafe-inline' 'unsafe-eval' blob: data:", "style-src 'self' 'unsafe-inline'",
    "img-src 'self' data: blob:", "font-src 'self' data:", "connect-src 'self' ws: blob: data:", "worker-src 'self' blob:",
    "frame-ancestors 'self'", "form-action 'self'"))


def prepare(profile: str, *, videos: str = "", root: Path | None = None) -> Path:
    """Write ``runs/<profile>/demo.ipynb``, the demo's notebook with the parameters of the profile, and return it.

    Raises :class:`tvad.errors.ParameterError` for a profile that is not there or values that are not allowed,
    :class:`MissingPhaseError` outside of a checkout, where the notebook is missing.
    """
    import yaml
    from papermill import execute_notebook

    root = root or project_root()
    source, profiles = root / "notebooks" / "demo.ipynb", root / "notebooks" / "profiles"
    if not source.is_file():
        raise MissingPhaseError(f"{source}: the demo's notebook is missing; run this in the folder of the workbook")
    path = profiles / f"{profile}.yaml"
    if path.is_file():
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    else:
        content = vars(Demo.from_profile(path))     # raises, naming the profiles that there are
    known = {name: value for name, value in content.items() if name in Demo.__dataclass_fields__}
    if videos:
        known["videos"] = str(Path(videos).expanduser().resolve())
    Demo(**known)
    target = root / "runs" / profile / "demo.ipynb"
    target.parent.mkdir(parents=True, exist_ok=True)
    execute_notebook(str(source), str(target), parameters=known, prepare_only=True, progress_bar=False, log_output=False)
    return target


def settings(*, port: int = PORT, browser: bool = True) -> dict[str, dict[str, Any]]:
    """Voila's configuration; everything that keeps visitors to the page stands here."""
    return {
        "Voila": {"ip": HOST, "port": port, "open_browser": browser,
                  "tornado_settings": {"headers": {"Content-Security-Policy": POLICY}}},
        "VoilaConfiguration": {
            "strip_sources": True, "show_tracebacks": False, "file_allowlist": [], "allow_template_override": "NO",
            "allow_theme_override": "NO", "template": "lab", "theme": "light", "attempt_fix_notebook": False},
        "MappingKernelManager": {"cull_idle_timeout": IDLE_SECONDS, "cull_interval": 60, "cull_connected": False},
    }


def make_server(notebook: Path | str, *, port: int = PORT, browser: bool = True) -> Any:
    """The Voila application, initialised and not started."""
    from traitlets.config import Config
    from voila.app import Voila

    # The kernel of this environment, not one registered in the user's home.
    os.environ.setdefault("JUPYTER_PREFER_ENV_PATH", "1")

    class Local(Voila):
        """Voila that answers to this machine's own names alone."""

        def init_settings(self) -> dict:
            return {**super().init_settings(), "allow_remote_access": False, "local_hostnames": ["localhost"]}

    server = Local(config=Config(settings(port=port, browser=browser)))
    server.initialize([str(notebook)])
    return server


def serve(profile: str = "tiny", *, videos: str = "", port: int = PORT, browser: bool = True) -> None:
    """Serve the demo until it is interrupted."""
    server = make_server(prepare(profile, videos=videos), port=port, browser=browser)
    server.start()
