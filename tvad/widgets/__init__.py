"""The demo that people can touch: a player with heatmaps, events found by name, a conversation, files to take away.

    from tvad.widgets.page import DemoPage          # in JupyterLab, see notebooks/demo.ipynb
    DemoPage(Demo()).root

    python -m tvad.widgets                          # or make demo: the same as a page on this machine

``session.py`` holds what a visitor has before them and every action as a plain function; ``analysis.py`` scores a video
window by window; ``picture.py``, ``texts.py`` and ``export.py`` draw, word and write; ``footage.py`` and ``models.py`` find
videos and weights.  ``page.py`` is the shell of widgets over them, ``serve.py`` the page on loopback.
"""
