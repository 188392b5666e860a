"""Priors: what they ask for before any work, and the half of a batch that each of them adds."""

import pytest
import torch

from cns_core.framing import Framing
from cns_core.priors import PRIORS, KeptPool, NoisedBatch
from cns_core.schedule import NoiseLevels
from cns_core.settings import TrainSettings, described
from cns_core.text_features import TextFeatures

PICTURES = torch.rand(2, 8, 8, 3)
LEVELS = NoiseLevels(torch.linspace(0.99, 0.01, 10), "epsilon")

OWN = [Framing((300, 400), (0, 7)), None]
POOL = KeptPool(
    torch.arange(3.0).reshape(3, 1, 1, 1).expand(3, 4, 2, 2),
    [Framing((i, i)) for i in (16, 17, 18)],
    ["a photo of dog", "the <earlier>", "a photo of <earlier>"],
)


class Teacher:
    levels = LEVELS
    kept = {(2, 2): POOL}  # noqa: RUF012

    def frozen_text(self, prompts):
        self.asked = list(prompts)
        return TextFeatures(
            torch.zeros(len(prompts), 3, 5), None, torch.ones(len(prompts), 3, dtype=torch.bool)
        )

    def untrained_prediction(self, z_t, t, text, framings):
        self.framed = framings
        return z_t + 7

    def earlier_prediction(self, z_t, t, text, framings):
        self.framed = framings
        return z_t - 7

    def pick(self, below):
        assert below == 3
        return 2


@pytest.fixture
def batch():
    g = torch.Generator().manual_seed(0)
    z0, noise = torch.randn(2, 4, 2, 2, generator=g), torch.randn(2, 4, 2, 2, generator=g)
    t = torch.tensor([1, 8])
    z_t = LEVELS.add_noise(z0, noise, t)
    return NoisedBatch(["a <x>", "the <x>"], ["a dog", "the dog"], z0, noise, t, z_t, OWN)


def test_no_prior_adds_nothing(batch):
    assert PRIORS["none"].batch(batch, Teacher()) is None and PRIORS["none"].prepare(None) == {}


def test_image_free_wants_what_the_untouched_model_says_of_the_class_on_the_same_latents(batch):
    teacher = Teacher()
    z_t, target, text, framings = PRIORS["image-free"].batch(batch, teacher)
    assert z_t is batch.z_t and torch.equal(target, batch.z_t + 7)
    assert teacher.asked == ["a dog", "the dog"] and len(text.cross) == 2
    assert framings == teacher.framed == OWN, "they are the concept's own latents"


@pytest.mark.parametrize("name", ["drawn class images", "given class images"])
def test_class_images_are_noised_as_the_concepts_pictures_are(batch, name):
    teacher = Teacher()
    z_t, target, _, framings = PRIORS[name].batch(batch, teacher)
    chosen = torch.full((2, 4, 2, 2), 2.0)
    assert torch.equal(z_t, LEVELS.add_noise(chosen, batch.noise, batch.t))
    assert torch.equal(target, batch.noise) and teacher.asked == ["a photo of <earlier>"] * 2
    assert framings == [Framing((18, 18))] * 2
    with pytest.raises(ValueError, match=r"class images of latent sizes \[\(4, 2\)\]"):
        PRIORS[name].check_latents({(2, 2): POOL}, [(4, 2), (2, 2)])


def test_replay_wants_what_the_stage_before_says_of_what_it_has_drawn(batch):
    teacher = Teacher()
    z_t, target, _, framings = PRIORS["replay"].batch(batch, teacher)
    assert torch.equal(z_t, LEVELS.add_noise(torch.full((2, 4, 2, 2), 2.0), batch.noise, batch.t))
    assert torch.equal(target, z_t - 7) and teacher.asked == ["a photo of <earlier>"] * 2
    assert framings == teacher.framed == [Framing((18, 18))] * 2
    assert [name for name, prior in PRIORS.items() if prior.asks_before] == ["replay"]


def test_given_class_images_have_to_be_there_and_only_then():
    with pytest.raises(ValueError, match="none are connected"):
        PRIORS["given class images"].check(())
    PRIORS["given class images"].check(list(PICTURES))
    for name in set(PRIORS) - {"given class images"}:
        PRIORS[name].check(())
        with pytest.raises(ValueError, match=f"connected, but the prior is '{name}'"):
            PRIORS[name].check(list(PICTURES))


def test_a_weight_of_0_is_no_prior():
    assert TrainSettings(prior="drawn class images", prior_weight=0.0).chosen_prior() is PRIORS["none"]
    assert TrainSettings().chosen_prior() is PRIORS["image-free"]


def test_the_help_names_every_prior():
    help_text = described(TrainSettings)["prior"][1].help
    assert all(name in help_text for name in PRIORS)
