import pytest

from cns_core.general_prompts import general_prompts


def test_they_are_many_and_no_two_alike():
    prompts = general_prompts(4096)
    assert len(prompts) == len(set(prompts)) == 4096
    assert prompts[0] == "" and any("lowres" in p for p in prompts[:30])
    assert all(p == p.strip() and "{" not in p and "  " not in p for p in prompts)
    assert not any(f"a {vowel}" in f" {p} " for p in prompts for vowel in ("apple", "orange", "owl", "eagle"))


def test_fewer_are_the_first_of_many_and_a_seed_gives_others():
    assert general_prompts(200) == general_prompts(1000)[:200]
    assert general_prompts(1) == ("",)
    assert set(general_prompts(500, seed=1)) != set(general_prompts(500))


def test_their_words_are_many():
    words = {word for prompt in general_prompts(4096) for word in prompt.replace(",", "").split()}
    assert len(words) > 900


def test_none_is_refused():
    with pytest.raises(ValueError, match="at least 1"):
        general_prompts(0)
