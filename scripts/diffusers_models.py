#!/usr/bin/env python3
"""Small random UNets made with diffusers, of every family, saved in every layout that people have.

    diffusers_models.py MODEL -o DIR [--layout diffusers|original] [--dtype fp16|fp32|bf16|...]
                        [--sharded] [--variant fp16] [--seed N]

Every parameter is random, the norms' too, so that a wrong or forgotten one shows in the output, and
scaled so that activations stay small in fp16 and attention is far from uniform.
"""

import argparse
import json
import sys
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint
from safetensors.torch import save_file

torch.set_grad_enabled(False)

DOWN, CROSS_DOWN = "DownBlock2D", "CrossAttnDownBlock2D"
UP, CROSS_UP = "UpBlock2D", "CrossAttnUpBlock2D"
DTYPES = {
    "fp16": torch.float16,
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "f8_e4m3": torch.float8_e4m3fn,
    "f8_e5m2": torch.float8_e5m2,
}
ORIGINAL_PREFIX = "model.diffusion_model."


def blocks(pattern):
    """Block types from a pattern such as `DCC`, as diffusers names them."""
    return {
        "down_block_types": [CROSS_DOWN if letter == "C" else DOWN for letter in pattern],
        "up_block_types": [CROSS_UP if letter == "C" else UP for letter in reversed(pattern)],
    }


# `attention_head_dim` is the number of heads: diffusers keeps the misnomer for old configs.
SDXL = {
    **blocks("DCC"),
    "sample_size": 128,
    "block_out_channels": [64, 64, 128],
    "attention_head_dim": [1, 1, 2],
    "transformer_layers_per_block": [1, 1, 2],
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 1280 + 6 * 256,
}
REFINER = {
    **SDXL,
    **blocks("DCCD"),
    "block_out_channels": [64, 64, 128, 128],
    "attention_head_dim": [1, 1, 2, 2],
    "transformer_layers_per_block": 2,
    "cross_attention_dim": 1280,
    "projection_class_embeddings_input_dim": 1280 + 5 * 256,
}
SD15 = {
    **blocks("CCCD"),
    "sample_size": 64,
    "block_out_channels": [64, 64, 96, 96],
    "attention_head_dim": 8,
    "cross_attention_dim": 768,
}
SD21 = {
    **SD15,
    "sample_size": 96,
    "block_out_channels": [64, 64, 128, 128],
    "attention_head_dim": [1, 1, 2, 2],
    "cross_attention_dim": 1024,
    "use_linear_projection": True,
}
MODELS = {
    "sdxl": SDXL,
    "refiner": REFINER,
    "sd15": SD15,
    "sd21": SD21,
    "sd15-inpainting": {**SD15, "in_channels": 9},
    # As SSD-1B: a depth per layer, other depths on the way up, a middle of one resnet.
    "sdxl-nested": {
        **SDXL,
        "transformer_layers_per_block": [1, [1, 2], [2, 1]],
        "reverse_transformer_layers_per_block": [[1, 1, 3], [2, 1, 1], 1],
        "mid_block_type": "UNetMidBlock2D",
    },
    # The middle's depth is the first one of the last down block's.
    "sdxl-nested-middle": {
        **SDXL,
        "transformer_layers_per_block": [1, [1, 1], [1, 2]],
        "reverse_transformer_layers_per_block": [[1, 1, 2], [1, 1, 1], 1],
    },
    "sdxl-no-middle": {**SDXL, "transformer_layers_per_block": 1, "mid_block_type": None},
    "sdxl-one-layer": {**SDXL, "layers_per_block": 1},
    "sd15-three-layers": {**SD15, "layers_per_block": 3},
    # Widths that only the config explains.
    "sd21-groups16": {
        **SD21,
        "norm_num_groups": 16,
        "block_out_channels": [48, 80, 112, 112],
        "attention_head_dim": [1, 2, 2, 4],
    },
}


# What these modules add ends in a norm. Small, so that a norm with a wrong epsilon shows.
FEEDS_NORM = (
    "conv_in.",
    "conv1.",
    "time_emb_proj.",
    "conv2.",
    "proj_in.",
    "to_out.0.",
    "ff.net.2.",
)
SMALL = 1 / 16


def make(config, seed=0):
    """The model of a config, in fp32, with every parameter drawn from `seed`."""
    model = UNet2DConditionModel(**config).eval()
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in sorted(model.named_parameters()):
        noise = torch.randn(parameter.shape, generator=generator)
        scale = SMALL if any(part in name for part in FEEDS_NORM) else 1.0
        if ".to_q." in name or ".to_k." in name:
            scale = 1.4  # without this every attention is close to a plain mean
        if parameter.dim() > 1:
            parameter.copy_(noise * scale / parameter[0].numel() ** 0.5)
        elif name.endswith(".weight"):
            parameter.copy_(1 + 0.25 * noise)
        else:
            parameter.copy_(0.2 * scale * noise)
    return model


def rounded(model, dtype):
    """Makes the model hold, in fp32, what a package converted from its `dtype` checkpoint holds in fp16."""
    for parameter in model.parameters():
        parameter.copy_(parameter.to(DTYPES[dtype]).to(torch.float16).float())
    return model


def time_id_count(config):
    """How many time ids the model takes: 6, the refiner 5, models without them 0."""
    if not config.get("addition_embed_type"):
        return 0
    return 5 if config["projection_class_embeddings_input_dim"] == 1280 + 5 * 256 else 6


def make_inputs(config, size, batch=2, tokens=77, seed=1):
    """Inputs by the package's names and shapes; `size` is `(height, width)` of the latents. What a
    package receives as fp16 is rounded to it."""
    generator = torch.Generator().manual_seed(seed)

    def noise(*shape):
        return torch.randn(shape, generator=generator).half().float()

    inputs = {
        "sample": noise(batch, config.get("in_channels", 4), *size),
        "timestep": torch.tensor([981.0, 1.0, 500.0, 20.0])[:batch],
        "encoder_hidden_states": noise(batch, config["cross_attention_dim"], 1, tokens),
    }
    count = time_id_count(config)
    if count:
        ids = [[1024, 1024, 0, 0, 1024, 1024], [768, 1344, 64, 8, 1024, 1024]]
        if count == 5:  # the last one is the aesthetic score
            ids = [[1024, 1024, 0, 0, 6], [1024, 1024, 0, 0, 2.5]]
        inputs["time_ids"] = torch.tensor([ids[row % 2] for row in range(batch)], dtype=torch.float32)
        text_width = config["projection_class_embeddings_input_dim"] - count * config["addition_time_embed_dim"]
        inputs["text_embeds"] = noise(batch, text_width)
    return inputs


def predict(model, inputs):
    """What diffusers computes for the package's inputs."""
    added = {key: inputs[key] for key in ("time_ids", "text_embeds") if key in inputs}
    hidden = inputs["encoder_hidden_states"].squeeze(2).transpose(1, 2)
    return model(inputs["sample"], inputs["timestep"], hidden, added_cond_kwargs=added or None).sample


# The original layout

RESNET_NAMES = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}


def _module_names(model):
    """(diffusers, original) names of the modules whose parameters keep their names below."""
    yield from (
        ("conv_in", "input_blocks.0.0"),
        ("time_embedding.linear_1", "time_embed.0"),
        ("time_embedding.linear_2", "time_embed.2"),
        ("add_embedding.linear_1", "label_emb.0.0"),
        ("add_embedding.linear_2", "label_emb.0.2"),
        ("conv_norm_out", "out.0"),
        ("conv_out", "out.2"),
    )
    index = 1
    for b, block in enumerate(model.down_blocks):
        for layer in range(len(block.resnets)):
            yield from _layer_names(block, f"down_blocks.{b}", layer, f"input_blocks.{index}")
            index += 1
        if block.downsamplers:
            yield f"down_blocks.{b}.downsamplers.0.conv", f"input_blocks.{index}.0.op"
            index += 1
    if model.mid_block:
        # Resnets and attentions alternate.
        for i in range(len(model.mid_block.resnets)):
            yield from _resnet_names(f"mid_block.resnets.{i}", f"middle_block.{2 * i}")
            yield f"mid_block.attentions.{i}", f"middle_block.{2 * i + 1}"
    index = 0
    for b, block in enumerate(model.up_blocks):
        for layer in range(len(block.resnets)):
            yield from _layer_names(block, f"up_blocks.{b}", layer, f"output_blocks.{index}")
            index += 1
        if block.upsamplers:
            place = 2 if hasattr(block, "attentions") else 1
            yield f"up_blocks.{b}.upsamplers.0.conv", f"output_blocks.{index - 1}.{place}.conv"


def _layer_names(block, name, layer, original):
    yield from _resnet_names(f"{name}.resnets.{layer}", f"{original}.0")
    if hasattr(block, "attentions"):
        yield f"{name}.attentions.{layer}", f"{original}.1"


def _resnet_names(name, original):
    return ((f"{name}.{ours}", f"{original}.{theirs}") for ours, theirs in RESNET_NAMES.items())


def original_names(model):
    """diffusers' tensor names -> the original layout's, without prefix. Proved by diffusers' own
    conversion, which must give every name and tensor back."""
    modules = dict(_module_names(model))
    state = model.state_dict()
    names = {}
    for name in state:
        parts = name.split(".")
        heads = [".".join(parts[:n]) for n in range(len(parts), 0, -1)]
        head = next(head for head in heads if head in modules)
        names[name] = modules[head] + name[len(head) :]
    original = {ORIGINAL_PREFIX + names[name]: tensor for name, tensor in state.items()}
    back = convert_ldm_unet_checkpoint(original, dict(model.config))
    if back.keys() != state.keys() or any(back[name] is not state[name] for name in state):
        raise AssertionError("the original layout does not convert back to diffusers'")
    return names


# Saving


def save(
    model,
    folder,
    layout="diffusers",
    dtype="fp16",
    sharded=False,
    variant=None,
    index=None,
    prefix=ORIGINAL_PREFIX,
    leftovers=True,
):
    """Saves a checkpoint in `folder` and returns the path to convert: the folder of a diffusers
    pipeline, or the single file of the original layout. `index` renames the shards' index, which
    versions of diffusers call differently; `leftovers` adds tensors of other parts of a checkpoint."""
    folder = Path(folder)
    if layout == "diffusers":
        _save_diffusers(model, folder / "unet", DTYPES[dtype], sharded, variant, index)
        return folder
    state = model.state_dict()
    tensors = {prefix + new: state[old].to(DTYPES[dtype]) for old, new in original_names(model).items()}
    if leftovers:
        tensors |= {
            "model_ema.decay": torch.tensor(0.9999),
            "model_ema.num_updates": torch.tensor(7, dtype=torch.int32),
            "denoiser.sigmas": torch.linspace(0.03, 14.6, 1000),
            "first_stage_model.decoder.conv_in.weight": torch.ones(4, 4, 3, 3),
            "conditioner.embedders.0.transformer.text_model.final_layer_norm.weight": torch.ones(8),
            "global_step": torch.tensor(1000),
        }
    folder.mkdir(parents=True, exist_ok=True)
    metadata = {"modelspec.author": "nobody", "modelspec.title": "random"}
    save_file(tensors, folder / "model.safetensors", metadata)
    return folder / "model.safetensors"


def _save_diffusers(model, folder, dtype, sharded, variant, index):
    copy = UNet2DConditionModel.from_config(model.config).to(dtype)
    copy.load_state_dict(model.state_dict())
    total = sum(p.numel() * p.element_size() for p in copy.parameters())
    copy.save_pretrained(folder, variant=variant, max_shard_size=total // 3 if sharded else total + 1)
    if index:
        next(folder.glob("*.index*.json")).rename(folder / index)
    pipeline = {"_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "UNet2DConditionModel"]}
    (folder.parent / "model_index.json").write_text(json.dumps(pipeline) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", choices=MODELS)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--layout", choices=["diffusers", "original"], default="diffusers")
    parser.add_argument("--dtype", choices=DTYPES, default="fp16")
    parser.add_argument("--sharded", action="store_true")
    parser.add_argument("--variant")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    model = make(MODELS[options.model], options.seed)
    print(save(model, options.output, options.layout, options.dtype, options.sharded, options.variant))


if __name__ == "__main__":
    sys.exit(main())
