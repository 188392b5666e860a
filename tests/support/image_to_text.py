"""Tiny random models that say something about pictures: BLIP, GIT, an encoder with a decoder, and LLaVA."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

WORDS = ("a", "brown", "dog", "cat", "on", "grass", "in", "snow", "red", "mug", "and", "the", "old", "sofa")
PIECES = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS)
_TOWER = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
_TEXT = {**_TOWER, "vocab_size": len(PIECES), "max_position_embeddings": 64}
_IDS = {"bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}
_SIDE = {"height": 32, "width": 32}


def write_blip(folder: Path) -> Path:
    """Captions a picture alone, or goes on from words that it is given."""
    import transformers as tf

    vision = {**_TOWER, "image_size": 32, "patch_size": 16, "projection_dim": 8}
    text = {**_TEXT, **_IDS, "sep_token_id": 3, "encoder_hidden_size": 16, "projection_dim": 8}
    config = tf.BlipConfig(text_config=text, vision_config=vision, projection_dim=8)
    processor = tf.BlipProcessor(tf.BlipImageProcessor(size=_SIDE), _tokenizer(folder))
    return _saved(folder, tf.BlipForConditionalGeneration, config, processor)


def write_git(folder: Path) -> Path:
    """One stack for picture and words, so that it repeats what it is given."""
    import transformers as tf

    vision = {**_TOWER, "image_size": 32, "patch_size": 16}
    config = tf.GitConfig(**_TEXT, **_IDS, vision_config=vision)
    pictures = tf.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=_SIDE)
    return _saved(folder, tf.GitForCausalLM, config, tf.GitProcessor(pictures, _tokenizer(folder)))


def write_encoder_decoder(folder: Path) -> Path:
    """Two models in one, with no processor for both."""
    import transformers as tf

    encoder = tf.ViTConfig(**_TOWER, image_size=32, patch_size=16)
    decoder = tf.BertConfig(**_TEXT, is_decoder=True, add_cross_attention=True)
    ids = {"decoder_start_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}
    config = tf.VisionEncoderDecoderConfig.from_encoder_decoder_configs(encoder, decoder, **ids)
    _tokenizer(folder).save_pretrained(folder)
    return _saved(folder, tf.VisionEncoderDecoderModel, config, tf.ViTImageProcessor(size=_SIDE))


def write_llava(folder: Path) -> Path:
    """Talks: it has a chat template, and has to be asked in words."""
    import transformers as tf

    tokenizer = _tokenizer(folder)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    vision = tf.CLIPVisionConfig(**_TOWER, image_size=32, patch_size=16)
    text = tf.LlamaConfig(**{**_TEXT, **_IDS, "vocab_size": len(tokenizer), "initializer_range": 1.0})
    image = tokenizer.convert_tokens_to_ids("<image>")
    config = tf.LlavaConfig(vision_config=vision, text_config=text, image_token_index=image)
    processor = tf.LlavaProcessor(
        tf.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=_SIDE),
        tokenizer,
        patch_size=16,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template="{% for message in messages %}{% for part in message['content'] %}"
        "{% if part['type'] == 'image' %}<image>{% else %} {{ part['text'] }}{% endif %}"
        "{% endfor %}{% endfor %}",
    )
    return _saved(folder, tf.LlavaForConditionalGeneration, config, processor)


WRITERS: dict[str, Callable[[Path], Path]] = {
    "blip": write_blip,
    "git": write_git,
    "vision-encoder-decoder": write_encoder_decoder,
    "llava": write_llava,
}


def _tokenizer(folder: Path) -> Any:
    import transformers as tf

    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = folder / "vocab.txt"
    vocabulary.write_text("\n".join(PIECES) + "\n", encoding="utf-8")
    return tf.BertTokenizerFast.from_pretrained(folder)


def _saved(folder: Path, kind: Any, config: Any, processor: Any) -> Path:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        kind(config).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
