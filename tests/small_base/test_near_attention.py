"""Untrained, the judge's picture encoder looks beside each place."""

from __future__ import annotations

import pytest
import torch
from transformers import CLIPVisionConfig, CLIPVisionModel

from small_base.judge.judge import DEVIATION, MEAN, PICTURE, new_judge
from small_base.judge.near_attention import look_around

SIDE = PICTURE // 8


def test_nine_heads_look_at_the_nine_places_around_their_own() -> None:
    torch.manual_seed(0)
    vision = new_judge(vocabulary=600).vision_model.eval()
    vision.config._attn_implementation = "eager"  # the one that tells its weights
    mean, deviation = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, DEVIATION))
    # Coarse squares of colour: an encoder that looks at contents would prefer some of them.
    pictures = torch.rand(4, 3, 16, 16).repeat_interleave(4, -1).repeat_interleave(4, -2)
    with torch.no_grad():
        found = vision(pixel_values=(pictures - mean) / deviation, output_attentions=True)
    for weights in found.attentions:
        between = weights[:, :, 1:, 1:].mean(0)  # (heads, to, from), without the class token
        for head, (down, across) in enumerate((y, x) for y in (-1, 0, 1) for x in (-1, 0, 1)):
            for y, x in ((1, 1), (3, 5), (6, 2)):
                own, beside = y * SIDE + x, (y + down) * SIDE + x + across
                assert between[head, own].argmax() == beside
                assert between[head, own, beside] > 0.3  # evenly: 0.016


def test_too_few_heads() -> None:
    config = CLIPVisionConfig(
        hidden_size=64, num_attention_heads=4, num_hidden_layers=1, image_size=PICTURE, patch_size=8
    )
    model = CLIPVisionModel(config)
    vision = getattr(model, "vision_model", model)  # transformers 4 wraps it
    with pytest.raises(ValueError, match=r"4 heads of 16 channels; .* take 9 heads of 16"):
        look_around(vision)
