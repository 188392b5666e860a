"""The bundled workflows, described once."""

from __future__ import annotations

from . import workflow_notes as notes
from .workflow_graph import Graph, Group, Node, Note
from .workflow_parts import (
    PICTURE,
    apply_memory,
    checkpoint,
    concept_images,
    empty_latent,
    encode,
    regions,
    sampled,
    select_and_train,
    show,
    stock_chain,
    tell,
)

PHOTO_CLIP = "openai/clip-vit-base-patch32"  # the workflows are for checkpoints that draw photos
PREVIEW = "a photo of {} on a beach"  # of the concept that is being learned
PANDA_PROMPT = "a photo of <my-panda> in the snow"
TEAPOT_PROMPT = "a photo of <my-teapot> in a meadow"
HALVES = ("a photo of <my-panda> in a meadow", TEAPOT_PROMPT)  # left and right
BOTH_PROMPT = "a photo of <my-panda> and <my-teapot> in a meadow"
THIRDS = (HALVES[0], TEAPOT_PROMPT, "a photo of <my-parrot> in a meadow")
SHARED_PROMPT = PANDA_PROMPT.replace("<my-panda>", "embedding:my-panda")
PLAIN_PROMPT = "a photo of a red bicycle by a brick wall"
SHOWN_OF_MATRIX = (("heat_map", "Scores"), ("curve", "Forgetting"), ("grid", "Every concept at every stage"))
# Its title, its name in Choose Method (none of the pack's own), and of its pictures' files.
COMPARED = (
    ("Guarded directions", None, "directions"),
    ("LoRA", "lora", "lora"),
    ("Textual Inversion", "token alone", "token"),
)
BLUE, GREEN, OLIVE, GREY = "#3f789e", "#3f7a4f", "#8a7a3a", "#888888"


def learn_concept() -> Graph:
    """One concept from a folder of pictures: select, train, save, draw and score."""
    base = checkpoint()
    concept = concept_images("my-panda", "bear", "panda")
    neurons, train = select_and_train(base, concept, PREVIEW)
    save = Node("SaveConceptMemory", {"memory": train["memory"], "filename": notes.FIRST_FILE})
    apply = apply_memory(base, train["memory"])
    prompt = Node("PrimitiveStringMultiline", {"value": PANDA_PROMPT}, "Prompt")
    drawing = stock_chain(apply["MODEL"], apply["CLIP"], base, prompt["STRING"], "learn")
    score = Node(
        "CLIPScore",
        {
            "image": drawing[-2]["IMAGE"],
            "prompt": prompt["STRING"],
            "clip_model": PHOTO_CLIP,
            "concept": concept["concept"],
        },
    )
    return Graph(
        "learn_concept",
        [
            [Group("Read me", [[Note(notes.LEARN, "Learn one concept", 360)]], GREY)],
            [Group("1. Model and pictures", [[base, concept, show(concept["images"], "The pictures")]])],
            [
                Group(
                    "2. Select and train",
                    [
                        [
                            neurons,
                            show(neurons["image"], "What may move"),
                            tell(neurons["text"], "What is protected"),
                        ],
                        [train],  # nothing beneath it: it grows while it learns
                        [save, show(train["loss_curve"], "Loss"), tell(train["text"], "Training")],
                    ],
                    GREEN,
                )
            ],
            [Group("3. Draw it", [[apply, prompt, *drawing[:3]], drawing[3:]], OLIVE)],
            [
                Group(
                    "4. Measure",
                    [[score, tell(score["text"], "Scores"), Note(notes.SCORE, "Scores", 120, 330)]],
                )
            ],
        ],
    )


def add_concept() -> Graph:
    """A second concept on top of the first; the first drawn before and after, at one seed."""
    base = checkpoint()
    loaded = Node("LoadConceptMemory", {"file": f"{notes.FIRST_FILE}.safetensors"})
    concept = concept_images("my-teapot", "cup", "teapot")
    neurons, train = select_and_train(base, concept, PREVIEW, loaded["memory"])
    save = Node("SaveConceptMemory", {"memory": train["memory"], "filename": notes.SECOND_FILE})
    before = apply_memory(base, loaded["memory"], "Before: one concept")
    after = apply_memory(base, train["memory"], "After: both concepts")
    prompt = Node("PrimitiveStringMultiline", {"value": PANDA_PROMPT}, "Prompt of the first concept")
    latent = empty_latent()
    common = {"latent": latent, "negative": encode(base["CLIP"], "", "Negative prompt")}
    old_before = stock_chain(before["MODEL"], before["CLIP"], base, prompt["STRING"], "add_before", **common)
    old_after = stock_chain(after["MODEL"], after["CLIP"], base, prompt["STRING"], "add_after", **common)
    new = stock_chain(after["MODEL"], after["CLIP"], base, TEAPOT_PROMPT, "add_new", **common)
    return Graph(
        "add_concept",
        [
            [Group("Read me", [[Note(notes.ADD, "Add a concept", 340)]], GREY)],
            [
                Group(
                    "1. Old and new",
                    [[base, loaded, concept, show(concept["images"], "The pictures")]],
                )
            ],
            [
                Group(
                    "2. Select and train",
                    [
                        [
                            neurons,
                            show(neurons["image"], "What may move"),
                            tell(neurons["text"], "What is protected"),
                        ],
                        [train],  # nothing beneath it: it grows while it learns
                        [save, show(train["loss_curve"], "Loss"), tell(train["text"], "Training")],
                    ],
                    GREEN,
                )
            ],
            [
                Group(
                    "3. Apply before and after", [[before, after, prompt, common["negative"], latent]], OLIVE
                )
            ],
            [Group("First concept, before", [old_before], OLIVE)],
            [Group("First concept, after", [old_after], OLIVE)],
            [Group("New concept", [new], OLIVE)],
        ],
    )


def draw_concepts() -> Graph:
    """A saved memory at work: one concept, two side by side, a plain prompt with and without the memory."""
    base = checkpoint()
    loaded = Node("LoadConceptMemory", {"file": f"{notes.SECOND_FILE}.safetensors"})
    apply = apply_memory(base, loaded["memory"])
    plain = Node("PrimitiveStringMultiline", {"value": PLAIN_PROMPT}, "Plain prompt")
    latent = empty_latent()
    common = {"latent": latent, "negative": encode(base["CLIP"], "", "Negative prompt")}
    model, clip = apply["MODEL"], apply["CLIP"]
    one = stock_chain(model, clip, base, PANDA_PROMPT, "draw_one", **common)
    both = regions(clip, HALVES)
    two = [*both, *sampled(model, base, both[-1]["CONDITIONING"], "draw_two", **common)]
    untouched = stock_chain(
        base["MODEL"], base["CLIP"], base, plain["STRING"], "draw_plain_untouched", **common
    )
    personalized = stock_chain(model, clip, base, plain["STRING"], "draw_plain_personalized", **common)
    known = tell(loaded["text"], "What it knows")
    return Graph(
        "draw_concepts",
        [
            [Group("Read me", [[Note(notes.DRAW, "Draw concepts", 320)]], GREY)],
            [Group("1. Model and memory", [[base, loaded, known]])],
            [Group("2. Apply; what all share", [[apply, plain, common["negative"], latent]])],
            [Group("One concept", [one], OLIVE)],
            [Group("Two side by side", [two[:5], two[5:]], OLIVE)],
            [Group("Plain, untouched model", [untouched], GREEN)],
            [Group("Plain, with the memory", [personalized], GREEN)],
        ],
    )


def region_control() -> Graph:
    """Two and three concepts in one picture, each in its own part of it."""
    base = checkpoint()
    loaded = Node("LoadConceptMemory", {"file": f"{notes.THIRD_FILE}.safetensors"})
    apply = apply_memory(base, loaded["memory"])
    negative = encode(base["CLIP"], "", "Negative prompt")
    square, wide = empty_latent(), empty_latent(768)
    model, clip = apply["MODEL"], apply["CLIP"]
    one = stock_chain(model, clip, base, BOTH_PROMPT, "region_one_prompt", latent=square, negative=negative)
    two = regions(clip, HALVES)
    two += sampled(model, base, two[-1]["CONDITIONING"], "region_two", square, negative)
    three = regions(clip, THIRDS)
    three += sampled(model, base, three[-1]["CONDITIONING"], "region_three", wide, negative)
    return Graph(
        "region_control",
        [
            [Group("Read me", [[Note(notes.REGIONS, "Each concept in its place", 380)]], GREY)],
            [Group("1. Model and memory", [[base, loaded, tell(loaded["text"], "What it knows")]])],
            [Group("2. Apply; what all share", [[apply, negative, square, wide]])],
            [Group("One prompt for both", [one], OLIVE)],
            [Group("Two parts", [two[:5], two[5:]], GREEN)],
            [Group("Three parts", [three[:3], three[3:6], three[6:]], GREEN)],
        ],
    )


def concept_matrix() -> Graph:
    """Every concept of a memory, drawn and scored as of every stage."""
    base = checkpoint()
    loaded = Node("LoadConceptMemory", {"file": f"{notes.SECOND_FILE}.safetensors"})
    matrix = Node(
        "ConceptMatrix",
        {
            "model": base["MODEL"],
            "clip": base["CLIP"],
            "vae": base["VAE"],
            "memory": loaded["memory"],
            "clip_model": PHOTO_CLIP,
            "reference_folders": "<my-panda>: panda\n<my-teapot>: teapot",
        },
    )
    pictures = [show(matrix[name], title) for name, title in SHOWN_OF_MATRIX]
    return Graph(
        "concept_matrix",
        [
            [Group("Read me", [[Note(notes.MATRIX, "What was forgotten", 380)]], GREY)],
            [Group("1. Model and memory", [[base, loaded, tell(loaded["text"], "What it knows")]])],
            [Group("2. Draw and score", [[matrix, tell(matrix["text"], "Figures")]], GREEN)],
            [Group("3. Look", [pictures[:2], pictures[2:]], OLIVE)],
        ],
    )


def share_concept() -> Graph:
    """A memory as a LoRA and embeddings, drawn with by stock nodes alone."""
    base = checkpoint()
    loaded = Node("LoadConceptMemory", {"file": f"{notes.SECOND_FILE}.safetensors"})
    export = Node("ExportConceptMemory", {"memory": loaded["memory"], "filename": notes.SECOND_FILE})
    lora = Node(
        "LoraLoaderModelOnly",
        {"model": base["MODEL"], "lora_name": f"{notes.SECOND_FILE}.safetensors", "strength_model": 1.0},
    )
    stock = stock_chain(lora["MODEL"], base["CLIP"], base, SHARED_PROMPT, "share_stock")
    apply = apply_memory(base, loaded["memory"])
    own = stock_chain(apply["MODEL"], apply["CLIP"], base, PANDA_PROMPT, "share_memory")
    return Graph(
        "share_concept",
        [
            [Group("Read me", [[Note(notes.SHARE, "Share concepts", 380)]], GREY)],
            [Group("1. Model and memory", [[base, loaded]])],
            [Group("2. Export", [[export, tell(export["text"], "What was written")]])],
            [Group("3. Drawn by stock nodes alone", [[lora, *stock[:3]], stock[3:]], GREEN)],
            [Group("For comparison: with the memory", [[apply, *own[:3]], own[3:]], OLIVE)],
        ],
    )


def img2img_concept() -> Graph:
    """A picture drawn over by a learned concept."""
    base = checkpoint()
    loaded = Node("LoadConceptMemory", {"file": f"{notes.SECOND_FILE}.safetensors"})
    apply = apply_memory(base, loaded["memory"])
    picture = Node("LoadImage", {"image": "example.png"}, height=PICTURE)
    scaled = Node(
        "ImageScale",
        {
            "image": picture["IMAGE"],
            "upscale_method": "lanczos",
            "width": 512,
            "height": 512,
            "crop": "center",
        },
    )
    encoded = Node("VAEEncode", {"pixels": scaled["IMAGE"], "vae": base["VAE"]})
    prompts = [
        encode(apply["CLIP"], TEAPOT_PROMPT, "Positive prompt"),
        encode(base["CLIP"], "", "Negative prompt"),
    ]
    drawn = sampled(
        apply["MODEL"], base, prompts[0]["CONDITIONING"], "img2img", encoded, prompts[1], denoise=0.6
    )
    return Graph(
        "img2img_concept",
        [
            [Group("Read me", [[Note(notes.OVER, "Draw over a picture", 300)]], GREY)],
            [Group("1. Model and memory", [[base, loaded, apply]])],
            [Group("2. The picture", [[picture, scaled, encoded]])],
            [Group("3. Draw over it", [[*prompts, drawn[0]], drawn[1:]], GREEN)],
        ],
    )


def compare_methods() -> Graph:
    """One concept by three methods, drawn side by side at one seed."""
    base = checkpoint()
    concept = concept_images("my-panda", "bear", "panda")
    latent = empty_latent()
    common = {"latent": latent, "negative": encode(base["CLIP"], "", "Negative prompt")}
    prompt = Node("PrimitiveStringMultiline", {"value": PANDA_PROMPT}, "Prompt")
    columns = []
    for title, method, prefix in COMPARED:
        neurons, train = select_and_train(base, concept, "", method=method)
        apply = apply_memory(base, train["memory"])
        drawn = stock_chain(
            apply["MODEL"], apply["CLIP"], base, prompt["STRING"], f"compare_{prefix}", **common
        )
        learned = [[neurons, tell(neurons["text"], "What may move")], [train]]
        columns.append([Group(title, learned, GREEN), Group(f"Drawn: {title}", [[apply, *drawn]], OLIVE)])
    return Graph(
        "compare_methods",
        [
            [Group("Read me", [[Note(notes.COMPARE, "Compare methods", 340)]], GREY)],
            [
                Group("1. Model and pictures", [[base, concept, show(concept["images"], "The pictures")]]),
                Group("2. What all share", [[prompt, common["negative"], latent]]),
            ],
            *([group] for column in columns for group in column),
        ],
    )


GRAPHS = (
    learn_concept,
    add_concept,
    draw_concepts,
    region_control,
    concept_matrix,
    share_concept,
    img2img_concept,
    compare_methods,
)
