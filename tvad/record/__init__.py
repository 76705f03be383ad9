"""What a run leaves behind: result rows, files that are whole or absent, and where they came from.

Rows are JSON Lines beside the executed notebook; notebooks and tables draw rows and nobody retypes a number.  Every
file is written beside its place, synced and renamed, so that a crash or a full disk leaves the old one as it was.  A
folder counts as done only with a ``complete.json``, written last, whose hashes fit its files.
"""
from tvad.record.files import (
    COMPLETE,
    atomic_path,
    atomic_write,
    complete,
    file_hash,
    is_complete,
    remembered,
    reopen,
    write_json,
)
from tvad.record.origin import commit, provenance, versions
from tvad.record.rows import (
    DATASETS,
    METRICS,
    QUERIED,
    SPOKEN,
    SYSTEMS,
    Row,
    append_rows,
    has_rows,
    latest_rows,
    read_lines,
    read_rows,
    replace_rows,
    write_rows,
)

__all__ = ["COMPLETE", "DATASETS", "METRICS", "QUERIED", "SPOKEN", "SYSTEMS", "Row", "append_rows", "atomic_path",
           "atomic_write", "commit", "complete", "file_hash", "has_rows", "is_complete", "latest_rows", "provenance",
           "read_lines", "read_rows", "remembered", "reopen", "replace_rows", "versions", "write_json", "write_rows"]
