"""Pictures of publication quality from rows and arrays; nothing here trains or loads a model.

    page = Page(params)          # the phase-1 run of a notebook's parameters
    page.show("training")        # writes PNG, PDF and provenance, displays picture and caption

    python -m tvad.figures --profile tiny        # redraw figures/tiny from what runs/tiny holds
"""
from tvad.figures.page import FIGURES, Page

__all__ = ["FIGURES", "Page"]
