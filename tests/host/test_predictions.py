"""The backend's prediction is the network's own output, for noise and v models;
other precisions and families.
"""

import pytest
import torch


@pytest.fixture(scope="module")
def modules(pack):
    import asyncio

    asyncio.run(pack.comfy_entrypoint())
    from ComfyUI_CNS.cns_core.host import backend, model

    return backend, model


@pytest.mark.parametrize("sampling", ["eps", "v_prediction"])
@pytest.mark.parametrize("t", [0, 300, 999])
def test_the_prediction_is_the_networks_output(modules, random_model, float32, sampling, t):
    from comfy_extras.nodes_model_advanced import ModelSamplingDiscrete

    backend_module, model_module = modules
    (patched,) = ModelSamplingDiscrete().patch(random_model.model, sampling, zsnr=False)
    assert model_module.noise_levels(patched).prediction_type == (
        "v" if sampling == "v_prediction" else "epsilon"
    )
    generator = torch.Generator().manual_seed(1)
    z, steps = torch.randn(2, 4, 8, 8, generator=generator), torch.tensor([t, t])
    with backend_module.training_mode(), torch.no_grad():
        vectors = {"clip_l": torch.zeros(1, 768)}
        backend = backend_module.HostBackend(patched, random_model.clip, "<x>", vectors, {}, float32)
        with backend.weights_patched({}):
            features = backend.encode(["a photo of a dog", "<x>"], vectors)
            got = backend.predict(z, steps, features)
            network = backend.model.model.diffusion_model
            raw = network(z, steps.float(), context=features.cross, transformer_options={})
    torch.testing.assert_close(got, raw, atol=5e-3 if t == 0 else 2e-4, rtol=1e-3)


class Along:
    """`f(W) -> rest(W) + up down`, in two parts."""

    def __init__(self, up, down, rest):
        self.up, self.down, self.rest = up, down, rest

    def products(self):
        return [(self.up[:, :1], self.down[:1]), (self.up[:, 1:], self.down[1:])]

    def __call__(self, weight):
        return (weight if self.rest is None else self.rest(weight)) + self.up @ self.down


def test_a_product_is_added_to_what_a_module_puts_out(modules, random_model, float32):
    """It predicts and learns as with the same product in the weight; afterwards nothing is left of it."""
    backend_module, model_module = modules
    model = random_model.model
    layout = model_module.read_base(model, random_model.clip).layout
    generator = torch.Generator().manual_seed(1)
    z, steps = torch.randn(2, 4, 8, 8, generator=generator), torch.tensor([100, 700])
    found = []
    with backend_module.training_mode():
        vectors = {"clip_l": torch.zeros(1, 768, requires_grad=True)}
        down = torch.randn(3, layout.shapes[0][1], generator=generator) / 30
        ups = {n: torch.randn(out, 3, generator=generator) / 30 for n, (out, _), _ in layout.slices()}
        for up in ups.values():
            up.requires_grad_()
        first = layout.names[0]  # with something earlier beneath it
        rests = {first: lambda weight: weight + 0.01}
        parted = {name: Along(up, down, rests.get(name)) for name, up in ups.items()}
        whole = {name: lambda weight, f=function: f(weight) for name, function in parted.items()}
        backend = backend_module.HostBackend(model, random_model.clip, "<x>", vectors, {}, float32)
        leaves = [*ups.values(), *vectors.values()]
        for functions in ({}, whole, parted):
            with backend.weights_patched(functions):
                predicted = backend.predict(z, steps, backend.encode(["a photo of a dog", "<x>"], vectors))
                gradients = torch.autograd.grad(predicted.square().mean(), leaves, allow_unused=True)
                found.append((predicted.detach(), gradients))
        with pytest.raises(KeyError), backend.weights_patched(parted):
            raise KeyError
    plain, (predicted, gradients), (again, gradients_again) = found
    assert not torch.allclose(plain[0], predicted, atol=1e-3)
    torch.testing.assert_close(again, predicted, atol=1e-4, rtol=1e-3)
    for one, other in zip(gradients, gradients_again, strict=True):
        torch.testing.assert_close(one, other, atol=1e-3 * float(one.abs().max()), rtol=1e-2)
    for module in model.model.diffusion_model.modules():
        assert not module._forward_hooks and not getattr(module, "weight_function", None)


def test_noise_is_added_as_the_host_does(modules, random_model):
    _, model_module = modules
    levels = model_module.noise_levels(random_model.model)
    sampling = random_model.model.get_model_object("model_sampling")
    generator = torch.Generator().manual_seed(1)
    z0, noise = (torch.randn(3, 4, 8, 8, generator=generator) for _ in range(2))
    t = torch.tensor([0, 500, 999])
    sigma = sampling.sigmas[t]
    host = sampling.noise_scaling(sigma.reshape(-1, 1, 1, 1), noise.clone(), z0.clone())
    network_input = sampling.calculate_input(sigma, host)
    torch.testing.assert_close(levels.add_noise(z0, noise, t), network_input, atol=1e-5, rtol=1e-4)


def test_flow_models_are_refused(modules, random_model):
    from comfy_extras.nodes_model_advanced import ModelSamplingSD3

    (flow,) = ModelSamplingSD3().patch(random_model.model, shift=3.0)
    with pytest.raises(ValueError, match="only noise \\(eps\\) and v prediction"):
        modules[1].check_trainable(flow, random_model.clip)


def test_an_fp8_base_trains(modules, comfy, small_checkpoint, random_model):
    """The host computes in a wider type; gradients reach what is learned,
    and the fp8 weights stay as they are.
    """
    from ComfyUI_CNS.cns_core.memory import ConceptMemory
    from ComfyUI_CNS.cns_core.methods import METHODS

    from random_checkpoint import SMALL_TEXT_OPTIONS

    with torch.inference_mode():
        model, *_ = comfy.sd.load_checkpoint_guess_config(
            str(small_checkpoint),
            output_vae=False,
            output_clip=False,
            te_model_options=SMALL_TEXT_OPTIONS,
            model_options={"dtype": torch.float8_e4m3fn},
        )
    assert model.model_dtype() == torch.float8_e4m3fn
    backend_module, model_module = modules
    base = model_module.read_base(model, random_model.clip)
    layout = base.layout
    before = {n: w.clone().view(torch.uint8) for n, w in model_module.weights_of(model, layout).items()}
    with backend_module.training_mode():
        vectors = {"clip_l": torch.zeros(1, 768)}
        backend = backend_module.HostBackend(model, random_model.clip, "<x>", vectors, {})
        dense, nothing = METHODS["all K/V"], ConceptMemory(base.identity, layout)
        adaptation = dense.start(None, nothing, dense.Training(), backend.device)
        with backend.weights_patched(adaptation.weight_functions()):
            features = backend.encode(["<x>"], vectors)
            z = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
            backend.predict(z, torch.tensor([500]), features).square().mean().backward()
    for change in adaptation.changes.values():
        assert change.grad.abs().max() > 0 and torch.isfinite(change.grad).all()
    after = model_module.weights_of(model, layout)
    assert all(torch.equal(after[n].view(torch.uint8), w) for n, w in before.items())


def test_latents_carry_no_graph_outside_the_hosts_inference_mode(
    comfy, modules, random_model, small_checkpoint
):
    from ComfyUI_CNS.cns_core.host.latents import encode_pixels
    from ComfyUI_CNS.cns_core.host.types import Loaded

    _, _, vae, _ = comfy.sd.load_checkpoint_guess_config(
        str(small_checkpoint), output_vae=True, output_clip=False, output_model=False
    )
    assert any(parameter.requires_grad for parameter in vae.first_stage_model.parameters())
    assert not encode_pixels(
        Loaded(random_model.model, random_model.clip, vae), torch.rand(1, 64, 64, 3)
    ).requires_grad
