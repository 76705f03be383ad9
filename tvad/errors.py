"""Error types of the workbook.

Every message names the file or object, the cause and the remedy; the tests check the texts.  All types derive from
:class:`TvadError`, so that a caller may catch the workbook's own errors and nothing else.
"""


class TvadError(Exception):
    """Base of all errors that the workbook raises on purpose."""


class ParameterError(TvadError, ValueError):
    """A notebook or profile parameter is unknown, mistyped or out of range."""


class VideoError(TvadError, ValueError):
    """A video or frame folder is missing, damaged, truncated, empty or of an unreadable kind."""


class DatasetError(TvadError, ValueError):
    """A data set is missing, incomplete or contradicts its own annotation."""


class BackboneError(TvadError, ValueError):
    """A model directory cannot serve as backbone, or an input does not fit it."""


class CheckpointError(TvadError, ValueError):
    """A weight file is damaged, incomplete or belongs to another model."""


class StorageError(TvadError, OSError):
    """An output could not be written (full disk, no permission); what was there before is untouched."""


class MissingPhaseError(TvadError, FileNotFoundError):
    """A phase needs what an earlier phase leaves in ``runs/<profile>/``."""
