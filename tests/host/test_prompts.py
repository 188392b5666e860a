"""Prompts are read as the host reads them."""

import pytest


@pytest.mark.parametrize(
    ("written", "words", "embeddings"),
    [
        ("a (<my-panda>:1.2) on a ((red)) sofa", "a <my-panda> on a red sofa", []),
        (r"a \(real\) panda, (nested (words:0.5) here:1.3)", "a (real) panda, nested words here", []),
        ("a panda (blurry:0), (sharp:-1) bright", "a panda, bright", []),
        ("a panda BREAK a sofa AND a lamp, BREAK", "a panda, a sofa, a lamp", []),
        ("a panda, embedding:bad_hands, by\nembedding:style", "a panda, by", ["bad_hands", "style"]),
        ("a breakfast and AN ANDROID", "a breakfast and AN ANDROID", []),
        ("", "", []),
    ],
)
def test_plain_words(pack, written, words, embeddings):
    from ComfyUI_CNS.cns_core.host.prompts import plain_words

    assert plain_words(written) == (words, embeddings)
