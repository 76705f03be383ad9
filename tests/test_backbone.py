"""The stock tower, quickened and tapped: equal to the stock class, in raster order, for any size and grouping."""

import numpy as np
import pytest
import torch
from tiny_model import random_model_directory
from transformers import Qwen2_5_VLForConditionalGeneration
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VisionTransformerPretrainedModel

from tvad.backbones import vision
from tvad.backbones.pretrain.tiny import TOWER, save_model
from tvad.backbones.qwen import QwenBackbone
from tvad.backbones.zoo import resolve
from tvad.errors import BackboneError
from tvad.video.clip import Clip


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """A tiny random model directory in the real format, small enough for a second."""
    return random_model_directory(tmp_path_factory.mktemp("zoo") / "tiny")


@pytest.fixture(scope="module")
def backbone(directory):
    return QwenBackbone.from_pretrained(directory, taps=(0, 1, 2), device="cpu", dtype="float32")


def clip(frames=6, height=160, width=200, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (frames, height, width, 3), np.uint8)
    return Clip(frames=pixels, fps=10.0, start=0, video="noise")


def stock(directory):
    """The same weights in the untouched stock class."""
    return Qwen2_5_VLForConditionalGeneration.from_pretrained(directory, dtype=torch.float32).model.visual.eval()


def test_a_tower_that_cannot_be_tapped_is_refused_and_quickening_twice_is_once(directory):
    flat, grid = torch.zeros(96, 600), (1, 8, 12)
    with pytest.raises(BackboneError, match="cannot be tapped; pass it through tvad.backbones.vision.quicken first"):
        vision.run_tower(stock(directory), flat, grid=grid, taps=(0,))
    tower = vision.quicken(vision.quicken(stock(directory)))
    assert [len(block._forward_hooks) for block in tower.blocks] == [1] * len(tower.blocks)
    assert vision.run_tower(tower, flat, grid=grid, taps=(0,))[0][0].shape[:3] == grid


def test_raster_restores_a_position_code():
    grid, merge = (2, 8, 12), 2
    code = torch.arange(2 * 8 * 12, dtype=torch.float32).view(2, 8, 12)
    grouped = code.view(2, 4, merge, 6, merge).transpose(2, 3).reshape(-1, merge * merge)
    window_index, _ = vision.get_vision_window_index(
        torch.tensor([grid]), spatial_merge_size=2, window_size=60, patch_size=10
    )
    in_windows = grouped[window_index].reshape(-1, 1)
    assert (in_windows[:, 0] != code.flatten()).float().mean() > 0.5  # the trap is real: most tokens are misplaced
    assert torch.equal(vision.raster(in_windows, window_index, grid=grid, merge=merge)[..., 0], code)


def test_patches_equal_the_stock_processor(directory, backbone):
    from transformers import AutoVideoProcessor

    for height, width in ((160, 200), (158, 238)):  # the second must be resized by the stock rule
        frames = clip(5, height, width).frames
        flat, grid = backbone.patches(frames)
        processor = AutoVideoProcessor.from_pretrained(directory)
        wanted = processor(videos=[torch.from_numpy(frames).permute(0, 3, 1, 2)], return_tensors="pt")
        assert tuple(wanted["video_grid_thw"][0].tolist()) == grid
        assert (flat - wanted["pixel_values_videos"]).abs().max() < 0.02


def test_quick_tower_equals_the_stock_tower(directory, backbone):
    flat, grid = backbone.patches(clip(4, 160, 220).frames)  # 8 x 11 merged cells: windows of unequal size
    slow = stock(directory)
    with torch.no_grad():
        outputs = slow(flat, grid_thw=torch.tensor([grid]), output_hidden_states=True)
        taps, merged = backbone.forward(flat, grid)
    window_index, _ = vision.get_vision_window_index(
        torch.tensor([grid]), spatial_merge_size=2, window_size=120, patch_size=10
    )
    last = vision.raster(outputs.last_hidden_state, window_index, grid=grid, merge=2)
    assert torch.allclose(taps[-1], last, atol=1e-5)
    assert torch.allclose(merged, outputs.pooler_output, atol=1e-5)
    assert not torch.allclose(taps[0], taps[-1], atol=1e-2)


def test_a_change_in_one_corner_lights_that_corner(backbone):
    plain = clip(2, 240, 240)
    frames = plain.frames.copy()
    frames[:, 220:, 10:20] = 255 - frames[:, 220:, 10:20]
    before, after = backbone.see(plain), backbone.see(Clip(frames=frames, fps=10.0, start=0, video="changed"))
    moved = (after.taps[0] - before.taps[0]).norm(dim=-1)[0]
    assert divmod(int(moved.argmax()), moved.shape[1]) in {(22, 1), (23, 1)}


def test_half_precision_sees_the_same_and_keeps_the_identity(directory, backbone):
    half = QwenBackbone.from_pretrained(directory, taps=(0, 1, 2), device="cpu", dtype="bfloat16")
    wanted, got = backbone.see(clip()).taps[2], half.see(clip()).taps[2].float()
    assert torch.nn.functional.cosine_similarity(wanted, got, dim=-1).min() > 0.99
    assert half.fingerprint == backbone.fingerprint


def test_many_clips_equal_one_by_one(backbone):
    clips = [clip(4, seed=1), clip(5, seed=2), clip(2, seed=3)]
    together = backbone.see_many(clips, tokens=True)
    for one, joint in zip(clips, together, strict=True):
        alone = backbone.see(one, tokens=True)
        assert alone.grid == joint.grid == (-(-len(one.frames) // 2), 16, 20)
        assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(alone.taps, joint.taps, strict=True))
        assert torch.allclose(alone.tokens, joint.tokens, atol=1e-5)


def test_with_and_without_language_model_agree(directory, backbone):
    full = QwenBackbone.from_pretrained(directory, taps=(0, 1, 2), device="cpu", dtype="float32", load_language_model=True)
    assert full.fingerprint == backbone.fingerprint and full.vision_fingerprint == backbone.vision_fingerprint
    assert torch.allclose(full.see(clip()).taps[2], backbone.see(clip()).taps[2], atol=1e-6)
    assert torch.allclose(full.embed_prompts(["a person"]), backbone.embed_prompts(["a person"]), atol=1e-6)


def test_prompt_embedding_is_the_mean_of_table_rows(backbone):
    ids = backbone.tokenizer("no bicycle present", add_special_tokens=False)["input_ids"]
    slow = sum(backbone.embedding[i].float() for i in ids) / len(ids)
    assert torch.allclose(backbone.embed_prompts(["a person", "no bicycle present"])[1], slow, atol=1e-6)


def test_random_twin_is_another_backbone_and_repeats_by_seed(backbone):
    first, again = backbone.randomised(seed=3), backbone.randomised(seed=3)
    assert first.vision_fingerprint == again.vision_fingerprint != backbone.vision_fingerprint
    assert not torch.allclose(first.see(clip()).taps[2], backbone.see(clip()).taps[2], atol=1e-3)


def test_an_enlarged_twin_sees_what_the_backbone_sees_in_enlarged_frames(directory, backbone):
    twin, frames = backbone.enlarged(1.5), clip().frames
    height, width = frames.shape[1:3]
    assert twin.see(clip()).grid[1:] == tuple(3 * side // 2 for side in backbone.see(clip()).grid[1:])
    assert twin.input_size(height, width) == backbone.input_size(height, width) and (backbone.zoom, twin.zoom) == (1, 1.5)
    larger = torch.nn.functional.interpolate(torch.from_numpy(frames).permute(0, 3, 1, 2).float(), scale_factor=1.5,
                                             mode="bicubic", align_corners=False, antialias=True).round().clamp(0, 255)
    grown = Clip(larger.permute(0, 2, 3, 1).byte().numpy(), 10.0, 0, "grown")
    assert torch.allclose(twin.see(clip()).taps[2], twin.enlarged(1.0).see(grown).taps[2], atol=0.05)
    prints = {one.fingerprint for one in (backbone, twin, backbone.enlarged(2.0))}
    assert len(prints) == 3 and backbone.enlarged(1.0).fingerprint == backbone.fingerprint
    with pytest.raises(BackboneError, match="zoom 0 must be a positive number"):
        backbone.enlarged(0)


def test_errors_name_file_cause_and_remedy(directory, backbone, tmp_path):
    with pytest.raises(BackboneError, match=r"taps \[9\] do not exist; its vision tower has blocks 0 to 2"):
        QwenBackbone.from_pretrained(directory, taps=(9,))
    with pytest.raises(BackboneError, match=r"no-such-model: no model directory .* make zoo"):
        resolve("no-such-model")
    with pytest.raises(BackboneError, match="non-empty and of one size"):
        backbone.see_many([clip(), clip(2, 180, 200)])
    broken = tmp_path / "broken"
    broken.mkdir()
    for name in ("config.json", "processor_config.json"):
        (broken / name).write_bytes((directory / name).read_bytes())
    with pytest.raises(BackboneError, match=r"weights missing, first 'blocks\.0\..*fetch the model again"):
        QwenBackbone.from_pretrained(broken, device="cpu")


def test_a_directory_without_language_model_gives_heatmaps_and_says_what_it_lacks(tmp_path, directory, backbone):
    from transformers import AutoProcessor

    whole = Qwen2_5_VLForConditionalGeneration.from_pretrained(directory, dtype=torch.float32)
    save_model(whole, AutoProcessor.from_pretrained(directory), tmp_path / "tower", parts=TOWER)
    tower = QwenBackbone.from_pretrained(tmp_path / "tower", taps=(0, 1, 2), device="cpu", dtype="float32")
    assert torch.equal(tower.see(clip()).taps[2], backbone.see(clip()).taps[2])
    assert tower.fingerprint == backbone.fingerprint
    with pytest.raises(BackboneError, match=r"weights missing, first 'model\.language_model.*no whole language model"):
        QwenBackbone.from_pretrained(tmp_path / "tower", load_language_model=True, device="cpu")


def test_damage_is_named(tmp_path, directory):
    import shutil

    from safetensors.torch import load_file, save_file

    cut = shutil.copytree(directory, tmp_path / "cut")
    weights = cut / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(BackboneError, match=r"model\.safetensors: damaged .*fetch the model again"):
        QwenBackbone.from_pretrained(cut, device="cpu")
    other = shutil.copytree(directory, tmp_path / "other")
    tensors = load_file(other / "model.safetensors")
    tensors["visual.patch_embed.proj.weight"] = tensors["visual.patch_embed.proj.weight"][:-1].clone()
    save_file(tensors, other / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BackboneError, match=r"do not fit config\.json .*patch_embed.*are both of one model"):
        QwenBackbone.from_pretrained(other, device="cpu")
    with pytest.raises(BackboneError, match=r"flash_attn is not installed; pip install flash-attn"):
        QwenBackbone.from_pretrained(directory, device="cpu", attention="flash_attention_2")


def test_coarse_honest_frame_rate_keeps_time_positions_apart(directory):
    """Temporal positions are floored: at a rate above tokens_per_second they would collide."""
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(directory)
    video, steps = model.config.video_token_id, 4
    ids = torch.tensor([[model.config.vision_start_token_id, *[video] * steps, model.config.vision_end_token_id]])
    grid = torch.tensor([[steps, 2, 2]])
    kinds = (ids == video).int() * 2
    positions = {
        fps: model.model.get_rope_index(
            ids, mm_token_type_ids=kinds, video_grid_thw=grid, second_per_grid_ts=torch.tensor([2 / fps])
        )[0][0, 0].tolist()
        for fps in (10.0, 60.0)
    }
    assert positions[10.0] == [0, 1, 3, 5, 7, 2]  # golden: start, four steps two apart, end
    assert len(set(positions[60.0][1:-1])) < steps


def test_flops_grow_with_the_grid(backbone):
    one, two = backbone.flops(t=1, h=24, w=36), backbone.flops(t=2, h=24, w=36)
    assert two == 2 * one > 1e7


def test_stock_class_still_loads_what_we_save(directory):
    assert isinstance(stock(directory), Qwen2_5_VisionTransformerPretrainedModel)
