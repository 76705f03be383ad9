"""``python -m tvad.widgets``: the demo as a page on this machine (``make demo``)."""
from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from tvad.errors import TvadError
from tvad.widgets.serve import PORT, serve


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tvad.widgets", description="The demo as a page on this machine.")
    parser.add_argument("--profile", default="tiny", help="whose weights are shown: runs/<profile>")
    parser.add_argument("--videos", default="", help="a video of your own, or a folder of videos")
    parser.add_argument("--port", type=int, default=PORT)
    parser.add_argument("--no-browser", action="store_true", help="do not open a browser")
    given = parser.parse_args(arguments)
    try:
        serve(given.profile, videos=given.videos, port=given.port, browser=not given.no_browser)
    except TvadError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
