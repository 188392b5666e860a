"""What pages are told of a training, and the wish that it should stop and keep what it has learned."""

from __future__ import annotations

import base64
import json
from io import BytesIO
from typing import Any

import pytest
from PIL import Image


class Watcher:
    """Everything that was pushed; `at(step, act)` calls once when a training has come that far."""

    def __init__(self) -> None:
        self.heard: list[dict[str, Any]] = []
        self._acts: list[tuple[int, Any]] = []

    def at(self, step: int, act: Any) -> None:
        self._acts.append((step, act))

    def hear(self, event: str, told: dict[str, Any]) -> None:
        assert event == "cns.progress"
        self.heard.append(json.loads(json.dumps(told)))
        for step, act in [a for a in self._acts if told["status"] == "learning" and told["step"] >= a[0]]:
            self._acts.remove((step, act))
            act()

    @property
    def last(self) -> dict[str, Any]:
        return self.heard[-1]


@pytest.fixture
def live(backend_module):
    from ComfyUI_CNS.cns_core.host import live

    return live


@pytest.fixture
def watcher(live, monkeypatch):
    found = Watcher()
    monkeypatch.setattr(live.server, "push", found.hear)
    monkeypatch.setattr(live, "_EVERY", 0)
    return found


def picture(url: str) -> Image.Image:
    kind, content = url.split(",")
    assert kind == "data:image/jpeg;base64"
    return Image.open(BytesIO(base64.b64decode(content)))


def test_a_page_hears_of_each_step_and_of_the_end(train, dog, dog_neurons, watcher, live):
    states = []
    watcher.at(3, lambda: states.extend(live.states()))
    train(dog, dog_neurons, seed=501, preview_prompt="<my-dog>", preview_every=2)
    first, *_, last = watcher.heard
    assert first["status"] == "preparing" and first["token"] == "<my-dog>" and first["resumed"] == 0
    assert [picture(p).size for p in first["pictures"]] == [(64, 64)] * 3
    learning = [told for told in watcher.heard if told["status"] == "learning"]
    assert [told["step"] for told in learning] == [1, 2, 3, 4]
    assert learning[0]["seconds_left"] is None and learning[1]["seconds_left"] > 0
    assert all("pictures" not in told for told in learning)  # once is enough
    assert [told["step"] for told in learning if "preview" in told] == [2, 4]
    assert picture(learning[1]["preview"]).size == (64, 64)
    assert len(learning[2]["losses"]["points"]["diffusion"]) == 3
    assert last["status"] == "finished" and last["step"] == 4 and last["seconds_left"] is None
    # One that is opened in the middle is told all of it at once.
    (state,) = states
    assert state["step"] == 3 and len(state["pictures"]) == 3 and state["preview"] == learning[1]["preview"]
    assert live.states() == []


def test_a_message_stays_small_and_is_not_sent_at_every_step(
    train, dog, dog_neurons, watcher, live, monkeypatch
):
    monkeypatch.setattr(live, "_EVERY", 1e9)
    monkeypatch.setattr(live, "_POINTS", 3)
    train(dog, dog_neurons, seed=502, steps=8)
    assert [told["status"] for told in watcher.heard] == ["preparing", "finished"]
    assert {len(values) for values in watcher.last["losses"]["points"].values()} == {3}
    assert watcher.last["losses"]["every"] == 3 and watcher.last["losses"]["steps"] == 8
    assert len(json.dumps(watcher.last)) < 1_000


def test_stop_and_keep_gives_what_was_learned_so_far_as_the_result(train, dog, dog_neurons, watcher, live):
    watcher.at(2, lambda: live.stop("", ""))
    memory, _, text = train(dog, dog_neurons, seed=503, steps=6)
    assert "Stopped after step 2 of 6, as you asked." in text
    assert len(memory.concepts[-1].losses["diffusion"]) == 2 and memory.concepts[-1].thumbnail
    assert watcher.last["status"] == "stopped" and watcher.last["step"] == 2

    again, _, text = train(dog, dog_neurons, seed=503, steps=6)
    assert "was finished before, after step 2 of 6; its result was taken from disk" in text
    assert again.digest() == memory.digest()
    assert watcher.last["status"] == "kept" and watcher.last["step"] == 2

    # It was that run's wish alone.
    other, _, text = train(dog, dog_neurons, seed=504, steps=3)
    assert "Stopped" not in text and len(other.concepts[-1].losses["diffusion"]) == 3


def test_a_wish_that_comes_too_late_or_with_the_last_step_changes_nothing(
    train, dog, dog_neurons, watcher, live
):
    watcher.at(3, lambda: live.stop("", ""))
    memory, _, text = train(dog, dog_neurons, seed=505, steps=3)
    assert "Stopped" not in text and len(memory.concepts[-1].losses["diffusion"]) == 3
    assert watcher.last["status"] == "finished"
    with pytest.raises(ValueError, match="not running"):
        live.stop("", "")


def test_another_training_is_not_stopped(train, dog, dog_neurons, watcher, live):
    refused = []

    def stop_another() -> None:
        for where in (("other", ""), ("", "7")):
            with pytest.raises(ValueError, match="not running"):
                live.stop(*where)
            refused.append(where)

    watcher.at(1, stop_another)
    memory, _, _ = train(dog, dog_neurons, seed=506, steps=3)
    assert len(refused) == 2 and len(memory.concepts[-1].losses["diffusion"]) == 3


def test_cancel_is_told_and_so_is_where_it_goes_on(train, dog, dog_neurons, watcher, live):
    import comfy.model_management as management

    watcher.at(2, lambda: management.interrupt_current_processing(True))
    with pytest.raises(management.InterruptProcessingException):
        train(dog, dog_neurons, seed=507, steps=5)
    assert watcher.last["status"] == "cancelled" and live.states() == []
    cancelled = watcher.last
    watcher.heard.clear()
    train(dog, dog_neurons, seed=507, steps=5)
    resumed = next(told for told in watcher.heard if told["resumed"])
    assert resumed["resumed"] == resumed["step"] == cancelled["step"]
    assert resumed["losses"] == cancelled["losses"]
    assert watcher.last["status"] == "finished" and watcher.last["losses"]["steps"] == 5


def test_an_error_is_told(train, dog, dog_neurons, watcher, live):
    def fail() -> None:
        raise RuntimeError("the page's wire broke")

    watcher.at(1, fail)
    with pytest.raises(RuntimeError, match="wire broke"):
        train(dog, dog_neurons, seed=508)
    assert watcher.last["status"] == "failed" and live.states() == []
