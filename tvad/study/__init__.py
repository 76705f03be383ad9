"""The reference that ``make reproduce`` compares itself with: all seeds and the controls, as rows in git.

    python -m tvad.study run --profile tiny        # three seeds of the system and of each control, about an hour
    python -m tvad.study run --phase 2             # every variant of the ablation of phase 2 (``ablation.py``)
    python -m tvad.study run --phase curve --seeds 0            # what more clips, steps or width would buy (``curve.py``)
    python -m tvad.study run --phase queries       # heatmaps of what the user names (``queries.py``)
    python -m tvad.study run --profile ped2 --phase camera      # adaptation to real footage (``camera.py``)
    python -m tvad.study compare --profile tiny    # figures of the last run beside the study's mean and spread
    python -m tvad.study tables --profile tiny     # Markdown
"""
