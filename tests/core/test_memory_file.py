"""The file: exact round trips, other tools' keys, and everything that can be wrong with it."""

import base64
import dataclasses
import errno
import hashlib
import json
import os
import struct
from io import BytesIO
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save

from cns_core.atomic_write import write_atomically
from cns_core.captions import MAX_CAPTION, caption_from_text
from cns_core.concept import MAX_CAPTIONS, MAX_NAME_LENGTH, MAX_TOKEN
from cns_core.identity import ModelIdentity, sample_of
from cns_core.memory import ConceptMemory, LearnedConcept
from cns_core.memory_file import MemoryFileError, load_memory, save_memory
from cns_core.methods.cns.change import CnsChange
from cns_core.methods.cns.masks import NeuronMask
from cns_core.projections import ProjectionLayout
from cns_core.thumbnails import MAX_BYTES, MAX_SIDE, jpeg_of

VERSION_1, VERSION_2, VERSION_3 = (
    Path(__file__).with_name(f"memory_version_{n}.safetensors") for n in (1, 2, 3)
)
LAYOUT = ProjectionLayout(("a.to_k", "a.to_v"), ((30, 41), (20, 41)))


def make(seed, concepts=2):
    g = torch.Generator().manual_seed(seed)
    found = []
    for i in range(concepts):
        mask = NeuronMask.from_dense(
            LAYOUT, {n: torch.rand(s, generator=g) < 0.2 for n, s, _ in LAYOUT.slices()}
        )
        found.append(
            LearnedConcept(
                name=f"my dog {i}",
                token=f"<my-dog-{i}>",
                class_word="dog",
                kind="subject",
                captions=(f"a photo of <my-dog-{i}>", f"the <my-dog-{i}>"),
                method="cns",
                change=CnsChange(mask, torch.randn(mask.count(), generator=g).half()),
                token_vectors={
                    "clip_l": torch.randn(1, 8, generator=g),
                    "clip_g": torch.randn(1, 12, generator=g),
                },
                settings={"train": {"steps": 3, "prior": "none"}},
                losses={"diffusion": torch.rand(3, generator=g), "L_reg": torch.rand(3, generator=g)},
                learned_at="2026-01-01T00:00:00+00:00",
                thumbnail=jpeg_of(torch.rand(32, 300, 3, generator=g)),
            )
        )
    sample = sample_of([(torch.linspace(-1, 1, 100), torch.float16, 3)])
    return ConceptMemory(ModelIdentity("SD1", "ab" * 32, sample), LAYOUT, tuple(found))


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "m.safetensors"
    save_memory(path, make(0))
    return path


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[n], b[n]) for n in a)


def parts(path):
    raw = path.read_bytes()
    (n,) = struct.unpack("<Q", raw[:8])
    return json.loads(raw[8 : 8 + n]), raw[8 + n :]


def rewrite(path, header, body):
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)


def test_round_trip_is_exact(saved):
    torch.manual_seed(1234)  # only what is stored can make this pass
    a, b = make(0), load_memory(saved)
    assert a.digest() == b.digest() and str(a.base) == str(b.base) and a.layout == b.layout
    assert a.base.sample.values.equal(b.base.sample.values) and a.base.same_as(b.base)
    for x, y in zip(a.concepts, b.concepts, strict=True):
        for field in ("name", "token", "class_word", "kind", "method", "settings", "learned_at", "thumbnail"):
            assert getattr(x, field) == getattr(y, field)
        for field in ("losses", "token_vectors"):
            assert same(getattr(x, field), getattr(y, field))
        assert same(x.change.tensors(), y.change.tensors())
    assert same(a.stage(1).changes(), b.stage(1).changes())


def test_a_file_of_version_1_still_loads():
    memory = load_memory(VERSION_1)
    assert memory.names() == ["my dog 0", "my dog 1"] and memory.layout == LAYOUT
    flat = torch.cat([change.reshape(-1) for change in memory.changes().values()])
    # sha256 of the values that version 1 of the pack read from it
    assert hashlib.sha256(flat.numpy().tobytes()).hexdigest() == (
        "f0c2e9bc2d5d45ebc0e03b6bf9c5c3ae843056ab4008583130e8eb81302b5bf1"
    )
    # the digest that files, and keys of runs, have of it since before tokens had several vectors
    assert memory.digest() == "224e93f239a321c034f207d06e67d5b029a7ebef17121576453cec91de912830"
    first, second = memory.concepts
    assert first.vectors == 1 and first.token_vectors["clip_l"].shape == (1, 8)
    assert first.method == "cns" and first.settings == {"train": {"steps": 3, "prior": "none"}, "select": {}}
    assert {n: v[0].item() for n, v in second.losses.items()} == pytest.approx(
        {"diffusion": 0.174817, "prior": 0.305204, "L_reg": 0.433136}, abs=1e-6
    )


def test_a_file_of_version_2_still_loads():
    """It was written by `save_memory(path, make(2))`, when masks lay in files as they are."""
    memory = load_memory(VERSION_2)
    assert memory.digest() == make(2).digest()
    assert memory.digest() == "ebecdd6c1af802487aa61ada7246298beae5b72558c2afbdf8d7e5fd21c973ec"
    assert [c.change.mask for c in memory.concepts] == [c.change.mask for c in make(2).concepts]


def test_a_file_of_version_3_still_loads():
    """It was written by `save_memory(path, make(2))`, when float16 lay in files as it is."""
    assert load_memory(VERSION_3).digest() == make(2).digest()


def of_vectors(clip_l, clip_g):
    """A memory whose token stands for so many."""
    whole = make(0, concepts=1)
    vectors = {"clip_l": torch.randn(clip_l, 8), "clip_g": torch.randn(clip_g, 12)}
    return dataclasses.replace(
        whole, concepts=(dataclasses.replace(whole.concepts[0], token_vectors=vectors),)
    )


def test_a_token_of_several_vectors_comes_back(tmp_path):
    memory = of_vectors(3, 3)
    save_memory(tmp_path / "m.safetensors", memory)
    again = load_memory(tmp_path / "m.safetensors")
    assert again.digest() == memory.digest() and "3 vectors" in again.summary()
    assert same(again.concepts[0].token_vectors, memory.concepts[0].token_vectors)
    with safe_open(tmp_path / "m.safetensors", framework="pt") as file:
        assert file.get_slice("concepts.0.token.clip_g").get_shape() == [3, 12]


@pytest.mark.parametrize(("clip_l", "clip_g"), [(2, 3), (0, 0), (76, 76)])
def test_a_token_of_other_numbers_of_vectors_is_refused(tmp_path, clip_l, clip_g):
    save_memory(tmp_path / "m.safetensors", of_vectors(clip_l, clip_g))
    with pytest.raises(MemoryFileError, match=r"stands for .* vectors; expected 1 to 75, as many for each"):
        load_memory(tmp_path / "m.safetensors")


@pytest.mark.parametrize("before", [VERSION_1, VERSION_2, VERSION_3])
def test_a_memory_of_an_old_version_goes_on_in_the_new_one(tmp_path, before):
    old = load_memory(before)
    new = dataclasses.replace(make(5).concepts[0], name="third", token="<third>", captions=("the <third>",))
    save_memory(tmp_path / "m.safetensors", old.with_learned(new))
    again = load_memory(tmp_path / "m.safetensors")
    assert again.stage(2).digest() == old.digest() and len(again) == 3
    with safe_open(tmp_path / "m.safetensors", framework="pt") as file:
        assert json.loads(file.metadata()["cns_manifest"])["version"] == 4
        assert any(name.endswith(".change.mask.deflated") for name in file.keys())  # noqa: SIM118


def test_keys_that_other_tools_read(saved):
    with safe_open(saved, framework="pt") as file:
        metadata = file.metadata()
    assert metadata["ss_base_model_version"] == "sd_v1"
    assert metadata["modelspec.trigger_phrase"] == "<my-dog-0>, <my-dog-1>"
    assert metadata["modelspec.sai_model_spec"] == "1.0.0" and metadata["modelspec.architecture"].startswith(
        "stable-diffusion-v1"
    )
    assert "<my-dog-1>" in json.loads(metadata["ss_tag_frequency"])["my dog 1"]


def test_size_at_sd15_scale_stays_at_3_mb_a_concept(tmp_path):
    widths = [320] * 5 + [640] * 5 + [1280] * 6
    shapes = tuple((w, 768) for w in widths for _ in "kv")
    layout = ProjectionLayout(tuple(f"p{i}" for i in range(len(shapes))), shapes)
    assert layout.total == 19_169_280
    memory, g = ConceptMemory(ModelIdentity("SD1", "ab" * 32), layout), torch.Generator().manual_seed(0)
    sizes = []
    for i in range(3):
        mask = NeuronMask.from_dense(
            layout, {n: torch.rand(s, generator=g) < 0.065 for n, s, _ in layout.slices()}
        )
        values = torch.randn(mask.count(), generator=g).half()
        concept = LearnedConcept(
            f"c{i}",
            f"<c{i}>",
            "dog",
            "subject",
            (f"a photo of <c{i}>",),
            "cns",
            CnsChange(mask, values),
            {"clip_l": torch.zeros(1, 768)},
            {},
            {name: torch.zeros(500) for name in ("diffusion", "prior", "L_reg")},
            "",
        )
        memory = memory.with_learned(concept)
        save_memory(tmp_path / "m.safetensors", memory)
        sizes.append((tmp_path / "m.safetensors").stat().st_size)
    # 2.09 MB of values, 0.85 of the mask, 0.01 of losses and token
    assert sizes[0] < 3e6 and sizes[2] - sizes[1] < 3e6 and sizes[1] - sizes[0] < 3e6


@pytest.mark.parametrize("keep", [0, 4, 8, 100, -1, -1000])
def test_truncated(saved, keep):
    saved.write_bytes(saved.read_bytes()[:keep])
    with pytest.raises(MemoryFileError, match=r"m\.safetensors"):
        load_memory(saved)


def test_foreign_files(tmp_path):
    path = tmp_path / "lora.safetensors"
    path.write_bytes(save({"lora_unet_x.lora_down.weight": torch.zeros(4, 4)}, {"ss_network_dim": "4"}))
    with pytest.raises(MemoryFileError, match="no concept memory"):
        load_memory(path)
    path.write_bytes(b"\x80\x04\x95" + b"pickle" * 50)
    with pytest.raises(MemoryFileError):
        load_memory(path)


def test_a_giant_header_is_refused_unread(tmp_path):
    path = tmp_path / "m.safetensors"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", 50 * 2**20))
        file.truncate(60 * 2**20)
    with pytest.raises(MemoryFileError, match="header of 52,428,800 bytes"):
        load_memory(path)


def edit_manifest(path, change):
    header, body = parts(path)
    manifest = json.loads(header["__metadata__"]["cns_manifest"])
    change(manifest)
    header["__metadata__"]["cns_manifest"] = json.dumps(manifest)
    rewrite(path, header, body)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(version=99), "format version 99"),
        (lambda m: m.update(surprise=1), "manifest keys .*surprise"),
        (
            lambda m: m["projections"].__setitem__(0, ["a.to_k", 10**9, 10**9]),
            "a side of a.to_k is 1000000000",
        ),
        (
            lambda m: m["projections"].__setitem__(0, ["a.to_k", 2**20, 41]),
            "42,992,436 entries take at least",
        ),
        (lambda m: m["projections"].__setitem__(0, ["a.to_k", -3, 41]), "a side of a.to_k is -3"),
        (lambda m: m["projections"].__setitem__(0, ["a.to_k", 30, 40]), "several widths"),
        (lambda m: m["projections"].__setitem__(0, ["a.to_k", 30]), "a name, rows and columns"),
        (lambda m: m["projections"].__setitem__(0, ["a.to_v", 20, 41]), "occurs twice"),
        (lambda m: m["projections"].__setitem__(0, ["a.to_k", 31, 41]), "something else than 262 bytes"),
        (lambda m: m["concepts"][0].update(method="hope"), "method 'hope'; this pack knows "),
        (lambda m: m["concepts"][0].update(method="all K/V"), "is damaged"),
        (lambda m: m["concepts"][0].update(losses=["one"]), r"expected float32 \[any, 1\]"),
        (lambda m: m["concepts"][0].update(encoders=["clip_x"]), "lacks the tensor"),
        (lambda m: m["concepts"][0].update(encoders=[]), "no token vectors"),
        (lambda m: m["concepts"][0].update(token="dog"), "ordinary word"),
        (lambda m: m["concepts"][0].update(kind="virus"), "'virus'"),
        (lambda m: m["concepts"][1].update(m["concepts"][0]), "share a name"),
        (lambda m: m["concepts"][1].update(token="<other>"), "without its token '<other>'"),
        (lambda m: m["concepts"][1].update(token=" <My-dog-1>"), "is not written as tokens are"),
        (lambda m: m["concepts"][1].update(captions=[]), "no captions"),
        (lambda m: m["concepts"][1].update(captions=[7]), "a caption is 7, expected text"),
        (lambda m: m["concepts"][1].update(captions=["<my-dog-1>" * 10**5]), "1,000,000 characters"),
        (lambda m: m["concepts"][1].update(name="  "), "concept 2: its name is empty"),
        (lambda m: m["concepts"][1].update(name="a\ud800"), r"control character U\+D800"),
        (lambda m: m["concepts"][1].update(name="x" * 10**6), "1,000,000 characters"),
        (lambda m: m["concepts"][1].update(class_word="dog\n"), r"control character U\+000A"),
        (lambda m: m["concepts"][1].update(encoders=[5]), "5 is no name"),
        (lambda m: m["concepts"][1].update(settings={"keep": "\ud800"}), "surrogates"),
        (lambda m: m["concepts"][1].update(settings=[]), "expected a table"),
        (lambda m: m["concepts"][1].update(learned_at=3), "its date is 3"),
        (lambda m: m.update(version=True), "format version True"),
        (lambda m: m["base"].update(fingerprint="you"), "expected hexadecimal"),
        (lambda m: m["concepts"].pop(), "unexpected tensors"),
        (lambda m: m["concepts"].extend(m["concepts"] * 4096), "8,194 concepts"),
        (lambda m: m["concepts"][0].pop("kind"), "manifest keys"),
        (lambda m: m.pop("base"), "manifest keys"),
        (lambda m: m.update(concepts="none"), "'none'; expected a list"),
        (lambda m: m.update(concepts=7), "expected a list"),
    ],
)
def test_hostile_manifests(saved, change, message):
    edit_manifest(saved, change)
    with pytest.raises(MemoryFileError, match=message):
        load_memory(saved)


def test_hostile_tensors(saved):
    with safe_open(saved, framework="pt") as file:
        metadata = file.metadata()
        names = file.keys()
        tensors = {k: file.get_tensor(k).clone() for k in names}
    upper = "concepts.0.change.values.upper.deflated"
    cases = {
        "concepts.0.change.values": (torch.full((5,), float("inf")).half(), "expected values.lower alone"),
        upper: (tensors[upper][:-9].clone(), "concept 1, 'my dog 0': values.upper.deflated is cut short"),
        "concepts.0.change.mask": (torch.zeros(257, dtype=torch.uint8), "both mask and mask.deflated"),
        "concepts.0.change.mask.deflated": (
            tensors["concepts.0.change.mask.deflated"][:-9].clone(),
            "concept 1, 'my dog 0': mask.deflated is cut short",
        ),
        "concepts.0.losses": (torch.zeros(3), "expected float32"),
        "concepts.1.token.clip_l": (torch.full((1, 8), float("nan")), "not finite"),
        "concepts.0.change.more": (torch.zeros(1), "expected mask and values"),
        "concepts.9.change.mask": (torch.zeros(1, dtype=torch.uint8), "unexpected tensors"),
        "concepts.01.losses": (torch.zeros(1), "unexpected tensors"),
        "concepts.1.surprise": (torch.zeros(1), "unexpected tensors"),
        "concepts.1.losses": (torch.full((3, 2), float("nan")), "not finite"),
        "base.values": (torch.full((3, 8), float("nan")).half(), "not finite"),
        "concepts.1.token.clip_g": (torch.ones(1, 12), "not those that were written"),
        "concepts.1.change.mask.deflated": (
            tensors["concepts.0.change.mask.deflated"].clone(),
            "concept 2, 'my dog 1': .*the mask selects",
        ),
    }
    for name, (tensor, message) in cases.items():
        saved.write_bytes(save({**tensors, name: tensor}, metadata))
        with pytest.raises(MemoryFileError, match=message):
            load_memory(saved)


def test_a_hostile_mask_of_an_old_file(tmp_path):
    with safe_open(VERSION_2, framework="pt") as file:
        metadata, names = file.metadata(), file.keys()
        tensors = {name: file.get_tensor(name) for name in names}
    for bits, message in (
        (tensors["concepts.0.change.mask"] | 255, "beyond the 2050|the mask selects"),
        (tensors["concepts.0.change.mask"][:-1].clone(), "Mask bits are"),
    ):
        (tmp_path / "m.safetensors").write_bytes(save({**tensors, "concepts.0.change.mask": bits}, metadata))
        with pytest.raises(MemoryFileError, match=message):
            load_memory(tmp_path / "m.safetensors")


def _jpeg(side):
    buffer = BytesIO()
    Image.new("RGB", (side, 8)).save(buffer, "JPEG")
    return buffer.getvalue()


def test_a_thumbnail_is_optional_and_no_part_of_what_is_learned(saved):
    old = make(0)
    bare = [dataclasses.replace(c, thumbnail=b"") for c in old.concepts]
    with_none = dataclasses.replace(old, concepts=tuple(bare))
    assert with_none.digest() == old.digest()
    save_memory(saved, with_none)
    assert [c.thumbnail for c in load_memory(saved).concepts] == [b"", b""]
    with safe_open(saved, framework="pt") as file:
        assert "modelspec.thumbnail" not in file.metadata()


def test_the_newest_thumbnail_is_where_other_tools_look(saved):
    with safe_open(saved, framework="pt") as file:
        kind, content = file.metadata()["modelspec.thumbnail"].split(",")
    assert kind == "data:image/jpeg;base64" and base64.b64decode(content) == make(0).concepts[-1].thumbnail
    with Image.open(BytesIO(base64.b64decode(content))) as picture:
        assert picture.size == (256, 27)


def test_a_thumbnail_stays_small_whatever_it_shows():
    noise = torch.rand(2048, 1024, 3, generator=torch.Generator().manual_seed(0))
    jpeg = jpeg_of(noise)
    assert len(jpeg) <= MAX_BYTES and Image.open(BytesIO(jpeg)).size == (128, 256)
    assert len(jpeg_of(noise, most=2_000)) <= 2_000
    with pytest.raises(ValueError, match="expected at most 10"):
        jpeg_of(noise, most=10)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "is no JPEG"),
        (b"", "is no JPEG"),
        (b"\xff\xd8\xff" + bytes(100), "thumbnail is damaged"),
        (_jpeg(100)[:-40], "thumbnail is damaged"),
        (_jpeg(MAX_SIDE + 1), "257 x 8 pixels, expected at most 256"),
        (_jpeg(100) + bytes(MAX_BYTES), "expected at most 65,536"),
    ],
)
def test_hostile_thumbnails(saved, content, message):
    with safe_open(saved, framework="pt") as file:
        metadata, names = file.metadata(), file.keys()
        tensors = {k: file.get_tensor(k).clone() for k in names}
    tensors["concepts.1.thumbnail"] = torch.tensor(list(content), dtype=torch.uint8)
    saved.write_bytes(save(tensors, metadata))
    with pytest.raises(MemoryFileError, match=f"concept 2, 'my dog 1': .*{message}"):
        load_memory(saved)
    tensors["concepts.1.thumbnail"] = torch.zeros(2, 3)
    saved.write_bytes(save(tensors, metadata))
    with pytest.raises(MemoryFileError, match="expected uint8"):
        load_memory(saved)


def test_metadata_that_is_no_json(saved):
    header, body = parts(saved)
    header["__metadata__"]["cns_manifest"] = "[" * 100_000
    rewrite(saved, header, body)
    with pytest.raises(MemoryFileError, match="nested too deeply"):
        load_memory(saved)
    header["__metadata__"]["cns_manifest"] = '{"version": 1e999}'
    rewrite(saved, header, body)
    with pytest.raises(MemoryFileError, match="format version inf"):
        load_memory(saved)


def test_disk_full_keeps_the_old_file(saved, monkeypatch):
    before = saved.read_bytes()

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"Could not save m\.safetensors.*No space left.*Free some space"):
        save_memory(saved, make(1))
    assert saved.read_bytes() == before and set(os.listdir(saved.parent)) == {saved.name, ".cns.lock"}


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError):
        write_atomically(tmp_path / "file" / "m.safetensors", b"x")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no file modes")
def test_files_can_be_read_by_those_whom_the_umask_lets(tmp_path):
    (tmp_path / "ordinary").write_bytes(b"x")
    write_atomically(tmp_path / "m.safetensors", b"x")
    mode = (tmp_path / "m.safetensors").stat().st_mode
    assert mode == (tmp_path / "ordinary").stat().st_mode
    (tmp_path / "m.safetensors").chmod(0o640)  # the owner's choice stays
    write_atomically(tmp_path / "m.safetensors", b"y")
    assert (tmp_path / "m.safetensors").stat().st_mode & 0o777 == 0o640


def test_a_mount_that_knows_no_modes_is_written_all_the_same(tmp_path, monkeypatch):
    def refuse(path, mode):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "chmod", refuse)
    write_atomically(tmp_path / "m.safetensors", b"x")
    assert (tmp_path / "m.safetensors").read_bytes() == b"x"


def test_a_file_of_before_has_no_sample_and_a_damaged_one_is_refused(saved):
    with safe_open(saved, framework="pt") as file:
        metadata, names = file.metadata(), file.keys()
        rest = {name: file.get_tensor(name) for name in names if not name.startswith("base.")}
    saved.write_bytes(save(rest, metadata))
    assert load_memory(saved).base.sample is None
    saved.write_bytes(save({**rest, "base.values": torch.zeros(3, 8).half()}, metadata))
    with pytest.raises(MemoryFileError, match="damaged"):
        load_memory(saved)


def test_whatever_may_be_learned_can_be_read_again(tmp_path):
    """The longest words that a concept may have, in letters of three bytes."""
    token = f"<{'a' * (MAX_TOKEN - 2)}>"
    concept = dataclasses.replace(
        make(0, concepts=1).concepts[0],
        name="\u6f22" * MAX_NAME_LENGTH,
        token=token,
        class_word="\u6f22" * MAX_NAME_LENGTH,
        captions=tuple(
            caption_from_text("\u6f22" * (MAX_CAPTION - MAX_TOKEN - 2), token, "dog")
            for _ in range(MAX_CAPTIONS)
        ),
        settings={"select": {"keep": "\u6f22" * 100_000}},
    )
    memory = dataclasses.replace(make(0), concepts=(concept,))
    save_memory(tmp_path / "m.safetensors", memory)
    assert load_memory(tmp_path / "m.safetensors").digest() == memory.digest()
