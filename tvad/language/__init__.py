"""From masks to words: tracks, timelines, trajectory phrases, and the conversations made of them."""
