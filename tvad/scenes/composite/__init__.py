"""Simulated actors in real normal footage: what a camera's own footage tells of it, and composites with exact masks.

``backdrop``: background and foreground.  ``lens``: camera from people's heights.  ``survey``: all estimates, a ``Site``.
``looks``: tones, softness, shadow.  ``crowd``: who is pasted.  ``compose``: pairs of frames.  ``sheet``: preview pictures.
"""
