"""Parameters of the notebooks, checked by name, type and range; ``Phase1.read(globals())`` in a notebook."""
from tvad.params.base import DATASETS, Parameters, literal_assignments, project_root, setting
from tvad.params.camera import Camera
from tvad.params.phase1 import Phase1
from tvad.params.phase2 import Phase2
from tvad.params.phase3 import Phase3
from tvad.params.phase4 import Phase4

__all__ = ["DATASETS", "Camera", "Parameters", "Phase1", "Phase2", "Phase3", "Phase4", "literal_assignments",
           "project_root", "setting"]
