"""The region encoder that speaks in words: the warm things of a map, their story, the sentences, and what teaching does."""
from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tvad.errors import BackboneError, ParameterError
from tvad.region import make_encoder
from tvad.region.facts import PATH_FACTS, Facts
from tvad.region.objects import warm_things
from tvad.region.reader import Reader
from tvad.region.words import FILL, SENTENCES, STORY, VERDICT, Field, story, table
from tvad.training.words import Taught, teach

WIDTH = 24
STEPS, ROWS, COLUMNS = 4, 12, 18


class Letters:
    """A tokenizer that knows whole words; "skateboard" is two."""

    def __init__(self) -> None:
        self.known: dict[str, int] = {}

    def __call__(self, text: str, *, add_special_tokens: bool) -> dict[str, list[int]]:
        words = ["skate", "board"] if text.strip() == "skateboard" else text.split()
        return {"input_ids": [self.known.setdefault(word, len(self.known)) for word in words]}

    def word(self, number: int) -> str:
        return {at: word for word, at in self.known.items()}[number]


def moving(*tracks, level=0.9) -> torch.Tensor:
    """One clip; each track has a (row, column) for every step, None where it is not seen."""
    heat = torch.full((STEPS, ROWS, COLUMNS), 0.01)
    for track in tracks:
        for step, place in enumerate(track):
            if place:
                heat[step, place[0]:place[0] + 2, place[1]:place[1] + 2] = level
    return heat


def test_things_are_told_apart_and_in_the_order_of_the_texts():
    right, left = [(8, 14)] * 4, [(2, 1), (2, 3), (2, 5), None]
    things = warm_things(moving(right, left).numpy(), most=3)
    assert [thing.present.tolist() for thing in things] == [[True, True, True, False], [True] * 4]   # from left to right
    first, second = things
    # middles of 2x2 squares in -1 to 1, and their boxes
    assert first.facts[0, 1:3] == pytest.approx([2 * 2 / COLUMNS - 1, 2 * 3 / ROWS - 1])
    assert first.facts[2, 3:7] == pytest.approx([10 / 18 - 1, 4 / 12 - 1, 14 / 18 - 1, 8 / 12 - 1])
    assert first.facts[3].sum() == 0 and second.facts[:, 8] == pytest.approx([0.9] * 4)
    assert np.array_equal((first.heat + second.heat > 0), moving(right, left).numpy() > 0.5)
    later = warm_things(moving([None, None, (2, 1), (2, 1)], right).numpy(), most=2)
    assert later[0].present.all()       # who comes first is told first
    assert len(warm_things(moving(right, left).numpy(), most=1)) == 1
    assert warm_things(np.full((2, 5, 5), 0.5), most=2) == []


def test_a_leap_is_another_thing_and_a_short_absence_is_none():
    leap = warm_things(moving([(0, 0), (0, 0), (10, 16), (10, 16)]).numpy(), most=3)
    assert [thing.present.tolist() for thing in leap] == [[True, True, False, False], [False, False, True, True]]
    gone = warm_things(moving([(4, 4), None, (4, 6), (4, 7)]).numpy(), most=3)
    assert [thing.present.tolist() for thing in gone] == [[True, False, True, True]]
    faint = warm_things(torch.maximum(moving([(4, 4)] * 4), moving([(9, 15)] * 4, level=0.2)).numpy(), most=3)
    assert len(faint) == 1


def target(**changes) -> dict[str, str]:
    said = {"from": "top left", "to": "right", "trajectory": "starts at the top left, moves towards the right, stays in "
            "view at the right", "motion": "gliding on a board", "top": "red", "bottom": "none", "object": "skateboard",
            "object_colour": "white"}
    return {**said, **changes}


def test_the_words_of_a_target():
    assert story(target()) == {"there": "it", "begins": "starts", "from": "top left", "way": "right", "ends": "stays",
                               "to": "right", "motion": "gliding", "top": "red", "bottom": "none", "colour": "white",
                               "thing": "skateboard"}
    path = {"from": "middle", "to": "middle", "trajectory": "appears in the middle, stays, disappears"}
    assert story(path) == {"there": "it", "begins": "appears", "from": "middle", "way": "stays", "ends": "disappears",
                           "to": "middle"}
    assert story(target(object="hand truck with boxes", motion="falling, then lying on the ground"))["motion"] == "falling"
    for field in STORY:
        assert field.number(story(target(object="hand truck with boxes"))[field.name]) >= 0
        assert field.number("perhaps") == -1


def bound(things=2, **options):
    torch.manual_seed(0)
    model, tokenizer = make_encoder("worded", text_width=WIDTH, things=things, hidden_width=32, **options), Letters()
    for word in ("It", "No", "Yes", FILL, "first", "second", *(word for word in SENTENCES if isinstance(word, str))):
        tokenizer(word, add_special_tokens=False)
    for field in STORY:
        for word in field.words:
            tokenizer(word, add_special_tokens=False)
    rows = F.normalize(torch.randn(len(tokenizer.known), WIDTH), dim=-1)
    model.bind(tokenizer, rows)
    return model.eval(), tokenizer, rows


def said(model, tokenizer, rows, heat, seen=None) -> str:
    tokens = model(heat[None], seen)[0] - model.roles
    return " ".join(tokenizer.word(int(number)) for number in (tokens @ rows.T).argmax(-1))


def sure(model, words: dict[str, str]) -> None:
    """Let the classifiers say these words whatever they read."""
    for field in (VERDICT, *STORY):
        head = model.reader.heads[f"{field.name}_"]
        head.weight.data.zero_()
        head.bias.data = 15.0 * torch.eye(len(field.words))[field.number(words[field.name])]


def test_a_sure_encoder_speaks_the_sentences():
    model, tokenizer, rows = bound()
    sure(model, {"verdict": "Yes", **story(target())})
    one = ("is a person in a red top and none trousers gliding . a white skate board . {who} is gliding . . {who} comes "
           "from the top left . {who} goes to the right . . {who} starts at the top left , moves towards the right . , "
           "stays in view at the right . .")
    fields = [word for word in SENTENCES if isinstance(word, Field)]
    assert {field.name for field in fields} == {field.name for field in STORY} - {"there"}
    two = said(model, tokenizer, rows, moving([(2, 1)] * 4, [(8, 14)] * 4))
    assert two == " ".join(["Yes .", *(f"{who} {one.format(who=who)}" for who in ("first", "second"))])
    alone = said(model, tokenizer, rows, moving([(2, 1)] * 4)).split()
    length = len(one.split()) + 1
    assert len(alone) == model.tokens(4) == 2 + 2 * length
    assert " ".join(alone[2:2 + length]) == "It " + one.format(who="It")
    assert set(alone[2 + length:]) == {FILL}        # a thing that is not there
    sure(model, {"verdict": "No", **story(target()), "there": "none"})
    assert set(said(model, tokenizer, rows, moving([(2, 1)] * 4)).split()[1:]) == {FILL}


def test_words_of_one_and_of_several_tokens():
    tokenizer, rows = Letters(), torch.arange(40.0).view(20, 2)
    made = table(("left", "top left", "skateboard"), 2, tokenizer, rows)
    ids = [tokenizer.known[word] for word in ("left", FILL, "top", "left", "skate", "board")]
    assert torch.equal(made, rows[ids].view(3, 2, 2))
    assert torch.equal(table(("skateboard",), 1, tokenizer, rows)[0], rows[[tokenizer.known["skate"]]])


def places(count: int, seed: int):
    """Clips with one thing that stays in a corner, told without its looks."""
    rng = np.random.default_rng(seed)
    corners = {"top left": (1, 1), "top right": (1, 15), "bottom left": (9, 1), "bottom right": (9, 15)}
    names = [str(name) for name in rng.choice(list(corners), count)]
    heats = torch.stack([moving([corners[name]] * STEPS) for name in names])
    return heats, [[story({"from": name, "to": name, "trajectory": f"starts at the {name}, stays, stays in view"})]
                   for name in names]


def test_teaching_teaches_places_and_who_is_there():
    model, _, _ = bound()
    heats, stories = places(40, 0)
    facts = model.facts(heats)
    assert facts.path.shape == (40, 2, PATH_FACTS) and facts.found.tolist() == [1] * 40
    optimizer = torch.optim.Adam([value for name, value in model.named_parameters() if name in model.taught()], lr=1e-2)
    losses = []
    for _ in range(25):
        optimizer.zero_grad()
        loss = model.reader.teach(facts, model.reader.wanted(facts, stories))
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.2 * losses[0] and model.roles.grad is None
    heats, stories = places(20, 1)
    logits = model.read(model.facts(heats))
    field = next(field for field in STORY if field.name == "from")
    found = [field.words[number] for number in logits["from"][:, 0].argmax(-1).tolist()]
    assert found == [told[0]["from"] for told in stories]
    assert (logits["there"][:, 0].argmax(-1) == 1).all() and (logits["there"][:, 1].argmax(-1) == 0).all()


def test_teaching_is_a_pure_function_of_the_seed(monkeypatch):
    heats, stories = places(12, 0)
    found, paired = [], []
    wanted = Reader.wanted
    monkeypatch.setattr(Reader, "wanted", lambda self, *given: paired.append(self.training) or wanted(self, *given))
    for state in (0, 1):        # whatever was drawn before
        model = bound()[0].train()
        torch.manual_seed(state)
        clips = Taught(model.facts(heats), stories)
        losses = teach(model, clips, [clips], None, steps=3, batch=4, seed=5, progress=False)
        found.append((losses, {name: value.clone() for name, value in model.state_dict().items()}))
    (one, first), (other, second) = found
    assert one == other and all(torch.equal(first[name], second[name]) for name in first)
    assert paired and not any(paired)       # dropout would pair by chance


def test_a_thing_is_taught_the_words_of_the_likeliest_target():
    model, _, _ = bound()
    facts = model.facts(moving([(1, 1)] * 4, [(9, 15)] * 4)[None])
    field = next(field for field in STORY if field.name == "from")
    for name in ("begins", "way", "ends", "to"):
        model.reader.heads[f"{name}_"].weight.data.zero_()
    with torch.no_grad():       # this encoder says bottom right of the second thing alone
        reading = model.read(facts)["from"][0, :, field.number("bottom right")]
    later = int(reading.argmax())
    stories = [[story({"from": "bottom right", "to": "bottom right", "trajectory": "starts at the bottom right, stays, "
                       "stays in view"})]]
    model.reader.teach(facts, model.reader.wanted(facts, stories)).backward()
    found = model.reader.heads["there_"].bias.grad
    assert torch.isfinite(found).all()
    with torch.no_grad():
        before = model.read(facts)["there"].log_softmax(-1)[0, :, 1]
        head = model.reader.heads["there_"]
        head.weight -= 0.5 * head.weight.grad
        change = model.read(facts)["there"].log_softmax(-1)[0, :, 1] - before
    assert change[later] > change[1 - later]


def test_facts_of_clips_are_those_of_each_alone():
    model, _, _ = bound()
    heats = torch.stack([moving([(1, 1)] * 4), moving([(9, 15), (9, 12), (9, 9), (9, 6)], [(1, 3)] * 4)])
    seen = torch.randn(2, STEPS * 6 * 9, WIDTH, generator=torch.Generator().manual_seed(1))
    whole = model.facts(heats, seen)
    parts = Facts.together([model.facts(heats[:1], seen[:1]), model.facts(heats[1:], seen[1:])])
    for name, value in vars(whole).items():
        assert torch.allclose(value, getattr(parts, name), atol=1e-6), name
        assert torch.equal(getattr(whole.rows([1]), name), value[1:]), name
    mean = seen[0].view(STEPS, 6, 9, WIDTH)[:, 0:2, 0:2].mean((0, 1, 2))     # the thing lies in four tokens of each step
    assert torch.allclose(whole.look[0, 0, :WIDTH], mean, atol=1e-5)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ParameterError, match="things 9 must be 1 to 4, hidden_width 128 positive, dropout 0.3"):
        make_encoder("worded", text_width=WIDTH, things=9)
    with pytest.raises(BackboneError, match="the embedding is 5 wide, its tokens are 24; make the encoder for this"):
        bound()[0].bind(SimpleNamespace(), torch.zeros(3, 5))
