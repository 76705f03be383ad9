"""Find what the user names: text-conditioned heatmaps, trained by ``tvad.training.queries``.

``words``: what a query means, as directions in text space.  ``heatmap``: the decoder, one map a query.  ``finding``: a
whole video in one pass of the tower.  ``evaluation``: figures of a split, and smoothing chosen on validation.
"""
