"""The prompt ensemble against golden values, the prototypes against a slow twin, and their cache."""
from __future__ import annotations

import hashlib
import logging

import pytest
import torch

from tvad.errors import BackboneError, ParameterError
from tvad.prompts import ABNORMAL_PHRASES, EVENTS, MIXES, NORMAL_PHRASES, SENTENCES, PromptEnsemble, prototypes


class FakeBackbone:
    """Embeds a sentence as the mean of one fixed random row a character; counts its calls."""

    def __init__(self, fingerprint: str = "fake-1", width: int = 12) -> None:
        self.fingerprint, self.calls = fingerprint, 0
        self.table = torch.randn(512, width, generator=torch.Generator().manual_seed(3))

    def embed(self, sentence: str) -> torch.Tensor:
        return self.table[[ord(letter) % 512 for letter in sentence]].mean(0)

    def embed_prompts(self, sentences: list[str]) -> torch.Tensor:
        self.calls += 1
        return torch.stack([self.embed(sentence) for sentence in sentences])


def test_golden_ensemble():
    ensemble = PromptEnsemble()
    assert len(ensemble.normal) == len(ensemble.abnormal) == 1680
    assert len({*ensemble.normal, *ensemble.abnormal}) == 3360
    assert ensemble.sha256 == "99e0023d3455b7251f1d9a1a79ac62aff193cc047e71b5063c0931c746a343ac"
    joined = "\n".join(ensemble.normal) + "\n\n" + "\n".join(ensemble.abnormal)
    assert ensemble.sha256 == hashlib.sha256(joined.encode()).hexdigest()
    assert ensemble.normal[0] == "a surveillance video of no person running present."
    assert ensemble.abnormal[0] == "a surveillance video of person running."
    assert "一段简短的监控片段，发生了平静的校园通道，没有有遗弃物。" in ensemble.normal
    assert "一段包含校园异常事件 - crowd gathering的闭路电视画面。" in ensemble.abnormal
    assert "a grainy security-camera clip showing 人群聚集 happening on campus." in ensemble.abnormal


def test_levels_have_the_published_sizes_and_one_slot_each():
    assert {language: len(words) for language, words in EVENTS.items()} == {"en": 12, "zh": 12}
    for level, size in ((NORMAL_PHRASES, 7), (ABNORMAL_PHRASES, 7), (SENTENCES, 5)):
        for templates in level.values():
            assert len(templates) == len(set(templates)) == size
            assert all(template.count("{}") == 1 for template in templates)
    assert set(MIXES) == {("en", "en"), ("zh", "zh"), ("zh", "en"), ("en", "zh")}


def test_own_events():
    own = PromptEnsemble.of(["dog {off} the leash", "bag left behind"], language="en")
    assert len(own.normal) == len(own.abnormal) == 2 * 2 * 35
    assert "a surveillance video of no dog {off} the leash present." in own.normal
    assert not any("person" in sentence for sentence in own.abnormal)
    both = PromptEnsemble(english=("dog",), chinese=("狗", "猫"), mixes=(("en", "en"), ("zh", "zh")))
    assert len(both.normal) == 35 + 70
    assert len({own.sha256, both.sha256, PromptEnsemble().sha256}) == 3


@pytest.mark.parametrize("make, message", [
    (lambda: PromptEnsemble.of([]), "no event words"),
    (lambda: PromptEnsemble.of("running"), "came as one string; give a tuple"),
    (lambda: PromptEnsemble.of(["a", " "]), "empty or repeated entry"),
    (lambda: PromptEnsemble.of(["a", "a"]), "empty or repeated entry"),
    (lambda: PromptEnsemble.of(["a"], language="fr"), r"unknown language 'fr'; choose from \['en', 'zh'\]"),
    (lambda: PromptEnsemble(mixes=(("en", "fr"),)), "language mixes"),
])
def test_bad_ensembles_are_refused(make, message):
    with pytest.raises(ParameterError, match=message):
        make()


def test_prototypes_equal_the_plain_mean():
    backbone, ensemble = FakeBackbone(), PromptEnsemble()
    table = prototypes(backbone, batch=1000)
    slow = [torch.stack([backbone.embed(sentence).double() for sentence in sentences]).mean(0)
            for sentences in (ensemble.normal, ensemble.abnormal)]
    assert table.shape == (2, 12) and table.dtype == torch.float32 and not table.requires_grad
    torch.testing.assert_close(table, torch.stack(slow).float())
    assert (table[0] - table[1]).norm() > 1e-3  # the order of the classes shows
    torch.testing.assert_close(prototypes(backbone, batch=7), table, rtol=0, atol=1e-7)


def test_prototypes_are_computed_once_a_backbone_and_ensemble(tmp_path):
    backbone, own = FakeBackbone(), PromptEnsemble.of(["dog"])
    first = prototypes(backbone, cache_dir=tmp_path / "cache", ensemble=own)
    calls = backbone.calls
    assert calls > 0 and len(list((tmp_path / "cache").iterdir())) == 1
    assert torch.equal(prototypes(backbone, cache_dir=tmp_path / "cache", ensemble=own), first)
    assert backbone.calls == calls
    prototypes(backbone, cache_dir=tmp_path / "cache", ensemble=PromptEnsemble.of(["cat"]))
    prototypes(FakeBackbone("fake-2"), cache_dir=tmp_path / "cache", ensemble=own)
    assert backbone.calls > calls and len(list((tmp_path / "cache").iterdir())) == 3


def test_a_damaged_or_misplaced_cache_is_made_again(tmp_path, caplog):
    backbone, own = FakeBackbone(), PromptEnsemble.of(["dog"])
    first = prototypes(backbone, cache_dir=tmp_path, ensemble=own)
    (file,) = tmp_path.iterdir()
    good = file.read_bytes()
    file.write_bytes(good[:40])
    with caplog.at_level(logging.WARNING):
        assert torch.equal(prototypes(backbone, cache_dir=tmp_path, ensemble=own), first)
    assert file.name in caplog.text and "computing the prototypes again" in caplog.text
    assert file.read_bytes() == good

    other = tmp_path / "other"
    prototypes(FakeBackbone("fake-2"), cache_dir=other, ensemble=own)
    (foreign,) = other.iterdir()
    foreign.replace(file)
    caplog.clear()
    assert torch.equal(prototypes(backbone, cache_dir=tmp_path, ensemble=own), first)
    assert "another backbone" in caplog.text


def test_unfit_embeddings_are_refused(tmp_path):
    backbone = FakeBackbone()
    backbone.table[:] = float("nan")
    with pytest.raises(BackboneError, match="fake-1: prompt embeddings are not finite; check the model's weights"):
        prototypes(backbone, cache_dir=tmp_path, ensemble=PromptEnsemble.of(["dog"]))
    assert not list(tmp_path.iterdir())
    backbone.embed_prompts = lambda sentences: torch.zeros(1, 12)
    with pytest.raises(BackboneError, match=r"shape \(1, 12\) for 70 sentences"):
        prototypes(backbone, ensemble=PromptEnsemble.of(["dog"]))
