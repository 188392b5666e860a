"""CLIP-I and CLIP-T on a tiny random CLIP model, against plain loops and transformers' own preprocessing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from cns_core.evaluation.clip_scores import (
    BATCH,
    OPENAI_MEAN,
    OPENAI_STD,
    ClipScorer,
    ClipScores,
    preprocess,
    replace_tokens,
)

transformers = pytest.importorskip("transformers")

SIZE = 32
MAX_TOKENS = 12
WORDS = ("a", "photo", "of", "fox", "teapot", "and", "on", "grass")


def write_clip_folder(folder: Path, mean: tuple[float, ...] | None = None) -> Path:
    """A random CLIPModel of 4-wide heads and a tokenizer of single letters and eight whole words."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    pieces = [*letters, *(f"{letter}</w>" for letter in letters)]
    merges: list[str] = []
    for word in WORDS:
        parts = [*word[:-1], f"{word[-1]}</w>"]
        while len(parts) > 1:
            pair, joined = f"{parts[0]} {parts[1]}", parts[0] + parts[1]
            if pair not in merges:
                merges.append(pair)
                pieces.append(joined)
            parts = [joined, *parts[2:]]
    pieces += ["<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({piece: number for number, piece in enumerate(pieces)}))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    tower = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    ids = {"bos_token_id": len(pieces) - 2, "eos_token_id": len(pieces) - 1, "pad_token_id": len(pieces) - 1}
    config = transformers.CLIPConfig(
        text_config={**tower, **ids, "vocab_size": len(pieces), "max_position_embeddings": MAX_TOKENS},
        vision_config={**tower, "image_size": SIZE, "patch_size": 8},
        projection_dim=8,
    )
    with torch.random.fork_rng():
        torch.manual_seed(5)
        transformers.CLIPModel(config).save_pretrained(folder)
    if mean is not None:
        (folder / "preprocessor_config.json").write_text(
            json.dumps({"image_mean": list(mean), "image_std": [0.5, 0.5, 0.5]})
        )
    return folder


@pytest.fixture(scope="module")
def scorer(tmp_path_factory: pytest.TempPathFactory) -> ClipScorer:
    return ClipScorer.load(str(write_clip_folder(tmp_path_factory.mktemp("clip"))), "cpu")


def pictures(count: int, height: int = 48, width: int = 40, seed: int = 0) -> Tensor:
    return torch.rand(count, height, width, 3, generator=torch.Generator().manual_seed(seed))


def cosine(a: Tensor, b: Tensor) -> float:
    return float((a * b).sum() / (a.norm() * b.norm()))


def raw_image_features(scorer: ClipScorer, image: Tensor) -> Tensor:
    pixels = preprocess(image.unsqueeze(0), SIZE, OPENAI_MEAN, OPENAI_STD)
    with torch.no_grad():
        pooled = scorer.model.vision_model(pixel_values=pixels).pooler_output
        return scorer.model.visual_projection(pooled)[0]


def raw_text_features(scorer: ClipScorer, prompt: str) -> Tensor:
    ids = torch.tensor([scorer.tokenizer(prompt)["input_ids"]])
    with torch.no_grad():
        return scorer.model.text_projection(scorer.model.text_model(input_ids=ids).pooler_output)[0]


def test_clip_i_is_the_mean_over_every_pair(scorer: ClipScorer) -> None:
    generated, reference = pictures(3), pictures(2, seed=1)
    left = [raw_image_features(scorer, image) for image in generated]
    right = [raw_image_features(scorer, image) for image in reference]
    pairs = [cosine(a, b) for a in left for b in right]
    assert scorer.clip_i(generated, reference) == pytest.approx(sum(pairs) / 6, abs=1e-5)


def test_clip_t_takes_one_prompt_or_one_for_each_picture(scorer: ClipScorer) -> None:
    generated = pictures(2)
    prompts = ["a photo of fox", "teapot on grass and a fox"]  # of different lengths: padding must not count
    images = [raw_image_features(scorer, image) for image in generated]
    texts = [raw_text_features(scorer, prompt) for prompt in prompts]
    each = [cosine(image, text) for image, text in zip(images, texts, strict=True)]
    assert scorer.clip_t(generated, prompts) == pytest.approx(sum(each) / 2, abs=1e-5)
    one = [cosine(image, texts[0]) for image in images]
    assert scorer.clip_t(generated, prompts[0]) == pytest.approx(sum(one) / 2, abs=1e-5)
    with pytest.raises(ValueError, match="3 prompts for 2 pictures"):
        scorer.clip_t(generated, [*prompts, "a fox"])


def test_several_concepts_are_averaged_as_concepts_not_as_pictures(scorer: ClipScorer) -> None:
    generated, one, two = pictures(2), pictures(1, seed=1), pictures(5, seed=2)
    scores = scorer.score(generated, "a fox and a teapot", [one, two])
    expected = (scorer.clip_i(generated, one) + scorer.clip_i(generated, two)) / 2
    assert scores.clip_i == pytest.approx(expected, abs=1e-6)


def test_best_of_n_is_taken_for_each_prompt(scorer: ClipScorer) -> None:
    generated, reference = pictures(4), pictures(2, seed=1)
    prompts = ["a fox", "a fox", "a teapot", "a teapot"]
    scores = scorer.score(generated, prompts, [reference])
    each = [scorer.clip_t(image, prompt) for image, prompt in zip(generated, prompts, strict=True)]
    assert scores.best_clip_t == pytest.approx((max(each[:2]) + max(each[2:])) / 2, abs=1e-6)
    image = [scorer.clip_i(picture, reference) for picture in generated]
    assert scores.best_clip_i == pytest.approx((max(image[:2]) + max(image[2:])) / 2, abs=1e-6)
    assert (scores.images, scores.prompts) == (4, 2)


def test_pictures_of_differing_size_and_without_reference(scorer: ClipScorer) -> None:
    mixed = [pictures(2, 40, 72), pictures(1, 64, 33, seed=1)[0]]
    scores = scorer.score(mixed, "a fox")
    assert scores.images == 3
    assert scores.clip_i is None and scores.best_clip_i is None
    assert "not measured" in scores.as_text()
    with pytest.raises(ValueError, match="No pictures"):
        scorer.score(pictures(0), "a fox")


def test_the_papers_scale() -> None:
    scores = ClipScores(0.7488, 0.308, 0.8, 0.31, images=4, prompts=1)
    text = scores.as_text()
    assert "0.7488 (paper's scale 74.88)" in text and "0.3080 (paper's scale 77.00)" in text


def test_a_long_prompt_is_read_in_sections(scorer: ClipScorer) -> None:
    fits = " ".join(["fox"] * (MAX_TOKENS - 2))
    assert scorer.sections(fits) == [fits] and scorer.sections("") == [""]
    assert scorer.sections(fits + " cat") == [fits, "cat"]
    one, two, both = scorer.encode_prompts([fits, "cat", fits + " cat"])
    torch.testing.assert_close(both, torch.nn.functional.normalize(one + two, dim=0))
    with pytest.raises(ValueError, match=rf"One word .*holds {MAX_TOKENS}.*Put spaces between"):
        scorer.sections("a " + "fox" * 60)


def test_tokens_become_class_words() -> None:
    words = {"<my-fox>": "fox", "<my-fox-2>": "arctic fox"}
    assert replace_tokens("<my-fox>, two <My-Fox-2>s, 1 < 2", words) == "fox, two arctic foxs, 1 < 2"
    with pytest.raises(ValueError, match=r"<my-cat>.*known tokens: <my-fox-2>, <my-fox>"):
        replace_tokens("<my-cat> beside <my-fox>", words)


def test_preprocessing_agrees_with_transformers() -> None:
    processor = transformers.CLIPImageProcessor(
        size={"shortest_edge": SIZE}, crop_size={"height": SIZE, "width": SIZE}
    )
    smooth = Image.fromarray((pictures(1, 6, 9)[0].numpy() * 255).astype(np.uint8)).resize((120, 75))
    theirs = torch.as_tensor(np.asarray(processor(smooth, return_tensors="np")["pixel_values"]))
    tensor = torch.from_numpy(np.asarray(smooth).astype(np.float32) / 255).unsqueeze(0)
    ours = preprocess(tensor, SIZE, OPENAI_MEAN, OPENAI_STD)
    assert ours.shape == (1, 3, SIZE, SIZE)
    torch.testing.assert_close(ours, theirs.float(), atol=0.05, rtol=0)  # theirs rounds to 8 bits on the way


@pytest.mark.parametrize("bad", [torch.zeros(1, 8, 8, 4), torch.zeros(8, 3), torch.zeros(1, 8, 8, 3).byte()])
def test_what_is_no_picture_is_refused(bad: Tensor) -> None:
    with pytest.raises(ValueError, match=r"float tensor \(B, H, W, 3\)"):
        preprocess(bad, SIZE, OPENAI_MEAN, OPENAI_STD)


def test_the_folders_own_pixel_statistics_are_used(tmp_path: Path, scorer: ClipScorer) -> None:
    assert scorer.mean == OPENAI_MEAN
    other = ClipScorer.load(str(write_clip_folder(tmp_path / "clip", mean=(0.1, 0.2, 0.3))), "cpu")
    assert other.mean == (0.1, 0.2, 0.3) and other.std == (0.5, 0.5, 0.5)


def test_missing_or_unfit_models_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="No CLIP model folder at"):
        ClipScorer.load(str(tmp_path / "absent"), "cpu")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"holds no config\.json"):
        ClipScorer.load(str(tmp_path / "empty"), "cpu")
    (tmp_path / "empty" / "config.json").write_text('{"model_type": "clip_text_model"}')
    with pytest.raises(ValueError, match="'clip_text_model', expected 'clip'"):
        ClipScorer.load(str(tmp_path / "empty"), "cpu")

    def offline(*_: object, **__: object) -> None:
        raise OSError("cannot reach the server")

    monkeypatch.setattr(transformers.CLIPModel, "from_pretrained", offline)
    with pytest.raises(ValueError, match=r"model 'someone/clip': cannot reach the server"):
        ClipScorer.load("someone/clip", "cpu")


def test_a_model_with_missing_weights_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = write_clip_folder(tmp_path / "clip")
    weights = load_file(folder / "model.safetensors")
    del weights["visual_projection.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"lacks 1 weights, such as 'visual_projection\.weight'"):
        ClipScorer.load(str(folder), "cpu")


def test_weights_in_a_pickle_are_not_opened(tmp_path: Path) -> None:
    folder = write_clip_folder(tmp_path / "clip")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"no model\.safetensors.*pickles, which can run any code"):
        ClipScorer.load(str(folder), "cpu")


def test_weights_outside_the_folder_are_not_opened(tmp_path: Path) -> None:
    folder = write_clip_folder(tmp_path / "clip")
    outside = tmp_path / "outside.safetensors"
    (folder / "model.safetensors").rename(outside)
    (folder / "model.safetensors").symlink_to(outside)
    with pytest.raises(ValueError, match="outside the folder"):
        ClipScorer.load(str(folder), "cpu")
    (folder / "model.safetensors").unlink()
    index = folder / "model.safetensors.index.json"
    index.write_text('{"metadata": {}, "weight_map": {"logit_scale": "../outside.safetensors"}}')
    with pytest.raises(ValueError, match=r"leads to '\.\./outside\.safetensors', outside the folder"):
        ClipScorer.load(str(folder), "cpu")
    index.write_text("{}")
    with pytest.raises(ValueError, match="is no index of weights"):
        ClipScorer.load(str(folder), "cpu")


def test_code_of_a_folders_own_is_not_run(tmp_path: Path) -> None:
    folder = write_clip_folder(tmp_path / "clip")
    (folder / "own.py").write_text("raise SystemExit('ran')\n")
    for name in ("config.json", "tokenizer_config.json"):
        path = folder / name
        config = json.loads(path.read_text()) if path.exists() else {"tokenizer_class": "CLIPTokenizer"}
        config["auto_map"] = {"AutoTokenizer": ["own.Tokens", "own.Tokens"], "AutoModel": "own.Model"}
        path.write_text(json.dumps(config))
    ClipScorer.load(str(folder), "cpu")


def test_of_a_strip_only_the_middle_is_resized(scorer: ClipScorer) -> None:
    strip = torch.zeros(1, 16, 16_384, 3)
    strip[:, :, 8_000:8_400] = torch.rand(1, 16, 400, 3, generator=torch.Generator().manual_seed(0))
    seen = preprocess(strip, scorer.image_size, scorer.mean, scorer.std)
    assert seen.equal(preprocess(strip[:, :, 8_160:8_224], scorer.image_size, scorer.mean, scorer.std))


def test_progress_counts_every_picture_and_may_stop(scorer: ClipScorer) -> None:
    counts: list[int] = []
    pictures = torch.rand(BATCH + 1, 16, 16, 3)
    scorer.score(pictures, "a dog", [pictures[:2], pictures[:3]], counts.append)
    assert counts == [BATCH, BATCH + 1, BATCH + 3, BATCH + 6]

    def stop(done: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scorer.score(pictures, "a dog", [], stop)


def test_a_prompt_without_end_is_refused(scorer: ClipScorer) -> None:
    with pytest.raises(ValueError, match="has 10,000,000 characters, expected at most 20,000"):
        scorer.encode_prompts(["a dog " * 1_666_666 + "dogs"])
