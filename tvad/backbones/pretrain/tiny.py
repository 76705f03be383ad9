"""The tiny Qwen2.5-VL: configuration, tokenizer, processors and chat template, in the formats of the big one.

The same classes, special tokens and chat format as ``Qwen/Qwen2.5-VL-7B-Instruct``; only the numbers are small and the
tokenizer is our own byte-level BPE.  The three anomaly-prompt tokens of T-VAD are part of the vocabulary from the start.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

# In the order of the published vocabulary; the last three are T-VAD's own.
SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
    "<tool_call>",
    "</tool_call>",
    "<|fim_prefix|>",
    "<|fim_middle|>",
    "<|fim_suffix|>",
    "<|fim_pad|>",
    "<|repo_name|>",
    "<|file_sep|>",
    "<|anomaly_prompt_start|>",
    "<|anomaly_prompt_pad|>",
    "<|anomaly_prompt_end|>",
)
VOCABULARY = 2048
TOWER = ("visual.", "model.embed_tokens.")  # what the heatmap needs: vision tower and prompt embedding
# Pairs of turning dimensions, fastest first: four for time, six for rows, the rest for columns; a text turns in all alike.
# The fastest columns turn by two radians over a picture of 18, so that left can be told from right (with the usual 10,000
# and an even split it is a twentieth); the slowest hardly turn over 300 tokens of text, so that a word told early can be
# found whatever was said since (with a base of 30, which the first stages of one model had, they turn twice).
ROPE = {"rope_type": "default", "rope_theta": 1000.0, "mrope_section": [4, 6, 22]}

# ChatML turns; a picture or a video inside a turn becomes start, pad and end tokens.
CHAT_TEMPLATE = """\
{%- if messages and messages[0].role != 'system' -%}
{{- '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' -}}
{%- endif -%}
{%- for message in messages -%}
{{- '<|im_start|>' + message.role + '\\n' -}}
{%- if message.content is string -%}
{{- message.content -}}
{%- else -%}
{%- for part in message.content -%}
{%- if part.type == 'image' or 'image' in part -%}
{{- '<|vision_start|><|image_pad|><|vision_end|>' -}}
{%- elif part.type == 'video' or 'video' in part -%}
{{- '<|vision_start|><|video_pad|><|vision_end|>' -}}
{%- elif 'text' in part -%}
{{- part.text -}}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{{- '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|im_start|>assistant\\n' -}}
{%- endif -%}
"""


def make_tokenizer(corpus: Iterable[str]):
    """A byte-level BPE in Qwen2's tokenizer format, trained on ``corpus``; any text, Chinese included, can be encoded."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import Qwen2TokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.normalizer = normalizers.NFC()
    words = Regex(
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(words, behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(corpus, trainer)
    tokenizer = Qwen2TokenizerFast(
        tokenizer_object=bpe,
        unk_token=None,
        bos_token=None,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        model_max_length=8192,
    )
    tokenizer.add_special_tokens({"additional_special_tokens": list(SPECIAL_TOKENS)})
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def make_config(tokenizer):
    """The tiny configuration; every size is stated, because the classes' defaults are not the hub's."""
    from transformers import Qwen2_5_VLConfig

    ids = tokenizer.convert_tokens_to_ids
    return Qwen2_5_VLConfig(
        vision_config=dict(
            depth=6,
            hidden_size=192,
            num_heads=3,
            intermediate_size=512,
            patch_size=10,
            spatial_merge_size=2,
            temporal_patch_size=2,
            window_size=120,
            fullatt_block_indexes=[1, 3, 5],
            out_hidden_size=256,
            tokens_per_second=10,
        ),
        text_config=dict(
            vocab_size=-(-len(tokenizer) // 64) * 64,
            hidden_size=256,
            intermediate_size=640,
            num_hidden_layers=5,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=8192,
            tie_word_embeddings=True,
            rope_parameters=dict(ROPE),
            bos_token_id=ids("<|endoftext|>"),
            eos_token_id=ids("<|im_end|>"),
            pad_token_id=ids("<|endoftext|>"),
        ),
        image_token_id=ids("<|image_pad|>"),
        video_token_id=ids("<|video_pad|>"),
        vision_start_token_id=ids("<|vision_start|>"),
        vision_end_token_id=ids("<|vision_end|>"),
        tie_word_embeddings=True,
    )


def make_processor(tokenizer):
    """Image and video processors with the tiny geometry: frames up to 240x360 keep their pixels."""
    from transformers import Qwen2_5_VLProcessor, Qwen2VLImageProcessor, Qwen2VLVideoProcessor

    shape = dict(
        patch_size=10, merge_size=2, temporal_patch_size=2, size={"shortest_edge": 60 * 60, "longest_edge": 240 * 360}
    )
    return Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(**shape),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(**shape, do_sample_frames=False),
        chat_template=CHAT_TEMPLATE,
    )


def save_model(model, processor, directory: Path, *, parts: tuple[str, ...] = ("",)) -> None:
    """Write model and processor in half precision as ``from_pretrained`` wants them; the master copy stays float32.

    ``parts``: beginnings of the weight names to keep; ``TOWER`` leaves an untrained language model out.
    """
    import copy

    import torch
    from safetensors.torch import load_file, save_file

    half = copy.deepcopy(model).to(torch.float16)
    half.config.dtype = "float16"
    half.save_pretrained(directory)
    if parts != ("",):
        weights = Path(directory) / "model.safetensors"
        kept = {name: value.clone() for name, value in load_file(weights).items() if name.startswith(parts)}
        save_file(kept, weights, metadata={"format": "pt"})
    processor.save_pretrained(directory)
