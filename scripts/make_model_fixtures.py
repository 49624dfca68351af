#!/usr/bin/env python3
"""Makes fixtures/models/: small random models of the Stable Diffusion family as coremltools converts them.

    make_model_fixtures.py [-o fixtures/models] [--apple CHECKOUT] [--only NAME...]

Each folder holds packages, or a chain of them, and io.safetensors: inputs by the packages' names and
what torch computes for them. `apple-*` are made by Apple's converter: CHECKOUT is a clone of
https://github.com/apple/ml-stable-diffusion (README.md of the fixtures names the commit), and without
it those folders stay as they are. Its palettes need scikit-learn 1.5.1 as well.
"""

import argparse
import contextlib
import json
import logging
import sys
import tempfile
import types
from pathlib import Path

# coremltools warns about every newer torch on import.
logging.getLogger("coremltools").setLevel(logging.ERROR)

import coremltools as ct
import diffusers
import numpy as np
import torch
import transformers
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
)
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

import diffusers_models as models
import package_files

SEED = 30
VERSIONS = {
    "torch": torch.__version__.split("+")[0],
    "coremltools": ct.__version__,
    "diffusers": diffusers.__version__,
    "transformers": transformers.__version__,
}
MADE_BY = {"made_by": ", ".join(f"{k} {v}" for k, v in VERSIONS.items()) + f", seed {SEED}"}

TOKENS = 12
VOCABULARY = 64
END = VOCABULARY - 1
PROJECTION = 48
TEXT = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": TOKENS,
    "hidden_act": "quick_gelu",
    "bos_token_id": END - 1,
    # 2 is what every published configuration says, and makes transformers pool at the largest id.
    "eos_token_id": 2,
    "pad_token_id": 1,
}
TEXT_2 = {
    **TEXT,
    "hidden_size": PROJECTION,
    "projection_dim": PROJECTION,
    "hidden_act": "gelu",
    "eos_token_id": END,
}
# Apple's classes fix the number of groups at 32.
XL = {
    **models.SDXL,
    **models.blocks("DC"),
    "sample_size": 8,
    "block_out_channels": [32, 32],
    "layers_per_block": 1,
    "attention_head_dim": [2, 2],
    "transformer_layers_per_block": [1, 1],
    "cross_attention_dim": TEXT["hidden_size"] + PROJECTION,
    "addition_time_embed_dim": 32,
    "projection_class_embeddings_input_dim": PROJECTION + 6 * 32,
}
# Smaller still.
SMALL = {"block_out_channels": [16, 16], "attention_head_dim": [1, 2], "norm_num_groups": 8}
SD = {
    **models.blocks("CD"),
    "sample_size": 8,
    "block_out_channels": [32, 32],
    "layers_per_block": 1,
    "attention_head_dim": 4,
    "cross_attention_dim": TEXT["hidden_size"],
}
VAE = {
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "block_out_channels": [8, 16, 16, 16],
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "latent_channels": 4,
    "sample_size": 64,
}


# Models


def random(model, seed):
    """Draws every parameter anew, the norms' and biases too, so that activations stay small."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in sorted(model.named_parameters()):
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.dim() > 1:
            parameter.copy_(noise / parameter[0].numel() ** 0.5)
        else:
            parameter.copy_(1 + 0.25 * noise if name.endswith("weight") else 0.2 * noise)
    return model.eval()


def halved(model):
    """The model holding fp16 values, as a fp16 program does."""
    for parameter in model.parameters():
        parameter.copy_(parameter.half().float())
    return model


def coarse(model):
    """The model with 63 values or fewer in each weight, so that a palette of 6 bits loses nothing."""
    for parameter in model.parameters():
        if parameter.dim() > 1:
            step = parameter.abs().max() / 31
            parameter.copy_((parameter / step).round() * step)
    return model


def text_encoder():
    return random(CLIPTextModel(CLIPTextConfig(**TEXT)), SEED)


def text_encoder_2():
    return random(CLIPTextModelWithProjection(CLIPTextConfig(**TEXT_2)), SEED + 1)


def vae():
    return random(AutoencoderKL(**VAE), SEED + 2)


def unet(config):
    return models.make(config, SEED + 3)


# What is converted: diffusers' and transformers' modules with the interface that packages have.


class Unet(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, sample, timestep, encoder_hidden_states, time_ids=None, text_embeds=None):
        added = None if time_ids is None else {"time_ids": time_ids, "text_embeds": text_embeds}
        hidden = encoder_hidden_states.squeeze(2).transpose(1, 2)
        return self.model(sample, timestep, hidden, added_cond_kwargs=added, return_dict=False)[0]


class TextEncoder(torch.nn.Module):
    """SDXL takes the hidden state before the last layer, SD the last one."""

    def __init__(self, model, penultimate):
        super().__init__()
        self.model, self.penultimate = model, penultimate

    def forward(self, input_ids):
        found = self.model(input_ids, output_hidden_states=True)
        pooled = found.text_embeds if "text_embeds" in found else found.pooler_output
        return (found.hidden_states[-2] if self.penultimate else found.last_hidden_state), pooled


class Decoder(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, z):
        return self.model.decoder(self.model.post_quant_conv(z))


class Encoder(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model.quant_conv(self.model.encoder(x))


# Inputs


def noise(seed, *shape):
    """Random values that fp16 holds."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).half().float()


def token_ids():
    """A start, words, an end, and padding with ends, as a prompt's are. Both encoders' largest id is the end."""
    words = torch.randint(0, END - 1, (5,), generator=torch.Generator().manual_seed(SEED))
    ids = [END - 1, *words.tolist()]
    return torch.tensor([ids + [END] * (TOKENS - len(ids))], dtype=torch.int32)


def unet_inputs(config, size):
    """Inputs for an image of this size: larger ids lose more in fp16, which computes their sines."""
    inputs = models.make_inputs(config, size, tokens=TOKENS, seed=SEED)
    if "time_ids" in inputs:
        height, width = (8 * n for n in size)
        ids = [[height, width, 0, 0, height, width], [height, width, 8, 16, height, width]]
        inputs["time_ids"] = torch.tensor(ids, dtype=torch.float32)
    return inputs


def expected(module, inputs, names):
    """The module's outputs by name: computed in double precision, so that only the package's error shows."""
    module.double()
    arguments = [t.double() if t.is_floating_point() else t for t in inputs.values()]
    # transformers makes masks of the default type.
    torch.set_default_dtype(torch.float64)
    outputs = module(*arguments)
    torch.set_default_dtype(torch.float32)
    module.float()
    outputs = [outputs] if isinstance(outputs, torch.Tensor) else outputs
    return {name: output.float().contiguous() for name, output in zip(names, outputs, strict=True)}


def write_io(folder, inputs, outputs):
    save_file({**inputs, **outputs}, folder / "io.safetensors", MADE_BY)


# Converted by coremltools alone


def convert(module, inputs, names, target, precision):
    """The package of a module; its features are fp16 where the program is, fp32 before iOS 16 or else."""
    traced = torch.jit.trace(module, tuple(inputs.values()), check_trace=False)
    feature = np.float16 if precision == "fp16" else np.float32
    features = {n: feature if t.is_floating_point() else np.int32 for n, t in inputs.items()}
    return ct.convert(
        traced,
        inputs=[ct.TensorType(name=n, shape=t.shape, dtype=features[n]) for n, t in inputs.items()],
        outputs=[ct.TensorType(name=name, dtype=feature) for name in names],
        minimum_deployment_target=getattr(ct.target, target),
        compute_precision=getattr(ct.precision, precision.replace("fp", "FLOAT")),
        skip_model_load=True,
    )


def write_converted(folder, module, inputs, names, target, precision):
    if precision == "fp16":
        halved(module)
    folder.mkdir(parents=True, exist_ok=True)
    package_files.save(convert(module, inputs, names, target, precision), folder / "model.mlpackage")
    write_io(folder, inputs, expected(module, inputs, names))


def converted():
    """Name -> (module, inputs, outputs' names, target, precision)."""
    hidden = ["hidden_embeds", "pooled_outputs"]
    ids = {"input_ids": token_ids()}
    latents, image = {"z": noise(SEED, 1, 4, 8, 8)}, {"x": noise(SEED, 1, 3, 32, 48).clamp(-1, 1)}
    noise_pred = ["noise_pred"]
    xl, sd = {**XL, **SMALL}, {**SD, **SMALL}
    yield "unet-sd-ios16-fp32", Unet(unet(sd)), unet_inputs(sd, (8, 12)), noise_pred, "iOS16", "fp32"
    yield "unet-xl-ios17-fp16", Unet(unet(xl)), unet_inputs(xl, (8, 12)), noise_pred, "iOS17", "fp16"
    yield "unet-xl-ios18-fp32", Unet(unet(xl)), unet_inputs(xl, (8, 12)), noise_pred, "iOS18", "fp32"
    for target, precision in (("iOS17", "fp32"), ("iOS18", "fp16")):
        tag = f"{target.lower()}-{precision}"
        yield f"text-encoder-{tag}", TextEncoder(text_encoder(), True), ids, hidden, target, precision
        yield f"text-encoder-2-{tag}", TextEncoder(text_encoder_2(), True), ids, hidden, target, precision
    yield "vae-decoder-ios18-fp32", Decoder(vae()), latents, ["image"], "iOS18", "fp32"
    yield "vae-encoder-ios18-fp16", Encoder(vae()), image, ["latent"], "iOS18", "fp16"


# Converted by Apple's converter


def write_pipeline(folder, xl, palette):
    """A pipeline as diffusers saves it, in fp16, which is what Apple's converter opens."""
    vocabulary = {f"{chr(97 + i // 2)}{'</w>' if i % 2 else ''}": i for i in range(52)}
    vocabulary |= {f"<{i}>": i for i in range(52, END - 1)}
    vocabulary |= {"<|startoftext|>": END - 1, "<|endoftext|>": END}
    folder.mkdir(parents=True)
    (folder / "words.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer(folder / "words.json", folder / "merges.txt", model_max_length=TOKENS)
    parts = {
        "vae": vae(),
        "text_encoder": text_encoder(),
        "tokenizer": tokenizer,
        "unet": coarse(unet(SD)) if palette else unet(XL if xl else SD),
        "scheduler": DDIMScheduler(),
    }
    if xl:
        second = {"text_encoder_2": text_encoder_2(), "tokenizer_2": tokenizer}
        pipeline = StableDiffusionXLPipeline(**parts, **second, add_watermarker=False)
    else:
        none = dict.fromkeys(("safety_checker", "feature_extractor"))
        pipeline = StableDiffusionPipeline(**parts, **none, requires_safety_checker=False)
    pipeline.to(dtype=torch.float16).save_pretrained(folder, variant="fp16")


def apple_converter(checkout):
    """Apple's converter, without what it needs for other families only."""
    sys.path.insert(0, str(checkout))
    other = types.ModuleType("diffusionkit.tests.torch2coreml")
    other.convert_mmdit_to_mlpackage = other.convert_vae_to_mlpackage = None
    for name in ("diffusionkit", "diffusionkit.tests", "pytest"):
        sys.modules[name] = types.ModuleType(name)
    sys.modules[other.__name__] = other
    from python_coreml_stable_diffusion import torch2coreml

    return torch2coreml


def apple(checkout, only):
    """Runs Apple's converter: yields folder, names of its packages, packages, inputs, expected outputs."""
    hidden = ["hidden_embeds", "pooled_outputs"]
    last = ["last_hidden_state", "pooled_outputs"]
    # torch's numbers come first: the converter replaces a function of transformers.
    ids = {"input_ids": token_ids().float()}
    integers = {"input_ids": token_ids()}
    small, wide = (8, 8), (32, 32)
    parts = {
        "unet-xl": (unet_inputs(XL, small), Unet(halved(unet(XL))), ["noise_pred"]),
        "unet-sd": (unet_inputs(SD, small), Unet(halved(unet(SD))), ["noise_pred"]),
        # Attention over 1024 positions, which version 2 takes in two pieces.
        "unet-sd-wide": (unet_inputs(SD, wide), Unet(halved(coarse(unet(SD)))), ["noise_pred"]),
        "text-encoder": (integers, TextEncoder(halved(text_encoder()), False), last),
        "text-encoder-xl": (integers, TextEncoder(halved(text_encoder()), True), hidden),
        "text-encoder-2-xl": (integers, TextEncoder(halved(text_encoder_2()), True), hidden),
        "vae-decoder": ({"z": noise(SEED, 1, 4, *small)}, Decoder(halved(vae())), ["image"]),
        "vae-encoder": ({"x": noise(SEED, 1, 3, 64, 64).clamp(-1, 1)}, Encoder(halved(vae())), ["latent"]),
    }
    numbers = {name: (inputs, expected(module, inputs, names)) for name, (inputs, module, names) in parts.items()}
    numbers = {name: (ids if "text" in name else i, o) for name, (i, o) in numbers.items()}

    everything = ["--convert-unet", "--convert-text-encoder", "--convert-vae-decoder", "--convert-vae-encoder"]
    # Name of the run -> (SDXL, arguments, {folder: (which numbers, package files)}).
    runs = {
        "xl": (
            True,
            [*everything, "--chunk-unet"],
            {
                "apple-unet-xl-split-einsum": ("unet-xl", ["unet"]),
                "apple-unet-xl-chunks": ("unet-xl", ["unet_chunk1", "unet_chunk2"]),
                "apple-text-encoder-xl": ("text-encoder-xl", ["text_encoder"]),
                "apple-text-encoder-2-xl": ("text-encoder-2-xl", ["text_encoder_2"]),
                "apple-vae-decoder-xl": ("vae-decoder", ["vae_decoder"]),
                "apple-vae-encoder-xl": ("vae-encoder", ["vae_encoder"]),
            },
        ),
        "sd": (
            False,
            [*everything, "--attention-implementation", "ORIGINAL", "--min-deployment-target", "iOS17"],
            {
                "apple-unet-sd-original": ("unet-sd", ["unet"]),
                "apple-text-encoder-sd": ("text-encoder", ["text_encoder"]),
                "apple-vae-decoder-sd": ("vae-decoder", ["vae_decoder"]),
                "apple-vae-encoder-sd": ("vae-encoder", ["vae_encoder"]),
            },
        ),
        "sd-palette": (
            False,
            ["--convert-unet", "--attention-implementation", "SPLIT_EINSUM_V2", "--quantize-nbits", "6",
             "--latent-h", str(wide[0]), "--latent-w", str(wide[1])],
            {"apple-unet-sd-v2-palette": ("unet-sd-wide", ["unet"])},
        ),
    }
    torch2coreml = apple_converter(checkout)
    for run, (xl, arguments, folders) in runs.items():
        if only and not set(only) & set(folders):
            continue
        # The name of the pipeline goes into the packages' metadata.
        with tempfile.TemporaryDirectory() as scratch, contextlib.chdir(scratch):
            write_pipeline(Path(run), xl, run == "sd-palette")
            options = ["--model-version", run, "--text-token-sequence-length", str(TOKENS), "-o", "out"]
            options += arguments + (["--xl-version"] if xl else [])
            torch2coreml.main(torch2coreml.parser_spec().parse_args(options))
            for folder, (part, names) in folders.items():
                found = [next(Path("out").glob(f"*_{name}.mlpackage")) for name in names]
                yield folder, names, found, *numbers[part]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    default = Path(__file__).parent.parent / "fixtures/models"
    parser.add_argument("-o", "--output", type=Path, default=default)
    parser.add_argument("--apple", type=Path, help="a clone of apple/ml-stable-diffusion")
    parser.add_argument("--only", nargs="*", help="only these folders")
    options = parser.parse_args()
    output = options.output.resolve()
    for name, *what in converted():
        if not options.only or name in options.only:
            print(name, flush=True)
            write_converted(output / name, *what)
    if options.apple:
        for name, names, packages, inputs, outputs in apple(options.apple.resolve(), options.only):
            print(name, flush=True)
            folder = output / name
            folder.mkdir(parents=True, exist_ok=True)
            for stem, package in zip(names, packages):
                package_files.settle(package, folder / f"{stem}.mlpackage")
            write_io(folder, inputs, outputs)


if __name__ == "__main__":
    sys.exit(main())
