"""A detector adapted to one camera, made by ``tvad.training.adapt`` from normal footage alone.

``evidence``: what is usual at each place, and how parts of evidence become one map.  ``oneclass``: distance to normal
patches.  ``tower``: low-rank adapters of the vision tower.  ``views``: footage cut in time or made smaller.
``detector``: the detector, on disk and at work.
"""
