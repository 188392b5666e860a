"""Keys for what is kept on disk, that stay when the same model is held in another precision.

Two holdings of one model are alike, but no hash over either gives the other's. So the first one that is met
is kept, 30 KB, and every later one that agrees with it goes by its name.
"""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from ..atomic_write import write_atomically
from ..identity import ModelIdentity, Sample
from .paths import work_folder
from .types import Clip


def lasting_key(identity: ModelIdentity) -> str:
    """The same text for one model in whatever precision it is held: that of the holding that was met first.

    The identity must have a sample, as all that are read from a loaded model have.
    """
    paths = sorted(work_folder("models").glob("*.safetensors"))
    known = [found for found in map(_read, paths) if found is not None]
    # One that is held in few bits may agree with several: the equal one comes first.
    known.sort(key=lambda other: other.fingerprint != identity.fingerprint)
    same = next((other for other in known if other.same_as(identity)), None)
    if same is None:
        _keep(identity)
    return _key(same or identity)


def computes_as(identity: ModelIdentity, clip: Clip) -> str:
    """`lasting_key` of a model or its text encoders, with how CLIP is set to read prompts."""
    options = sorted(getattr(clip, "tokenizer_options", {}).items())
    return f"{lasting_key(identity)} clip skip {clip.layer_idx} {options}"


def lasting_digest(*parts: str) -> str:
    """A short name for a file of what comes of these parts."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


def _key(identity: ModelIdentity) -> str:
    assert identity.sample is not None
    return f"{identity.family} {identity.fingerprint} {identity.sample.digest()}"


def _keep(identity: ModelIdentity) -> None:
    assert identity.sample is not None
    about = {"family": identity.family, "fingerprint": identity.fingerprint}
    name = f"{identity.fingerprint[:16]}-{identity.sample.digest()[:16]}.safetensors"
    write_atomically(work_folder("models") / name, save(identity.sample.tensors(), about))


def _read(path: Path) -> ModelIdentity | None:
    try:
        with safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
            sample = Sample.read({name: file.get_tensor(name) for name in Sample.NAMES})
        return ModelIdentity(about["family"], about["fingerprint"], sample)
    except (SafetensorError, KeyError, ValueError, OSError) as error:
        logging.warning(f"CNS: {path} is damaged ({error}); delete it.")
        return None
