"""Pictures of publication quality from rows and arrays; nothing here trains or runs a model.

    gallery = Gallery(params)    # the paper's figures, of a notebook's Phase4 parameters
    gallery.show("trajectories") # writes PDF, SVG, PNG and provenance, displays picture and caption
    page = Page(params)          # the phase-1 run of a notebook's parameters, likewise; talks.TalkPage: the dialogue set

    python -m tvad.figures --profile tiny        # redraw figures/tiny from what runs/tiny holds
"""
from tvad.figures.gallery import Gallery
from tvad.figures.page import FIGURES, Page

__all__ = ["FIGURES", "Gallery", "Page"]
