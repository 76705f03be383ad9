"""Conversations about a clip that use the heatmap as evidence: ``talk = model.converse(clip)``, ``talk.ask("…")``.

``model.py`` assembles detector, region encoder and language model; ``talk.py`` holds conversations (one or many in step)
over one cache; ``choice.py`` turns yes/no logits into calibrated probabilities; ``economy.py`` says how much of a clip is
looked at and read.  The chat format, and how video and anomaly tokens come into ``inputs_embeds``, lie below in
``tvad.backbones.chat``, which training uses too.
"""
from tvad.backbones.chat import ANOMALY_TOKENS, ChatFormat, Dialogue, View, answer_logits, splice
from tvad.conversation.choice import fit_choice, fit_temperature, probability
from tvad.conversation.economy import Economy
from tvad.conversation.model import QUESTION, TVAU
from tvad.conversation.talk import Evidence, Talk, Talks, Turn

__all__ = ["ANOMALY_TOKENS", "QUESTION", "ChatFormat", "Dialogue", "Economy", "Evidence", "TVAU", "Talk", "Talks", "Turn",
           "View", "answer_logits", "fit_choice", "fit_temperature", "probability", "splice"]
