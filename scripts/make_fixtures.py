#!/usr/bin/env python3
"""Makes fixtures/ from diffusers: the tensors of the full-size models, and a tiny model with its output.

    make_fixtures.py [-o fixtures]

structure/MODEL/config.json    the model's configuration as diffusers saves it
structure/MODEL/tensors.tsv    a tensor per line: diffusers' name, the original layout's name, shape
golden/unet/                   a tiny SDXL-shaped UNet as diffusers saves it
golden/io.safetensors          inputs under the package's names, and diffusers' `noise_pred`

Versions and seeds are in the first line of each tensors.tsv and in the metadata of io.safetensors.
"""

import argparse
import sys
from pathlib import Path

import diffusers
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import save_file

import diffusers_models as models

VERSIONS = f"diffusers {diffusers.__version__}, torch {torch.__version__.split('+')[0]}"
SEED = 20
GOLDEN_SIZE = (16, 24)  # height and width of the latents
GOLDEN_TOKENS = 12

FULL_SIZE = {
    "sdxl-base": {
        **models.SDXL,
        "block_out_channels": [320, 640, 1280],
        "attention_head_dim": [5, 10, 20],
        "transformer_layers_per_block": [1, 2, 10],
    },
    "sdxl-refiner": {
        **models.REFINER,
        "block_out_channels": [384, 768, 1536, 1536],
        "attention_head_dim": [6, 12, 24, 24],
        "transformer_layers_per_block": 4,
    },
    "sd15": {**models.SD15, "block_out_channels": [320, 640, 1280, 1280]},
    "sd15-inpainting": {**models.SD15, "block_out_channels": [320, 640, 1280, 1280], "in_channels": 9},
    "sd21": {
        **models.SD21,
        "block_out_channels": [320, 640, 1280, 1280],
        "attention_head_dim": [5, 10, 20, 20],
    },
    "ssd-1b": {
        **models.SDXL,
        "block_out_channels": [320, 640, 1280],
        "attention_head_dim": [5, 10, 20],
        "transformer_layers_per_block": [1, [2, 2], [4, 4]],
        "reverse_transformer_layers_per_block": [[4, 4, 10], [2, 1, 1], 1],
        "mid_block_type": "UNetMidBlock2D",
    },
}
GOLDEN = {
    **models.SDXL,
    **models.blocks("DC"),
    "sample_size": 16,
    "block_out_channels": [32, 48],
    "layers_per_block": 1,
    "attention_head_dim": [1, 2],
    "transformer_layers_per_block": [1, 1],
    "cross_attention_dim": 64,
    "norm_num_groups": 8,
    "addition_time_embed_dim": 32,
    "projection_class_embeddings_input_dim": 64 + 6 * 32,
}


def write_structure(folder, config):
    """config.json and tensors.tsv of a model that is never given memory."""
    with torch.device("meta"):
        model = UNet2DConditionModel(**config)
    model.save_config(folder)
    lines = [f"# {VERSIONS}; diffusers, original, shape"]
    state = model.state_dict()
    for name, original in sorted(models.original_names(model).items()):
        lines.append(f"{name}\t{original}\t{','.join(map(str, state[name].shape))}")
    (folder / "tensors.tsv").write_text("\n".join(lines) + "\n")


def write_golden(folder):
    model = models.make(GOLDEN, SEED)
    models.save(model, folder)
    inputs = models.make_inputs(GOLDEN, GOLDEN_SIZE, tokens=GOLDEN_TOKENS, seed=SEED)
    expected = models.predict(models.rounded(model, "fp16"), inputs)
    tensors = {
        name: tensor if name in ("timestep", "time_ids") else tensor.half() for name, tensor in inputs.items()
    }
    made_by = {"made_by": f"{VERSIONS}, seed {SEED}"}
    save_file({**tensors, "noise_pred": expected}, folder / "io.safetensors", made_by)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("-o", "--output", type=Path, default=Path(__file__).parent.parent / "fixtures")
    folder = parser.parse_args().output
    for name, config in FULL_SIZE.items():
        write_structure(folder / "structure" / name, config)
    write_golden(folder / "golden")


if __name__ == "__main__":
    sys.exit(main())
