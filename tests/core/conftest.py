"""A toy text-conditional diffusion model with the same seam as ComfyUI's:
small enough to pretrain inside a test.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn

from cns_core.framing import Framings
from cns_core.memory import ConceptMemory
from cns_core.method import Taught, WeightFunction
from cns_core.moments import second_moment
from cns_core.projections import ProjectionLayout, find_projections
from cns_core.schedule import NoiseLevels
from cns_core.text_features import TextFeatures, counted_tokens
from cns_core.weight_scopes import state_dict_key, weights_in

TEXT_DIM, WIDTH, TOKENS = 24, 32, 8
WORDS = ["<pad>", "<start>", "a", "photo", "of", "the", *(f"word{i}" for i in range(12))]


class CrossAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.to_q = nn.Linear(WIDTH, WIDTH, bias=False)
        self.to_k = nn.Linear(TEXT_DIM, WIDTH, bias=False)
        self.to_v = nn.Linear(TEXT_DIM, WIDTH, bias=False)
        self.to_out = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor, text: Tensor) -> Tensor:
        attention = (self.to_q(x) @ self.to_k(text).transpose(1, 2) / WIDTH**0.5).softmax(dim=-1)
        return self.to_out(attention @ self.to_v(text))


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.attn2 = CrossAttention()
        self.mlp = nn.Sequential(
            nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 2 * WIDTH), nn.GELU(), nn.Linear(2 * WIDTH, WIDTH)
        )

    def forward(self, x: Tensor, text: Tensor) -> Tensor:
        x = x + self.attn2(self.norm(x), text)
        return x + self.mlp(x)


class ToyUNet(nn.Module):
    """Latents `(B, 2, 4, 4)` as 16 positions of width 32; three blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.inside = nn.Linear(2, WIDTH)
        self.place = nn.Parameter(torch.randn(16, WIDTH) * 0.5)
        self.time = nn.Sequential(nn.Linear(2, WIDTH), nn.GELU(), nn.Linear(WIDTH, WIDTH))
        self.blocks = nn.ModuleList(Block() for _ in range(3))
        self.out = nn.Linear(WIDTH, 2)

    def forward(self, z: Tensor, alpha: Tensor, text: Tensor) -> Tensor:
        x = self.inside(z.flatten(2).transpose(1, 2)) + self.place
        x = x + self.time(torch.stack([alpha.sqrt(), (1 - alpha).sqrt()], dim=1))[:, None]
        for block in self.blocks:
            x = block(x, text)
        return self.out(x).transpose(1, 2).reshape(z.shape)


class ToyBackend:
    """Satisfies `DiffusionBackend`; its words are drawn as fixed patterns once it is pretrained."""

    def __init__(self, seed: int, prediction_type: str = "epsilon") -> None:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.unet = ToyUNet()
            self.table = nn.Embedding(len(WORDS), TEXT_DIM)
            self.patterns = torch.randn(len(WORDS), 2, 4, 4)
        self.levels = NoiseLevels(torch.linspace(0.998, 0.02, 50), prediction_type)  # type: ignore[arg-type]
        self.device = torch.device("cpu")
        self.token = "<new>"
        self.known: dict[str, Tensor] = {}
        self.seed = seed

    @property
    def weights(self) -> dict[str, Tensor]:
        return {n: p.detach() for n, p in self.unet.named_parameters()}

    @property
    def layout(self) -> ProjectionLayout:
        return find_projections({n: tuple(p.shape) for n, p in self.unet.named_parameters()})

    def projections(self) -> dict[str, Tensor]:
        return {n: self.weights[n + ".weight"] for n in self.layout.names}

    def encode(self, prompts: Sequence[str], token_vectors: Mapping[str, Tensor] | None) -> TextFeatures:
        rows, words = [], []
        for prompt in prompts:
            parts = ["<start>", *prompt.split()]
            vectors = []
            for word in parts:
                if word == self.token and token_vectors is not None:
                    vectors += token_vectors["toy"].reshape(-1, TEXT_DIM)
                elif word in self.known:
                    vectors += self.known[word].reshape(-1, TEXT_DIM)
                else:
                    vectors.append(self.table.weight[WORDS.index(word)])
            length = len(vectors)
            vectors += [self.table.weight[0]] * (TOKENS - length)
            x = torch.stack(vectors)
            rows.append(x + 0.3 * x[:length].mean(dim=0))
            words.append([0 < i < length for i in range(TOKENS)])
        return TextFeatures(torch.stack(rows), None, torch.tensor(words))

    def predict(
        self, z_t: Tensor, t: Tensor, features: TextFeatures, framings: Framings | None = None
    ) -> Tensor:
        return self.unet(z_t, self.levels.alphas_cumprod[t], features.cross)

    @contextmanager
    def weights_patched(self, functions: Mapping[str, WeightFunction]) -> Iterator[None]:
        class Apply(nn.Module):
            def __init__(self, function: WeightFunction) -> None:
                super().__init__()
                self.function = function

            def forward(self, weight: Tensor) -> Tensor:
                return self.function(weight)

        found = []
        for name, function in functions.items():
            owner, _, kind = state_dict_key(name).rpartition(".")
            found.append((self.unet.get_submodule(owner), kind))
            nn.utils.parametrize.register_parametrization(*found[-1], Apply(function), unsafe=True)
        try:
            yield
        finally:
            for module, kind in found:
                nn.utils.parametrize.remove_parametrizations(module, kind, leave_parametrized=False)

    def pretrain(self, steps: int = 1200) -> ToyBackend:
        """Teach the U-Net to draw each word's pattern from 'a photo of <word>'."""
        generator = torch.Generator().manual_seed(self.seed)
        optimizer = torch.optim.Adam([*self.unet.parameters(), *self.table.parameters()], lr=3e-3)
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        drawn = list(range(6, len(WORDS)))
        prompts = [f"a photo of {WORDS[i]}" for i in drawn]
        for _ in range(steps):
            picks = torch.randint(len(drawn), (32,), generator=generator)
            features = self.encode(prompts, None)
            text = TextFeatures(features.cross[picks], None, features.is_word[picks])
            z0 = self.patterns[torch.tensor(drawn)[picks]]
            noise = torch.randn(z0.shape, generator=generator)
            t = torch.randint(len(self.levels), (32,), generator=generator)
            loss = (
                (
                    self.predict(self.levels.add_noise(z0, noise, t), t, text)
                    - self.levels.target(z0, noise, t)
                )
                .square()
                .mean()
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
        self.unet.requires_grad_(False)
        self.table.requires_grad_(False)
        return self


class ToyMaterial:
    """Satisfies `Material`: of general prompts it knows a number of its own."""

    def __init__(
        self, backend: ToyBackend, captions: Sequence[str], general: int, memory: ConceptMemory | None = None
    ) -> None:
        self.layout, self.captions = backend.layout, tuple(captions)
        self.device = self.text_device = torch.device("cpu")
        self.taught = Taught(backend.token, "word1", tuple(c.replace("word1", "<new>") for c in captions))
        self.earlier = () if memory is None else memory.taught()
        self._backend, self._general = backend, [f"a photo of word{i}" for i in range(general)]
        made_up = torch.randn(3, TEXT_DIM, generator=torch.Generator().manual_seed(0))
        self._known = dict(zip(("sks", "ohwx", "zwx"), made_up, strict=True))
        if memory is not None:
            self._known |= {token: vectors["toy"] for token, vectors in memory.token_vectors().items()}

    def weights_in(self, scope: str) -> ProjectionLayout:
        return weights_in({n: tuple(w.shape) for n, w in self._backend.weights.items()}, scope)

    def weights(self, layout: ProjectionLayout | None = None) -> dict[str, Tensor]:
        layout, weights = layout or self.layout, self._backend.weights
        return {n: weights[state_dict_key(n)].reshape(layout.shape(n)) for n in layout.names}

    def features(
        self, captions: Sequence[str], general: Sequence[str], tokens: str
    ) -> tuple[list[Tensor], list[Tensor]]:
        own, kept = (self._backend.encode(prompts, None) for prompts in (captions, self._general))
        return tuple(  # type: ignore[return-value]
            [counted_tokens(x, words, tokens) for x, words in zip(found.cross, found.is_word, strict=True)]
            for found in (own, kept)
        )

    def second_moments(self, groups: Sequence[Sequence[str]], tokens: str, lasting: int) -> list[Tensor]:
        self._backend.known = self._known
        moments = []
        # The method's own general prompts have words that the toy does not know.
        for prompts in [*([self._general] if lasting else []), *groups[bool(lasting) :]]:
            found = self._backend.encode(prompts, None) if prompts else None
            rows = [] if found is None else zip(found.cross, found.is_word, strict=True)
            moments.append(second_moment((counted_tokens(x, words, tokens) for x, words in rows), TEXT_DIM))
        return moments


@pytest.fixture
def toy() -> ToyBackend:
    """Seeded, not pretrained; frozen."""
    backend = ToyBackend(0)
    backend.unet.requires_grad_(False)
    backend.table.requires_grad_(False)
    return backend


@pytest.fixture(scope="session")
def toy_backend() -> type[ToyBackend]:
    return ToyBackend


@pytest.fixture(scope="session")
def toy_material() -> type[ToyMaterial]:
    return ToyMaterial
