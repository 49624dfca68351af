//! Tensors that do not fit the model.

use std::ffi::OsString;
use std::fs;

use checkpoint::Dtype;

use super::{REFUSAL, Refusal, refused};
use crate::checkpoints::{Model, sdxl_folder};
use crate::folder::Folder;
use crate::program::args;

#[test]
fn tensors_that_are_missing_extra_or_misshapen() {
    struct Case {
        make: fn(&Folder) -> Vec<OsString>,
        refusal: Refusal<'static>,
    }
    let missing = Refusal {
        code: "missing_tensor",
        message: "is missing",
        expected: Some("a tensor of shape [32]"),
        found: Some("nothing"),
        help: "incomplete",
        ..REFUSAL
    };
    let extra = Refusal {
        code: "extra_tensor",
        message: "no place for it",
        expected: Some("the model takes"),
        found: Some("1 more"),
        help: "`--config`",
        ..REFUSAL
    };
    let misshapen = Refusal {
        code: "wrong_shape",
        message: "the wrong shape",
        expected: Some("[32, 32, 3, 3]"),
        found: Some("[32, 32, 9]"),
        help: "`--config`",
        ..REFUSAL
    };
    fn original(folder: &Folder, model: Model) -> Vec<OsString> {
        args![folder.write("model.safetensors", model.to_bytes())]
    }
    fn diffusers(folder: &Folder, edit: impl FnOnce(Model) -> Model) -> Vec<OsString> {
        let path = sdxl_folder(folder, "model", 1, None);
        let file = path.join("unet/diffusion_pytorch_model.safetensors");
        fs::write(&file, edit(Model::read(&file)).to_bytes()).unwrap();
        args![path]
    }
    fn reshaped(mut model: Model, name: &str) -> Model {
        model.tensor(name).shape = vec![32, 32, 9];
        model
    }
    for Case { make, refusal } in [
        Case {
            make: |f| {
                original(
                    f,
                    Model::sdxl().without("input_blocks.1.0.out_layers.0.bias"),
                )
            },
            refusal: Refusal {
                tensor: Some("model.diffusion_model.input_blocks.1.0.out_layers.0.bias"),
                ..missing
            },
        },
        Case {
            make: |f| diffusers(f, |m| m.without("down_blocks.0.resnets.0.norm2.bias")),
            refusal: Refusal {
                tensor: Some("down_blocks.0.resnets.0.norm2.bias"),
                ..missing
            },
        },
        Case {
            make: |f| {
                original(
                    f,
                    Model::sdxl().with("model.diffusion_model.input_blocks.1.0.odd"),
                )
            },
            refusal: Refusal {
                tensor: Some("model.diffusion_model.input_blocks.1.0.odd"),
                ..extra
            },
        },
        Case {
            make: |f| diffusers(f, |m| m.with("down_blocks.0.resnets.0.odd")),
            refusal: Refusal {
                tensor: Some("down_blocks.0.resnets.0.odd"),
                ..extra
            },
        },
        Case {
            make: |f| {
                original(
                    f,
                    reshaped(Model::sdxl(), "input_blocks.1.0.in_layers.2.weight"),
                )
            },
            refusal: Refusal {
                tensor: Some("model.diffusion_model.input_blocks.1.0.in_layers.2.weight"),
                ..misshapen
            },
        },
        Case {
            make: |f| diffusers(f, |m| reshaped(m, "down_blocks.0.resnets.0.conv1.weight")),
            refusal: Refusal {
                tensor: Some("down_blocks.0.resnets.0.conv1.weight"),
                ..misshapen
            },
        },
    ] {
        refused(make, refusal);
    }
}

#[test]
fn element_types_that_are_no_floats() {
    let make = |folder: &Folder| {
        let mut model = Model::sdxl();
        let bias = model.tensor("input_blocks.0.0.bias");
        (bias.dtype, bias.bytes) = (Dtype::I8, vec![0; 32]);
        args![folder.write("model.safetensors", model.to_bytes())]
    };
    refused(
        make,
        Refusal {
            code: "wrong_dtype",
            message: "element type I8",
            tensor: Some("model.diffusion_model.input_blocks.0.0.bias"),
            expected: Some("F8_E5M2"),
            found: Some("I8"),
            help: "save the checkpoint",
        },
    );
}
