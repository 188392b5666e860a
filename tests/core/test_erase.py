"""Erasing by UCE: the formula, the pairs, the words, and an entry of a memory that has no token."""

import dataclasses
import json
import struct

import pytest
import torch

from cns_core.concept import ERASURE, MAX_CAPTIONS, MAX_NAME_LENGTH
from cns_core.erasures.change import ErasedChange
from cns_core.erasures.pairs import Pairs, paired
from cns_core.erasures.uce import UceSettings, erased, feature_map
from cns_core.erasures.wording import TEMPLATES, ToErase, heads, named
from cns_core.evaluation.matrix import Grid, MatrixSettings, score
from cns_core.forget import forget
from cns_core.identity import ModelIdentity
from cns_core.memory import ConceptMemory, LearnedConcept
from cns_core.memory_file import MemoryFileError, load_memory, save_memory
from cns_core.merge import merged
from cns_core.methods.directions.change import DirectionsChange
from cns_core.moments import second_moment
from cns_core.projections import ProjectionLayout
from cns_core.protected import Protection, protect
from cns_core.text_features import TextFeatures

D = 12
LAYOUT = ProjectionLayout(("a.to_k", "a.to_v"), ((5, D), (4, D)))
BASE = ModelIdentity("SD1", "ab" * 32)


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def weights(seed=7):
    return {name: random(*shape, seed=seed + i) for i, (name, shape, _) in enumerate(LAYOUT.slices())}


def edited(pairs, kept, settings):
    """W (1 + M) of every projection, in full precision."""
    first, second = feature_map(pairs, kept, settings)
    return {name: w + w @ first @ second for name, w in weights().items()}


@pytest.mark.parametrize("erase_weight, keep_weight", [(1.0, 1.0), (5.0, 0.25)])
def test_it_is_the_least_squares_solution(erase_weight, keep_weight):
    """The paper's closed form is the minimum of
    e sum |W' c - W c*|^2 + k sum |W' c_j - W c_j|^2 + lambda |W' - W|^2, here found by lstsq.
    """
    pairs, stays = Pairs(random(3, D), random(3, D, seed=1)), random(6, D, seed=2)
    settings = UceSettings(erase_weight=erase_weight, keep_weight=keep_weight, stay=0.5)
    found = edited(pairs, stays.T @ stays, settings)
    e, k = erase_weight**0.5, keep_weight**0.5
    read = torch.cat([e * pairs.features, k * stays, 0.5**0.5 * torch.eye(D, dtype=torch.float64)])
    for name, w in weights().items():
        answers = torch.cat([e * pairs.targets @ w.T, k * stays @ w.T, 0.5**0.5 * w.T])
        expected = torch.linalg.lstsq(read, answers).solution.T
        # M is cut where a millionth of its energy is left.
        torch.testing.assert_close(found[name], expected, atol=3e-3 * float(w.abs().max()), rtol=0)


def test_what_nothing_keeps_goes_all_the_way_and_what_is_kept_stays():
    eye = torch.eye(D, dtype=torch.float64)
    pairs = Pairs(10 * eye[:1], 10 * eye[1:2])
    kept = 1e6 * torch.diag(torch.cat([torch.zeros(1), torch.ones(D - 1)]).double())
    found = edited(pairs, kept, UceSettings(stay=1e-6))
    for name, w in weights().items():
        torch.testing.assert_close(found[name][:, 0], w[:, 1], atol=1e-5, rtol=0)
        torch.testing.assert_close(found[name][:, 1:], w[:, 1:], atol=1e-5, rtol=0)
    same = edited(pairs, kept + 1e9 * eye, UceSettings())
    assert all(torch.allclose(same[name], w, atol=1e-5) for name, w in weights().items())


def test_the_way_is_told_as_a_share():
    pairs, gram = Pairs(random(3, D), random(3, D, seed=1)), torch.eye(D, dtype=torch.float64)
    none = torch.zeros(D, 0, dtype=torch.float64)
    assert pairs.way(none, none.T, gram) == pytest.approx(0)
    near, far = (
        pairs.way(*feature_map(pairs, torch.zeros(D, D), UceSettings(stay=stay)), gram)
        for stay in (1e-6, 10.0)
    )
    assert near == pytest.approx(1, abs=2e-3) and 0 < far < near


def test_the_change_is_w_m_and_of_low_rank():
    pairs = Pairs(random(3, D), random(3, D, seed=1))
    first, second = feature_map(pairs, torch.eye(D), UceSettings())
    assert first.shape == (D, 3) and second.shape == (3, D)
    change = erased(LAYOUT, weights(), first, second)
    for name, w in weights().items():
        up, down = change.added(name)
        expected = w @ first @ second
        torch.testing.assert_close(
            (up @ down).double(), expected, atol=2e-3 * float(expected.abs().max()), rtol=0
        )
        assert change.moved(name).all()
    assert "3 directions" in change.summary()


# --- which features are paired


class Reader:
    """A causal encoder of 12 tokens: each feature is the running sum of one-hot words, `+`-joined words being
    several tokens.
    """

    words = sorted({w for t in TEMPLATES for w in t.split()} | {"leo", "pard", "dog", "<end>", "<start>"})
    tokens = 12

    def __call__(self, prompts):
        cross, is_word = [], []
        for prompt in prompts:
            own = [piece for word in prompt.split() for piece in word.split("+")]
            row = ["<start>", *own, *["<end>"] * (self.tokens - 1 - len(own))]
            hot = torch.eye(len(self.words))[[self.words.index(word) for word in row]]
            cross.append(hot.cumsum(0))
            is_word.append([0 < i <= len(own) for i in range(self.tokens)])
        return TextFeatures(torch.stack(cross), None, torch.tensor(is_word))


def rows_of(prompt):
    return Reader()([prompt]).cross[0].double()


def test_rows_meet_from_the_last_token_of_the_word_on():
    pairs = paired(ToErase(("leo+pard",), ("dog",)), Reader())
    scale = len(TEMPLATES) ** 0.5
    features, targets = pairs.features * scale, pairs.targets * scale
    # "{}": start, leo, pard, ends; start, dog, ends. One row less than behind the longer word's last token.
    torch.testing.assert_close(features[:10], rows_of("leo+pard")[2:12])
    torch.testing.assert_close(targets[:10], rows_of("dog")[1:11])
    # "a {}": one further.
    torch.testing.assert_close(features[10:19], rows_of("a leo+pard")[3:12])
    torch.testing.assert_close(targets[10:19], rows_of("a dog")[2:11])


def test_with_nothing_instead_the_prompt_is_the_same_without_the_word():
    pairs = paired(ToErase(("dog",), ("",)), Reader())
    scale = len(TEMPLATES) ** 0.5
    torch.testing.assert_close(pairs.features[:11] * scale, rows_of("dog")[1:])
    torch.testing.assert_close(pairs.targets[:11] * scale, rows_of("")[:11])
    place = TEMPLATES.index("a {} on a beach")
    before = sum(12 - 1 - len(t.partition("{}")[0].split()) for t in TEMPLATES[:place])
    rows = slice(before, before + 10)
    torch.testing.assert_close(pairs.features[rows] * scale, rows_of("a dog on a beach")[2:])
    torch.testing.assert_close(pairs.targets[rows] * scale, rows_of("a on a beach")[1:11])


def test_templates_are_filled_and_cut():
    assert named("dog")[TEMPLATES.index("the {} at night")] == "the dog at night"
    assert heads("dog")[TEMPLATES.index("the {} at night")] == "the dog"
    assert named("")[0] == "" and heads("")[TEMPLATES.index("a photo of a {}")] == "a photo of a"


# --- words


def test_words_and_what_is_there_instead():
    one = ToErase.of(" leopard \n\n snow   leopard", "")
    assert one.words == ("leopard", "snow leopard") and one.instead == ("", "")
    assert ToErase.of("a\nb", "cat").instead == ("cat", "cat")
    assert ToErase.of("a\nb", "cat\ndog").instead == ("cat", "dog")
    assert one.name == "without leopard and snow leopard"
    many = ToErase.of("\n".join(f"a thing of many words {i}" for i in range(9)), "")
    assert len(many.name) <= MAX_NAME_LENGTH and many.name.endswith("and 8 more")
    assert len(many.captions()) <= MAX_CAPTIONS
    assert all(any(word in caption for caption in many.captions()) for word in many.words)


@pytest.mark.parametrize(
    "words, instead, message",
    [
        ("", "", "no words to erase.*such as 'leopard'"),
        ("a\nb\nc", "d\ne", "3 words are to be erased, but 2"),
        ("<my-dog>", "", "Forget Concept takes learned tokens out"),
        ("x" * 65, "", "at most 64 characters"),
        ("a\nA", "", "given twice"),
        ("leopard", "Leopard", "led to itself"),
        ("\n".join(map(str, range(65))), "", "65 words are to be erased, expected at most 64"),
    ],
)
def test_words_that_cannot_be_are_told(words, instead, message):
    with pytest.raises(ValueError, match=message):
        ToErase.of(words, instead)


def test_prompts_that_name_the_word_are_not_protected():
    prompts = ("a Leopard, in snow", "two leopards", "a snow-leopard", "a cat", "")
    assert ToErase.of("leopard", "").spare(prompts) == prompts[1:]


# --- in a memory


def erasure(word="leopard", seed=0, **changes):
    ups, down = random(9, 2, seed=seed).half(), random(2, D, seed=seed + 1).float()
    what = ToErase.of(word, "")
    fields = {
        "name": what.name,
        "token": "",
        "class_word": "",
        "kind": ERASURE,
        "captions": what.captions(),
        "method": "uce",
        "change": ErasedChange(LAYOUT, ups, down),
        "token_vectors": {},
        "settings": {"erase": {"words": [word]}},
        "losses": {},
        "learned_at": "2026-01-01T00:00:00+00:00",
    }
    return LearnedConcept(**{**fields, **changes})


def learned(name, seed):
    change = DirectionsChange(
        LAYOUT, random(9, 2, seed=seed).half(), random(2, D, seed=seed).float(), torch.ones(2)
    )
    return LearnedConcept(
        name,
        f"<{name}>",
        "dog",
        "subject",
        (f"a photo of <{name}>",),
        "directions",
        change,
        {"clip_l": torch.ones(1, 4)},
        {},
        {"diffusion": torch.zeros(3)},
        "",
    )


def memory(*concepts):
    return ConceptMemory(BASE, LAYOUT, concepts)


FOUR = memory(learned("one", 3), erasure(), learned("two", 4), erasure("lion", 5))


def test_it_is_a_stage_and_goes_by_its_name():
    assert FOUR.stage("without leopard").names() == ["one", "without leopard"]
    assert list(FOUR.left()) == ["<one>", "without leopard", "<two>", "without lion"]
    assert FOUR.strengths("without lion 0.5, one 1") == {"without lion": 0.5, "<one>": 1.0}
    assert list(FOUR.token_vectors()) == ["<one>", "<two>"] == list(FOUR.class_words())
    assert FOUR.fault_of_tokens({"clip_l": 4}) is None
    assert "2. without leopard (erasure), 2 directions" in FOUR.summary()
    with pytest.raises(ValueError, match="No concept ''"):
        FOUR.concept("")
    with pytest.raises(ValueError, match="share a name"):
        FOUR.with_learned(erasure())


def test_taking_it_out_is_exact():
    rest = memory(learned("one", 3), learned("two", 4), erasure("lion", 5)).laid()
    done = forget(FOUR, "without leopard")
    assert done.exact and "what was erased is there again" in done.told()[0]
    for name, laid in done.memory.laid().items():
        assert torch.equal(laid.in_full(), rest[name].in_full())
    off = FOUR.laid({"without leopard": 0.0})
    assert all(torch.equal(off[name].in_full(), rest[name].in_full()) for name in rest)


def test_memories_with_erasures_are_merged():
    both = merged(memory(learned("one", 3), erasure()), memory(erasure(), erasure("lion", 5)))
    assert both.names() == ["one", "without leopard", "without lion"]
    with pytest.raises(ValueError, match=r"'without leopard'.*learned otherwise"):
        merged(both, memory(erasure(seed=9)))


def test_a_file_keeps_it(tmp_path):
    path = tmp_path / "m.safetensors"
    save_memory(path, FOUR)
    again = load_memory(path)
    assert again.digest() == FOUR.digest()
    found = again.concepts[1]
    assert (found.token, found.kind, found.token_vectors, found.vectors) == ("", ERASURE, {}, 0)
    assert found.captions == FOUR.concepts[1].captions and found.settings == FOUR.concepts[1].settings
    for name, laid in again.laid().items():
        assert torch.equal(laid.in_full(), FOUR.laid()[name].in_full())
    raw = path.read_bytes()
    (size,) = struct.unpack("<Q", raw[:8])
    card = json.loads(raw[8 : 8 + size])["__metadata__"]
    assert card["modelspec.trigger_phrase"] == "<one>, <two>"
    assert list(json.loads(card["ss_tag_frequency"])) == ["one", "two"]


@pytest.mark.parametrize(
    "entry, message",
    [
        ({"token": "<x>"}, "erasure, but its token is '<x>'; expected none"),
        ({"class_word": "dog"}, "erasure, but its class_word"),
        ({"encoders": ["clip_l"]}, "erasure, but its encoders"),
        ({"name": "<one>"}, "a name without < or >"),
        ({"captions": []}, "no captions"),
        ({"captions": [7]}, "expected text"),
        ({"method": "directions"}, "method 'directions'; this pack knows uce, esd"),
        ({"kind": "subject"}, "its token is empty"),
        ({"name": "without lion"}, "share a name"),
    ],
)
def test_forged_entries(tmp_path, entry, message):
    path = tmp_path / "m.safetensors"
    save_memory(path, FOUR)
    forge(path, lambda m: m["concepts"][1].update(entry))
    with pytest.raises(MemoryFileError, match=message):
        load_memory(path)


def test_a_learned_concept_cannot_pose_as_an_erasure(tmp_path):
    path = tmp_path / "m.safetensors"
    save_memory(path, FOUR)
    forge(path, lambda m: m["concepts"][0].update(method="uce"))
    with pytest.raises(MemoryFileError, match="method 'uce'; this pack knows"):
        load_memory(path)
    save_memory(path, FOUR)
    forge(
        path,
        lambda m: m["concepts"][0].update(kind=ERASURE, token="", class_word="", encoders=[], method="uce"),
    )
    with pytest.raises(MemoryFileError, match=r"unexpected tensors such as 'token\.clip_l'"):
        load_memory(path)


def forge(path, change):
    raw = path.read_bytes()
    (size,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + size])
    manifest = json.loads(header["__metadata__"]["cns_manifest"])
    change(manifest)
    header["__metadata__"]["cns_manifest"] = json.dumps(manifest)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + raw[8 + size :])


@pytest.mark.parametrize(
    "tensors, message",
    [
        ({"ups": torch.zeros(9, 2).half()}, "expected ups and down"),
        ({"ups": torch.zeros(9, 2), "down": torch.zeros(2, D)}, "ups is torch.float32"),
        (
            {"ups": torch.zeros(8, 2).half(), "down": torch.zeros(2, D)},
            r"ups is .*\(8, 2\); expected .*\(9, 2\)",
        ),
        ({"ups": torch.zeros(9, 2).half(), "down": torch.zeros(2, D + 1)}, "down is"),
        ({"ups": torch.zeros(9, 2).half(), "down": torch.full((2, D), float("nan"))}, "not finite"),
    ],
)
def test_forged_tensors(tensors, message):
    with pytest.raises(ValueError, match=message):
        ErasedChange.read(LAYOUT, tensors)


def test_later_concepts_leave_the_erased_words_alone(toy, toy_material):
    """They are protected as they are now: as an earlier concept's captions, and as a class word."""
    change = ErasedChange(toy.layout, torch.zeros(192, 0).half(), torch.zeros(0, 24))
    gone = erasure("word2", change=change, captions=("a photo of word2", "the word2"))
    before = ConceptMemory(BASE, toy.layout, (gone,))
    protected = protect(toy_material(toy, ["a photo of word1"], 4, before), Protection())
    features = toy.encode(gone.captions, None).cross
    expected = second_moment(features, 24)
    assert list(protected.earlier) == ["without word2"]
    torch.testing.assert_close(protected.earlier["without word2"], expected)
    torch.testing.assert_close(protected.earlier_class_words, expected)
    protected.check(before)


def test_the_matrix_has_a_stage_for_it_and_nothing_to_draw():
    grid = Grid.of(FOUR, "a photo of {}", "a leopard", MatrixSettings(pictures=1))
    assert grid.stages == 4 and grid.drawn() == [1, 3]
    cells = grid.cells()
    assert {cell.stage for cell in cells} == {0, 1, 2, 3, 4}
    assert {cell.prompt for cell in cells} == {
        "a leopard",
        "a photo of dog",
        "a photo of <one>",
        "a photo of <two>",
    }
    one = torch.ones(1)
    scores = score(grid, dict.fromkeys(cells, one), dict.fromkeys(grid.texts(), one), {})
    assert [(c.name, c.learned) for c in scores.clip_t.concepts] == [("<one>", 1), ("<two>", 3)]
    with pytest.raises(ValueError, match="holds 0 concepts"):
        Grid.of(memory(erasure()), "a photo of {}", "", MatrixSettings())


def test_its_digest_tells_words_and_weights_apart():
    others = (erasure("lion"), erasure(seed=3), dataclasses.replace(erasure(), captions=("leopard",)))
    assert len({memory(one).digest() for one in (erasure(), *others)}) == 4
