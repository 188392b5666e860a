"""Keys for what is kept on disk, that stay when the same model is held in another precision.

Two holdings of one model are alike, but no hash over either gives the other's. So the first one that is met
is kept, 30 KB, and every later one that agrees with it goes by its name.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from safetensors.torch import save

from ..identity import ModelIdentity, Sample
from ..tensor_file import read_tensors
from .kept import keep, set_aside, used
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
    else:
        used(_path(same))
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
    keep(_path(identity), save(identity.sample.tensors(), about))


def _path(identity: ModelIdentity) -> Path:
    assert identity.sample is not None
    name = f"{identity.fingerprint[:16]}-{identity.sample.digest()[:16]}.safetensors"
    return work_folder("models") / name


def _read(path: Path) -> ModelIdentity | None:
    try:
        file = read_tensors(path)
        sample = Sample.read(file.tensors)
        return ModelIdentity(file.metadata["family"], file.metadata["fingerprint"], sample)
    except (KeyError, ValueError) as error:
        set_aside(path, error)
        return None
