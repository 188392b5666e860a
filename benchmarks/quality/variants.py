"""What the benches learn by: every method in the registry, and some of them with other settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from cns_core.method import Method
from cns_core.methods import METHODS
from cns_core.settings import TrainSettings, described
from cns_core.weight_scopes import KEYS_AND_VALUES

# Name, default, what it says: of training, of selecting and of the methods, see their settings.
SETTINGS: tuple[tuple[str, Any, str], ...] = (
    ("steps", 150, "of training"),
    ("batch_size", 4, "pictures a step"),
    ("token_lr", 1e-2, "learning rate of the token"),
    ("neuron_lr", 1e-3, "of selected entries"),
    ("weight_lr", 1e-3, "of all of K/V"),
    ("keep_earlier", 1e-3, "first lambda of L_reg"),
    ("keep_base", 1e-4, "second lambda of L_reg"),
    ("prior_weight", 1.0, "of the image-free prior"),
    ("budget_percent", 17.0, "of K/V, to end with"),
    *(
        (name, default, what.help)
        for kind in (METHODS["directions"].Selection, METHODS["directions"].Training)
        for name, (default, what) in described(kind).items()
    ),
)


def _defaults() -> dict[str, Any]:
    """What settings are where nobody says: the bench's own, and those with one default in all methods."""
    found: dict[str, Any] = {}
    apart: set[str] = set()
    for method in METHODS.values():
        for kind in (method.Selection, method.Training, TrainSettings):
            for name, (default, _) in described(kind).items():
                if found.setdefault(name, default) != default:
                    apart.add(name)
    agreed = {name: default for name, default in found.items() if name not in apart}
    return {**agreed, **{name: default for name, default, _ in SETTINGS}}


DEFAULTS = _defaults()


@dataclass(frozen=True)
class Variant:
    """A method, and settings that are its own, whatever else is asked for.

    joined: the rule (`cns_core/joining`) by which concepts that were each learned alone become one memory;
    empty where they are learned one after another.
    """

    method: Method
    fixed: Mapping[str, Any] = field(default_factory=dict)
    joined: str = ""

    def settings(self, wanted: Mapping[str, Any]) -> dict[str, Any]:
        """Those of `wanted` that decide what this variant learns, and its own in their place."""
        kinds = (self.method.Selection, self.method.Training, TrainSettings)
        known = {f.name for kind in kinds for f in fields(kind)}
        return {name: value for name, value in {**wanted, **self.fixed}.items() if name in known}

    def selection(self, wanted: Mapping[str, Any]) -> Any:
        """The settings of what it prepares: those of `wanted` that it knows."""
        return self._settings(self.method.Selection, wanted)

    def training(self, wanted: Mapping[str, Any]) -> Any:
        """The settings of how it trains: those of `wanted` that it knows."""
        return self._settings(self.method.Training, wanted)

    def _settings(self, kind: type[Any], wanted: Mapping[str, Any]) -> Any:
        known = {f.name for f in fields(kind)}
        return kind(**{n: v for n, v in {**wanted, **self.fixed}.items() if n in known})


# By method: what suits the small base, where that is neither the bench's own setting nor the method's. Its
# weights are larger and its runs shorter than those of real models: rates are about a hundred times theirs.
ON_SMALL_BASE: dict[str, dict[str, Any]] = {
    "lora": {"weight_lr": 5e-3},
    "loha": {"weight_lr": 5e-3},
    "lokr": {"weight_lr": 5e-3},
    "oft": {"weight_lr": 3e-3},
    "l2dm": {"class_image_count": 16},
    "dreambooth": {"weight_lr": 3e-4, "class_image_count": 16},
    "orthogonal adaptation": {"weight_lr": 1e-2},
    "continual diffusion": {"weight_lr": 2e-3, "keep_earlier": 0.3},
    **{f"low-rank {way}": {"weight_lr": 1e-3} for way in ("naive", "merged", "orthogonal", "by magnitude")},
    "cidm": {"weight_lr": 3e-3, "keep_earlier": 0.1},
    "perfusion": {"weight_lr": 0.2},
    "cones": {"budget_percent": 0.3},
}

_ON_KV = {"weights": KEYS_AND_VALUES}
_WITHOUT_L_REG = {"keep_earlier": 0.0, "keep_base": 0.0}

VARIANTS: dict[str, Variant] = {
    **{name: Variant(method, ON_SMALL_BASE.get(name, {})) for name, method in METHODS.items()},
    **{f"{name} without L_reg": Variant(METHODS[name], _WITHOUT_L_REG) for name in ("cns", "random entries")},
    "boft": Variant(METHODS["oft"], {**ON_SMALL_BASE["oft"], "blocks": 16, "factors": 4}),
    # As their papers have it, but for what docs/methods.md says.
    "mix-of-show": Variant(METHODS["lora"], {**ON_SMALL_BASE["lora"], **_ON_KV}, "gradient fusion"),
    "custom diffusion": Variant(METHODS["all K/V"], {}, "closed form"),
    # The same LoRAs as Mix-of-Show's, joined otherwise; ZipLoRA joins two.
    "ziplora": Variant(METHODS["lora"], {**ON_SMALL_BASE["lora"], **_ON_KV}, "ziplora"),
    "loras summed": Variant(METHODS["lora"], {**ON_SMALL_BASE["lora"], **_ON_KV}, "sum"),
    "cns by contrast": Variant(METHODS["cns"], {"score": "contrastive", "general_share": 0.6}),
}
