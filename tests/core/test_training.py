"""The loop on the toy U-Net: what moves, what does not, seeds, stopping, resuming, diverging."""

import math
from dataclasses import replace

import pytest
import torch

from cns_core.checkpoint import CheckpointError, load_state, save_state
from cns_core.identity import ModelIdentity
from cns_core.memory import ConceptMemory
from cns_core.methods.cns.adaptation import CnsAdaptation
from cns_core.methods.cns.masks import NeuronMask
from cns_core.methods.cns.settings import CnsTraining
from cns_core.priors import KeptPool
from cns_core.settings import TrainSettings
from cns_core.training import ConceptTrainer, LatentImage, TrainingData, TrainingDivergedError

VECTORS = {"toy": torch.linspace(-1, 1, 24)[None]}


class Stop(BaseException):
    """Stands for the host's Cancel, which is no Exception on newer hosts."""


def some_mask(layout, share=0.1, seed=3):
    g = torch.Generator().manual_seed(seed)
    return NeuronMask.from_dense(
        layout, {n: torch.rand(s, generator=g) < share for n, s, _ in layout.slices()}
    )


def data(sizes=((4, 4),), masks=False):
    g = torch.Generator().manual_seed(7)
    images = tuple(
        LatentImage(
            torch.randn(2, *size, generator=g),
            ("a photo of <new>", "the <new>"),
            ("a photo of word1", "the word1"),
            torch.ones(1, *size) if masks else None,
        )
        for size in sizes
        for _ in range(2)
    )
    prompts = ["a photo of word1"] * 3
    pools = {size: KeptPool(torch.randn(3, 2, *size, generator=g), [None] * 3, prompts) for size in sizes}
    return TrainingData(images, pools)


def neurons(toy, mask=None, **settings):
    nothing = ConceptMemory(ModelIdentity("toy", "0"), toy.layout)
    training = CnsTraining(**{"neuron_lr": 1e-2, **settings})
    return CnsAdaptation(mask or some_mask(toy.layout), nothing, training)


def trainer(toy, settings, resume=None, mask=None, **kwargs):
    return ConceptTrainer(toy, data(**kwargs), neurons(toy, mask), VECTORS, settings, resume)


def settings(**changes):
    return TrainSettings(**{"steps": 6, "batch_size": 2, "token_lr": 1e-2, "seed": 5, **changes})


def same(a, b):
    return (
        torch.equal(a.adaptation["values"], b.adaptation["values"])
        and all(torch.equal(a.token_vectors[n], b.token_vectors[n]) for n in a.token_vectors)
        and a.losses == b.losses
        and torch.equal(a.generator, b.generator)
        and a.optimizer.keys() == b.optimizer.keys()
        and all(torch.equal(a.optimizer[n], b.optimizer[n]) for n in a.optimizer)
    )


def test_outside_the_mask_everything_is_bit_identical(toy):
    before = {n: p.clone() for n, p in toy.unet.state_dict().items()}
    table = toy.table.weight.clone()
    t = trainer(toy, settings())
    t.run()
    seen = {}
    names = toy.layout.names
    with toy.weights_patched(t.adaptation.weight_functions()):
        for name in names:
            seen[name] = toy.unet.get_submodule(name).weight.detach().clone()
    for name in names:
        inside = t.adaptation.mask.dense(name)
        assert torch.equal(seen[name][~inside], before[name + ".weight"][~inside])
        assert (seen[name][inside] != before[name + ".weight"][inside]).all()
    assert torch.equal(toy.table.weight, table)
    assert all(torch.equal(p, before[n]) for n, p in toy.unet.state_dict().items())
    assert not any(hasattr(m, "parametrizations") for m in toy.unet.modules())


def test_a_run_that_is_asked_to_stop_ends_as_if_that_step_were_its_last(toy):
    whole, asked, reports = trainer(toy, settings(steps=3)), [], []
    whole.run()
    t = trainer(toy, settings())

    def stop_asked():
        asked.append(t.step)
        return t.step == 3

    t.run(reports.append, stop_asked)
    assert asked == [1, 2, 3] and [r.step for r in reports] == [1, 2, 3]
    assert same(t.state(), whole.state())  # at a constant learning rate the number of steps decides nothing
    t.run(reports.append)  # nothing is left behind: it can go on
    assert t.step == 6 and [r.step for r in reports] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"prior": "drawn class images", "gradient_accumulation": 2},
        {"prior": "none", "lr_schedule": "cosine", "warmup_steps": 2, "min_snr_gamma": 5.0},
        {"masked_loss": True},
    ],
)
def test_resuming_equals_never_stopping_bit_for_bit(toy, tmp_path, changes):
    whole = trainer(toy, settings(**changes))
    whole.run()
    first = trainer(toy, settings(**changes))

    def stop(report):
        if report.step == 3:
            raise Stop

    with pytest.raises(Stop):
        first.run(stop)
    assert first.step == 3
    save_state(tmp_path / "c.safetensors", first.state(), "key")
    second = trainer(toy, settings(**changes), resume=load_state(tmp_path / "c.safetensors", "key"))
    second.run()
    assert same(second.state(), whole.state())


def test_a_stop_in_the_middle_of_a_step_loses_only_that_step(toy):
    whole = trainer(toy, settings())
    whole.run()
    first = trainer(toy, settings())
    calls, predict = [], toy.predict

    def interrupted(*args):
        calls.append(1)
        if len(calls) == 8:  # two predictions a step: the student's of step 4
            raise Stop
        return predict(*args)

    toy.predict = interrupted
    with pytest.raises(Stop):
        first.run()
    toy.predict = predict
    assert first.step == 3
    second = trainer(toy, settings(), resume=first.state())
    second.run()
    assert same(second.state(), whole.state())


def test_the_seed_decides_and_the_global_generator_is_left_alone(toy):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    runs = [trainer(toy, settings(seed=s)) for s in (5, 5, 6)]
    for run in runs:
        run.run()
        torch.manual_seed(99 + run.settings.seed)
    torch.set_rng_state(before)
    assert same(runs[0].state(), runs[1].state()) and not same(runs[0].state(), runs[2].state())
    again = torch.get_rng_state()
    trainer(toy, settings()).run()
    assert torch.equal(again, torch.get_rng_state())


def test_a_nan_goes_back_to_the_last_good_values_and_says_what_to_lower(toy):
    t = trainer(toy, settings(steps=60))
    kept = {}

    def watch(report):
        kept[report.step] = t.state()
        if report.step == 40:
            with torch.no_grad():
                t.adaptation.values.fill_(float("nan"))

    with pytest.raises(
        TrainingDivergedError, match=r"nan at step 41 of 60.*step 25.*neuron learning rate \(now 0\.01\)"
    ):
        t.run(watch)
    assert same(t.state(), kept[25])


def test_reports(toy):
    reports = []
    trainer(toy, settings(prior_weight=0.5)).run(reports.append)
    assert [r.step for r in reports] == [1, 2, 3, 4, 5, 6] and {r.steps for r in reports} == {6}
    for r in reports:
        assert set(r.losses) == {"diffusion", "prior", "L_reg"}
        weighed = r.losses["diffusion"] + 0.5 * r.losses["prior"] + r.losses["L_reg"]
        assert r.loss == pytest.approx(weighed, rel=1e-5)
        assert set(r.gradient_norms) == {"neurons", "token"} and min(r.gradient_norms.values()) > 0
        assert r.seconds > 0
    assert reports[0].losses["prior"] < 1e-12  # nothing moved yet, so the image-free target is met


def test_the_names_of_the_losses_come_from_prior_and_method(toy):
    reports = []
    trainer(toy, settings(prior="none", steps=1)).run(reports.append)
    assert list(reports[0].losses) == ["diffusion", "L_reg"]


def test_accumulation_equals_a_larger_batch_of_one_image(toy):
    one = TrainingData(data().images[:1])

    class Fixed(ConceptTrainer):
        def pick(self, below):
            return 0

    def run(batch, accumulate):
        s = settings(steps=1, batch_size=batch, gradient_accumulation=accumulate, prior="none")
        t = Fixed(toy, one, neurons(toy, keep_base=0.0), VECTORS, s)
        captured = []
        add = toy.levels.add_noise
        noise = torch.randn(2, 2, 4, 4, generator=torch.Generator().manual_seed(1))
        steps = torch.tensor([3, 30])
        counter = iter([slice(0, 1), slice(1, 2)] if batch == 1 else [slice(0, 2)])

        class Levels:
            def __init__(self, inner):
                self.inner = inner

            def __len__(self):
                return len(self.inner)

            def add_noise(self, z0, _noise, _t):
                self.part = next(counter)
                return add(z0, noise[self.part], steps[self.part])

            def target(self, z0, _noise, _t):
                return noise[self.part]

            min_snr_weight = staticmethod(lambda t, gamma: torch.ones(len(t)))

        levels, toy.levels = toy.levels, Levels(toy.levels)
        predict = toy.predict
        toy.predict = lambda z, t, f, _: toy.unet(z, levels.alphas_cumprod[steps[toy.levels.part]], f.cross)
        try:
            t.run(lambda r: captured.append(t.adaptation.values.grad.clone()))
        finally:
            toy.levels, toy.predict = levels, predict
        return captured[0]

    torch.testing.assert_close(run(1, 2), run(2, 1))


def test_buckets_never_mix_in_a_batch(toy):
    seen = []
    predict, toy.unet_shape = toy.predict, None

    def watch(z, t, f, framings):
        seen.append(tuple(z.shape[2:]))
        return torch.zeros_like(z) + f.cross.mean() + sum(w.sum() * 0 for w in [toy.unet.out.weight])

    toy.predict = watch
    trainer(toy, settings(steps=20, prior="drawn class images"), sizes=((4, 4), (2, 8))).run()
    toy.predict = predict
    assert set(seen) == {(4, 4), (2, 8)}


def test_missing_class_images_are_an_error_before_training(toy):
    d = TrainingData(data().images)
    with pytest.raises(ValueError, match="needs class images of latent sizes"):
        ConceptTrainer(toy, d, neurons(toy), VECTORS, settings(prior="drawn class images"))


def test_nothing_to_learn_with_is_an_error_before_training(toy):
    with pytest.raises(
        ValueError, match=r"Every .* is 0.*set the neuron learning rate or the token .* above 0"
    ):
        ConceptTrainer(toy, data(), neurons(toy, neuron_lr=0.0), VECTORS, settings(token_lr=0.0))


def test_a_checkpoint_of_another_run_or_a_damaged_one_is_refused(toy, tmp_path):
    t = trainer(toy, settings())
    path = tmp_path / "c.safetensors"
    save_state(path, t.state(), "key")
    with pytest.raises(ValueError, match="no checkpoint of this run"):
        load_state(path, "other")
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ValueError, match="damaged"):
        load_state(path, "key")
    with pytest.raises(CheckpointError, match=r"another run: of the neurons, values is .*\(473,\).*\(954,\)"):
        trainer(toy, settings(), resume=t.state(), mask=some_mask(toy.layout, 0.2))


def test_a_checkpoint_whose_numbers_were_changed_is_refused(toy, tmp_path):
    t = trainer(toy, settings())
    path = tmp_path / "c.safetensors"
    state = t.state()
    save_state(path, replace(state, adaptation={"values": state.adaptation["values"] * math.nan}), "key")
    with pytest.raises(CheckpointError, match=r"some of adaptation.values are not finite"):
        load_state(path, "key")
    save_state(path, state, "key")
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="is not as it was written"):
        load_state(path, "key")


def test_a_checkpoint_of_other_parts_is_refused_and_changes_nothing(toy):
    t = trainer(toy, settings())
    t.run(lambda report: None)
    state = t.state()
    for other, message in (
        ({"token_vectors": {"clip_x": torch.zeros(1, 4)}}, "the token's vectors, clip_"),
        ({"generator": torch.zeros(3, dtype=torch.uint8)}, "the generator"),
        ({"optimizer": {n: v[:1] if v.ndim else v for n, v in state.optimizer.items()}}, "Adam's moments"),
        ({"losses": {"other": (0.5,)}}, "its losses are of"),
        ({"losses": {"diffusion": (0.5,), "L_reg": ()}}, "its losses are of"),
        ({"losses": {"diffusion": (0.5,) * 10**4}}, "its losses are of"),
    ):
        fresh = neurons(toy)
        before = fresh.values.detach().clone()
        with pytest.raises(CheckpointError, match=message):
            ConceptTrainer(toy, data(), fresh, VECTORS, settings(), resume=replace(state, **other))
        assert fresh.values.equal(before)


@pytest.mark.parametrize(
    "bad",
    [
        {"steps": 0},
        {"token_lr": float("nan")},
        {"prior": "hope"},
        {"warmup_steps": 501},
        {"seed": -1},
        {"batch_size": 0},
        {"batch_size": 65},
        {"lr_schedule": "linear"},
    ],
)
def test_impossible_settings_are_refused_when_made(bad):
    with pytest.raises(ValueError, match=next(iter(bad)).replace("_", ".")):
        TrainSettings(**bad)


def test_settings_round_trip_and_misspelt_keys():
    s = TrainSettings(steps=7, prior="none")
    assert TrainSettings(**s.as_dict()) == s
    with pytest.raises(TypeError, match="tokne_lr"):
        TrainSettings(tokne_lr=1)
