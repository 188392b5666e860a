"""Names and shapes of a small checkpoint in SD 1.5's layout: what a random checkpoint has to hold.

The U-Net has SD 1.5's width (320), text width (768) and 8 heads, but two levels of one block each: 7
cross-attentions instead of 16. The text encoder is CLIP-L, the VAE is TAESD. ComfyUI takes all
this for an SD 1.5.
"""

from __future__ import annotations

Shapes = dict[str, tuple[int, ...]]

WIDTH = 320
TEXT_WIDTH = 768
LATENT_CHANNELS = 4
TEXT_LAYERS = 12

UNET_PREFIX = "model.diffusion_model."
TEXT_PREFIX = "cond_stage_model.transformer.text_model."
VAE_PREFIX = "first_stage_model."

_TIME_WIDTH = 4 * WIDTH
_VAE_WIDTH = 64
_VOCABULARY = 49408
_POSITIONS = 77


def checkpoint_shapes(text_layers: int = TEXT_LAYERS) -> Shapes:
    """Every tensor of the checkpoint, in a fixed order."""
    return {
        **_prefixed(UNET_PREFIX, unet_shapes()),
        **_prefixed(TEXT_PREFIX, text_encoder_shapes(text_layers)),
        **_prefixed(VAE_PREFIX, vae_shapes()),
    }


def unet_shapes() -> Shapes:
    """A U-Net with `channel_mult` [1, 1], one residual block and one transformer a level."""
    down_and_up = {
        "input_blocks.0.0": _conv(WIDTH, LATENT_CHANNELS),
        "input_blocks.2.0.op": _conv(WIDTH, WIDTH),
        "output_blocks.1.2.conv": _conv(WIDTH, WIDTH),
        "out.0": _norm(WIDTH),
        "out.2": _conv(LATENT_CHANNELS, WIDTH),
        "time_embed.0": _linear(_TIME_WIDTH, WIDTH),
        "time_embed.2": _linear(_TIME_WIDTH, _TIME_WIDTH),
        "middle_block.2": _residual_block(WIDTH),
    }
    shapes = _joined(down_and_up)
    for block in ("input_blocks.1", "input_blocks.3", "middle_block"):
        shapes |= _joined({f"{block}.0": _residual_block(WIDTH), f"{block}.1": _transformer()})
    for index in range(4):
        # Twice the width comes in: the skip connection is concatenated.
        block = f"output_blocks.{index}"
        shapes |= _joined({f"{block}.0": _residual_block(2 * WIDTH), f"{block}.1": _transformer()})
    return shapes


def text_encoder_shapes(layers: int) -> Shapes:
    """CLIP-L's text encoder, with as many layers as asked for."""
    shapes: Shapes = {
        "embeddings.token_embedding.weight": (_VOCABULARY, TEXT_WIDTH),
        "embeddings.position_embedding.weight": (_POSITIONS, TEXT_WIDTH),
    }
    for index in range(layers):
        square = _linear(TEXT_WIDTH, TEXT_WIDTH)
        layer = {f"self_attn.{part}": square for part in ("q_proj", "k_proj", "v_proj", "out_proj")}
        layer |= {"layer_norm1": _norm(TEXT_WIDTH), "layer_norm2": _norm(TEXT_WIDTH)}
        layer |= {
            "mlp.fc1": _linear(4 * TEXT_WIDTH, TEXT_WIDTH),
            "mlp.fc2": _linear(TEXT_WIDTH, 4 * TEXT_WIDTH),
        }
        shapes |= _prefixed(f"encoder.layers.{index}.", _joined(layer))
    return shapes | _joined({"final_layer_norm": _norm(TEXT_WIDTH)})


def vae_shapes() -> Shapes:
    """TAESD: an encoder and a decoder of plain convolutions; indices without weights are activations."""
    inner = _conv(_VAE_WIDTH, _VAE_WIDTH)
    resize = _conv(_VAE_WIDTH, _VAE_WIDTH, bias=False)
    block = _joined({f"conv.{index}": inner for index in (0, 2, 4)})
    encoder = {"0": _conv(_VAE_WIDTH, 3), "14": _conv(LATENT_CHANNELS, _VAE_WIDTH)}
    encoder |= {str(index): resize for index in (2, 6, 10)}
    encoder |= {str(index): block for index in (1, 3, 4, 5, 7, 8, 9, 11, 12, 13)}
    decoder = {"1": _conv(_VAE_WIDTH, LATENT_CHANNELS), "19": _conv(3, _VAE_WIDTH)}
    decoder |= {str(index): resize for index in (7, 12, 17)}
    decoder |= {str(index): block for index in (3, 4, 5, 8, 9, 10, 13, 14, 15, 18)}
    return {
        **_prefixed("taesd_encoder.", _joined(encoder)),
        **_prefixed("taesd_decoder.", _joined(decoder)),
        "vae_scale": (),
        "vae_shift": (),
    }


def _residual_block(channels_in: int) -> Shapes:
    parts = {
        "in_layers.0": _norm(channels_in),
        "in_layers.2": _conv(WIDTH, channels_in),
        "emb_layers.1": _linear(WIDTH, _TIME_WIDTH),
        "out_layers.0": _norm(WIDTH),
        "out_layers.3": _conv(WIDTH, WIDTH),
    }
    if channels_in != WIDTH:
        parts["skip_connection"] = _conv(WIDTH, channels_in, size=1)
    return _joined(parts)


def _transformer() -> Shapes:
    parts = {
        "norm": _norm(WIDTH),
        "proj_in": _conv(WIDTH, WIDTH, size=1),
        "proj_out": _conv(WIDTH, WIDTH, size=1),
    }
    inner = {f"norm{index}": _norm(WIDTH) for index in (1, 2, 3)}
    for attention, width_in in (("attn1", WIDTH), ("attn2", TEXT_WIDTH)):
        inner[f"{attention}.to_q"] = _linear(WIDTH, WIDTH, bias=False)
        inner[f"{attention}.to_k"] = _linear(WIDTH, width_in, bias=False)
        inner[f"{attention}.to_v"] = _linear(WIDTH, width_in, bias=False)
        inner[f"{attention}.to_out.0"] = _linear(WIDTH, WIDTH)
    inner["ff.net.0.proj"] = _linear(8 * WIDTH, WIDTH)  # a gated unit: half of it is the gate
    inner["ff.net.2"] = _linear(WIDTH, 4 * WIDTH)
    return _joined(parts) | _prefixed("transformer_blocks.0.", _joined(inner))


def _linear(width_out: int, width_in: int, bias: bool = True) -> Shapes:
    return {"weight": (width_out, width_in), **({"bias": (width_out,)} if bias else {})}


def _conv(channels_out: int, channels_in: int, size: int = 3, bias: bool = True) -> Shapes:
    return {"weight": (channels_out, channels_in, size, size), **({"bias": (channels_out,)} if bias else {})}


def _norm(width: int) -> Shapes:
    return {"weight": (width,), "bias": (width,)}


def _prefixed(prefix: str, shapes: Shapes) -> Shapes:
    return {prefix + name: shape for name, shape in shapes.items()}


def _joined(modules: dict[str, Shapes]) -> Shapes:
    return {f"{module}.{name}": shape for module, shapes in modules.items() for name, shape in shapes.items()}
