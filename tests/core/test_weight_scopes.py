"""Methods that move more of the U-Net than keys and values, and memories that hold both kinds."""

from itertools import pairwise

import pytest
import torch

from cns_core.forget import forget
from cns_core.identity import ModelIdentity
from cns_core.memory import ConceptMemory, LearnedConcept
from cns_core.memory_file import MemoryFileError, load_memory, save_memory
from cns_core.methods import METHODS
from cns_core.methods.adapters.change import AdapterChange
from cns_core.methods.adapters.forms import LohaForm, LokrForm, LoraForm
from cns_core.methods.dense_kv import DenseChange
from cns_core.methods.oft import OftAdaptation, OftTraining, Turned
from cns_core.settings import TrainSettings
from cns_core.training import ConceptTrainer, LatentImage, TrainingData
from cns_core.weight_scopes import ATTENTION, EVERYTHING, LINEAR, SCOPES, state_dict_key, weights_in
from cns_core.within import start

BASE = ModelIdentity("toy", "0")
SHAPES = {
    "in.weight": (8, 4, 3, 3),
    "in.bias": (8,),
    "norm.weight": (8,),
    "b.attn1.to_q.weight": (8, 8),
    "b.attn1.to_out.0.weight": (8, 8),
    "b.attn1.to_out.0.bias": (8,),
    "b.attn2.to_k.weight": (8, 6),
    "b.attn2.to_v.weight": (8, 6),
    "b.ff.weight": (32, 8),
}


def test_each_scope_holds_the_one_before():
    found = [set(weights_in(SHAPES, scope).names) for scope in SCOPES]
    assert [len(names) for names in found] == [2, 2, 4, 5, 6, 9]
    assert all(smaller <= larger for smaller, larger in pairwise(found))


def test_weights_are_matrices_and_keep_their_names():
    everything = weights_in(SHAPES, EVERYTHING)
    assert {state_dict_key(name) for name in everything.names} == set(SHAPES)
    assert everything.shape("in") == (8, 36) and everything.shape("in.bias") == (8, 1)


@pytest.mark.parametrize("form", [LoraForm(), LohaForm(), LokrForm()], ids=lambda form: form.name)
def test_an_adapter_is_the_product_of_its_formula(form):
    g = torch.Generator().manual_seed(0)
    p = form.start((12, 20), 3, g)
    assert not p[form.zero].any(), "it starts from nothing"
    p = {name: torch.randn(t.shape, generator=g, dtype=torch.float64) for name, t in p.items()}
    up, down = form.factors(p)
    expected = {
        "lora": lambda: p["up"] @ p["down"],
        "loha": lambda: (p["w1_a"] @ p["w1_b"]) * (p["w2_a"] @ p["w2_b"]),
        "lokr": lambda: torch.kron(p["w1"], p["w2_a"] @ p["w2_b"]),
    }[form.name]()
    torch.testing.assert_close(up @ down, expected)


def test_a_turned_matrix_keeps_lengths_and_angles_of_its_blocks():
    layout = weights_in(SHAPES, ATTENTION)
    g = torch.Generator().manual_seed(1)
    weights = {n: torch.randn(s, generator=g) for n, s, _ in layout.slices()}
    memory = ConceptMemory(BASE, weights_in(SHAPES, "keys and values"))
    prepared = Turned(layout, weights)
    adaptation = start(METHODS["oft"], prepared, memory, OftTraining(blocks=2), torch.device("cpu"))
    with torch.no_grad():
        for turn in adaptation.turns.values():
            turn.copy_(torch.randn(turn.shape, generator=g))
    for name, function in adaptation.weight_functions().items():
        turned = function(weights[name]).detach()
        for before, after in zip(weights[name].split(4), turned.split(4), strict=True):
            torch.testing.assert_close(after.T @ after, before.T @ before)  # R^T R = 1
        assert (turned - weights[name]).norm() > 0.5 * weights[name].norm()
        kept = adaptation.learned().tensors()[name].float()
        torch.testing.assert_close(weights[name] + kept, turned, atol=5e-3, rtol=2e-3)


@pytest.mark.parametrize(("rows", "factors"), [(32, 4), (24, 2), (12, 1)])
def test_butterfly_factors_mix_rows_that_a_block_keeps_apart(rows, factors):
    """Blocks of 4 mix all of 32 rows, of 24 as far as these can be halved; blocks of 3 have no halves."""
    layout = weights_in({f"b.attn2.to_{x}.weight": (rows, 5) for x in "kv"}, "keys and values")
    g = torch.Generator().manual_seed(3)
    weights = {n: torch.randn(s, generator=g) for n, s, _ in layout.slices()}
    settings = OftTraining(blocks=rows // 4 if rows > 12 else 4, factors=4)
    adaptation = OftAdaptation(Turned(layout, weights), ConceptMemory(BASE, layout), settings)
    name = layout.names[0]
    turn = adaptation.turns[name]
    assert len(turn) == factors
    with torch.no_grad():
        turn.copy_(torch.randn(turn.shape, generator=g))
    turned = adaptation.weight_functions()[name](torch.eye(rows)).detach()
    torch.testing.assert_close(turned.T @ turned, torch.eye(rows), atol=1e-5, rtol=1e-5)
    reached = (turned[:, 0].abs() > 1e-6).sum()
    assert reached == min(rows, turn.shape[2] * 2 ** (factors - 1))


def test_constrained_turns_stay_short():
    layout = weights_in({"b.attn2.to_k.weight": (8, 6), "b.attn2.to_v.weight": (8, 6)}, "keys and values")
    weights = {n: torch.randn(s) for n, s, _ in layout.slices()}
    free, held = (
        OftAdaptation(Turned(layout, weights), ConceptMemory(BASE, layout), OftTraining(constraint=c))
        for c in (0.0, 1e-3)
    )
    moved = []
    for adaptation in (free, held):
        with torch.no_grad():
            for turn in adaptation.turns.values():
                turn.copy_(torch.randn(turn.shape, generator=torch.Generator().manual_seed(2)))
        name = layout.names[0]
        turned = adaptation.weight_functions()[name](weights[name]).detach()
        moved.append(float((turned - weights[name]).norm()))
    assert moved[1] < 0.05 * moved[0]


def train(toy, toy_material, method, memory, number, selection=None):
    """One more concept by a method, after two steps."""
    material = toy_material(toy, ["a photo of word1"], 6, memory)
    prepared = method.prepare(material, selection or method.Selection())
    adaptation = start(method, prepared, memory, method.Training(weight_lr=1e-2), torch.device("cpu"))
    g = torch.Generator().manual_seed(number)
    image = LatentImage(torch.randn(2, 4, 4, generator=g), ("a photo of <new>",), ("a photo of word1",))
    settings = TrainSettings(steps=2, batch_size=2, token_lr=1e-2, prior="none")
    trainer = ConceptTrainer(toy, TrainingData((image,)), adaptation, {"toy": torch.zeros(1, 24)}, settings)
    trainer.run()
    token = f"<c{number}>"
    concept = LearnedConcept(
        f"c{number}",
        token,
        "word1",
        "subject",
        (f"a photo of {token}",),
        method.name,
        adaptation.learned(),
        trainer.state().token_vectors,
        {},
        {},
        "now",
    )
    return memory.with_learned(concept), adaptation


@pytest.fixture
def mixed(toy, toy_material):
    """First linear layers, then K/V alone, then all of the U-Net."""
    memory = ConceptMemory(BASE, toy.layout)
    lora, dense, dreambooth = METHODS["lora"], METHODS["all K/V"], METHODS["dreambooth"]
    linear = lora.Selection(weights=LINEAR)
    stages = [memory]
    for number, (method, selection) in enumerate([(lora, linear), (dense, None), (dreambooth, None)]):
        memory, adaptation = train(toy, toy_material, method, memory, number, selection)
        stages.append(memory)
    return stages, adaptation


def test_a_method_of_keys_and_values_trains_on_top_of_all_that_was_learned(toy, toy_material, mixed):
    stages, _ = mixed
    method = METHODS["all K/V"]
    material = toy_material(toy, ["a photo of word1"], 6, stages[1])
    prepared = method.prepare(material, method.Selection())
    adaptation = start(method, prepared, stages[1], method.Training(), torch.device("cpu"))
    changes = stages[1].changes()
    functions = adaptation.weight_functions()
    assert set(functions) == {name for name, change in changes.items() if change.any()} | set(
        toy.layout.names
    )
    for name, function in functions.items():
        weight = toy.weights[state_dict_key(name)]
        expected = weight + changes[name].float().view_as(weight)
        assert torch.equal(function(weight), expected), name


def test_one_memory_holds_both_kinds_and_a_file_keeps_them(toy, mixed, tmp_path):
    stages, adaptation = mixed
    memory = stages[-1]
    assert set(memory.whole.names) > set(toy.layout.names)
    # The last one was trained on all of it, so what is drawn is what it left.
    left = adaptation.learned()
    assert all(torch.equal(memory.changes()[name], left.tensors()[name]) for name in left.layout.names)
    save_memory(tmp_path / "m.safetensors", memory)
    again = load_memory(tmp_path / "m.safetensors")
    assert again.digest() == memory.digest()
    for number, stage in enumerate(stages):
        changes = again.stage(number).changes()
        assert all(torch.equal(change, changes[name]) for name, change in stage.changes().items())


def test_forgetting_tells_what_stays_where_kinds_meet(mixed):
    stages, _ = mixed
    assert forget(stages[1], "c0").exact
    forgotten = forget(stages[2], "c0")  # the second took the place of its keys and values
    kv = stages[0].layout.total
    assert (forgotten.exact, forgotten.later) == (False, kv)
    assert forgotten.own == stages[1].concepts[0].change.layout.total - kv
    rest = forgotten.memory.changes()
    assert all(not change.any() for name, change in rest.items() if name not in stages[0].layout)


def test_weights_of_another_model_are_refused(mixed, toy, tmp_path):
    memory = mixed[0][-1]
    unet = weights_in({n: w.shape for n, w in toy.weights.items()}, EVERYTHING)
    memory.check_fits(toy.layout, unet, {"toy": 24})
    with pytest.raises(ValueError, match="the model has no weight"):
        memory.check_fits(toy.layout, toy.layout, {"toy": 24})
    wide = weights_in({**SHAPES, "blocks.0.attn2.to_k.weight": (5, 5)}, EVERYTHING)
    strange = DenseChange(wide, {n: torch.zeros(s, dtype=torch.float16) for n, s, _ in wide.slices()})
    concept = memory.concepts[0]
    with pytest.raises(ValueError, match="another model"):
        ConceptMemory(BASE, toy.layout, (LearnedConcept(**{**vars(concept), "change": strange}),))


def test_an_adapter_of_a_wrong_shape_is_refused(tmp_path):
    layout, form = weights_in(SHAPES, ATTENTION), LoraForm()
    part = {
        n: {p: t.half() for p, t in form.start(s, 2, torch.Generator()).items()}
        for n, s, _ in layout.slices()
    }
    tensors = AdapterChange(form, layout, (part,)).tensors()
    for key, wrong in (
        ("0.b.attn1.to_q.up", torch.zeros(8, 3).half()),
        ("0.b.attn1.to_q.up", torch.zeros(8, 2)),
        ("0.b.attn1.to_q.down", torch.full((2, 8), torch.nan).half()),
        ("0.b.attn1.to_q.more", torch.zeros(1).half()),
        ("parts", torch.tensor([2])),
        ("parts", torch.tensor([10**9])),
    ):
        with pytest.raises(ValueError):
            AdapterChange.read(form, layout, {**tensors, key: wrong})


def test_a_file_cannot_name_weights_that_it_does_not_hold(mixed, tmp_path):
    path = tmp_path / "m.safetensors"
    save_memory(path, mixed[0][1])
    content = path.read_bytes()
    changed = content.replace(rb"[\"out\", 2, 32]", rb"[\"out\", 9, 32]")
    assert changed != content
    path.write_bytes(changed)
    with pytest.raises(MemoryFileError):
        load_memory(path)
