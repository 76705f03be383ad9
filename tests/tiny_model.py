"""A random Qwen2.5-VL in the real format, small enough to be made within a second."""

import torch
from transformers import Qwen2_5_VLForConditionalGeneration

from tvad.backbones.pretrain.tiny import make_config, make_processor, make_tokenizer, save_model

TEXTS = ("a person in a red top", "no bicycle present", "Where is the bicycle?", "one person", "top left")


def random_model(texts=TEXTS, *, full_attention=(1,)):
    """Model and processor: three vision blocks of width 48, one language block."""
    tokenizer = make_tokenizer(list(texts) * 3)
    config = make_config(tokenizer)
    config.vision_config.depth, config.vision_config.fullatt_block_indexes = 3, list(full_attention)
    config.vision_config.hidden_size, config.vision_config.intermediate_size = 48, 64
    config.text_config.num_hidden_layers, config.text_config.layer_types = 1, ["full_attention"]
    torch.manual_seed(0)
    return Qwen2_5_VLForConditionalGeneration(config), make_processor(tokenizer)


def random_model_directory(path):
    """The same, saved to ``path`` as the zoo's models are; returns ``path``."""
    save_model(*random_model(), path)
    return path
