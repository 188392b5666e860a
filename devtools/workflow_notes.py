"""The texts on the canvas of the bundled workflows (Markdown), and what they share with the graphs."""

from __future__ import annotations

FIRST_FILE, SECOND_FILE, THIRD_FILE = "panda", "panda_and_teapot", "panda_teapot_parrot"

LEARN = f"""# Learn one concept

**Before the first run**

1. Copy the folder `panda` from this pack's `workflows/images` into ComfyUI's `input` folder, or put 4 to 20
   pictures of your own into a folder there. Press **R**, then choose it in *Load Concept Images*.
2. Choose an SD 1.5 checkpoint. (SDXL: set the resolution and the empty latent to 1024.)

**Then queue.** The first time for a checkpoint, a thousand general prompts or more are read, so that what
they say is left alone: seconds on a GPU, minutes without one. 500 steps take some minutes on a GPU. Cancel
keeps what was learned: queue again to go on.

**Your own concept**: change *name*, *class word* (the ordinary word for what it is) and *folder* in *Load
Concept Images*, the token in *Prompt*, and *filename* in *Save Concept Memory*. The token is made from the
name: `<my-rex>` for `my-rex`.

The result is saved as `models/concept_memory/{FIRST_FILE}.safetensors`. The workflow **add_concept** goes on
from there.
"""

COMPARE = """# Compare methods

Learns one concept by three methods from the same pictures, and draws each by the same prompt and seed.

Copy the folder `panda` from this pack's `workflows/images` into ComfyUI's `input` folder, or choose a folder
of yours, and queue. That is three trainings.

- **Guarded directions**: the pack's own, in *Select Concept Neurons*.
- **LoRA**: in *Choose Method*. Choose any other there; the settings of the chosen one are shown.
- **Textual Inversion**: the token's vectors alone. *vectors* in *Continual Train* says how many.

`docs/methods.md` of this pack tells of every method: its paper, its formula, what is kept of it.
"""

SCORE = """The first score downloads a CLIP model of 600 MB. Without a connection select *CLIP Score* and
press **Ctrl+B** to bypass it, or name a folder below `models/` as its *CLIP model*.
"""

ADD = f"""# Add a second concept

Goes on from **learn_concept**: loads `{FIRST_FILE}.safetensors`, learns `<my-teapot>` on top of it, and saves
both as `{SECOND_FILE}.safetensors`.

Copy the folder `teapot` from this pack's `workflows/images` into ComfyUI's `input` folder first, or choose a
folder of yours. Use the **same checkpoint** as before. **Your own concept**: change its *name*, *class word*
and *folder*, its token in the prompt of the group *New concept*, the files to load and to save, and the token
of your first concept in the prompt that is named after it.

On the right the first concept is drawn twice at the same seed, with the memory as it was and as it is now:
the two pictures show how much of it was forgotten. The last one shows the new concept.

*What may move* shows beneath the bars how much the first concept will hear of the second. The memory must be
connected to both *Select Concept Neurons* and *Continual Train*.
"""

DRAW = f"""# Draw with what was learned

Loads `{SECOND_FILE}.safetensors`, made by **add_concept**. Choose your own file and checkpoint at the left.

Tokens work in any prompt, a thing and a style together too. Weights such as `(<my-panda>:1.2)` work as well.

**Two things side by side** get a prompt for each half of the picture: in one prompt two learned things tend
to run into one.

The two pictures in green have no token in their prompt: one from the untouched model, one with the memory
applied. The nearer they are, the less the learning disturbed everything else.
"""

REGIONS = f"""# Each concept in its place

In one prompt two learned things tend to run into one, or one takes the other's place: see *One prompt for
both*. Given a part of the picture each, by the stock node *Conditioning (Set Area with Percentage)*, both are
there.

Loads `{THIRD_FILE}.safetensors`, with three concepts. To make it, open **add_concept** once more, with
`{SECOND_FILE}.safetensors` as the file to load, the pack's pictures of the `parrot`, the name `my-parrot`,
the class word `bird`, and this file name to save. With two concepts, delete the group *Three parts* and
choose your own file.

A style needs no place of its own: write its token into each prompt.
"""

MATRIX = f"""# What was forgotten

Loads `{SECOND_FILE}.safetensors`, made by **add_concept**, and draws each concept as the model drew it after
each stage: right after it was learned, and after every later concept. Each picture is compared with the
concept's own pictures, from the folders named in *reference folders*.

*Scores* is a table of likeness: a row for each concept, a column for each stage. *Forgetting* is the same as
curves: flat is good. The text has the mean at the end, the forgetting, and what became of prompts without any
concept.

Pictures are kept: after Cancel queue again to go on, and after one more concept only the new stage is drawn.
The first score downloads a CLIP model of 600 MB, or name a folder below `models/`.
"""

SHARE = f"""# Share concepts

For people who do not have this pack: one LoRA for all weights, and an embedding for each token.

1. Queue. *Export Concept Memory* writes `models/loras/{SECOND_FILE}.safetensors` and
   `models/embeddings/my-panda.safetensors`, and `my-teapot`. The group in green waits for these files, and is
   left out the first time.
2. Press **R**, and queue again. The group in green draws with stock nodes alone, and the picture at the right
   with the memory: they are the same.

Give away the files and tell what to write: `embedding:my-panda` in place of `<my-panda>`.

The form *diffusers* writes a folder for that library in ComfyUI's output folder, and tells the lines of
Python to load it with.
"""

OVER = f"""# Draw over a picture

Loads `{SECOND_FILE}.safetensors`, made by **add_concept**, and draws the teapot over the thing in a picture
of yours, which keeps its composition.

*denoise* decides how much stays: at 0.4 little changes, at 0.8 little stays. Choose a picture that shows
something of about the same shape at the same place.
"""
