//! What the loader of Apple's Swift package (`ml-stable-diffusion`) looks for in a folder of resources, and how it uses it.
//!
//! - `UnetChunk1` and `UnetChunk2`, if both are there, go before `Unet`, and nothing else is a chunk. The first stage gets the
//!   pipeline's inputs; the second those and the first one's outputs. The last one's outputs are one, of any name.
//! - The inputs `sample` and, for SDXL, `time_ids` are looked up in the first stage, and the app ends if it has none.
//! - Text encoders and VAE models are given their only input, whatever it is called; a text encoder's outputs are taken by name.
//! - `vocab.json` and `merges.txt` are always read.

use std::fs;
use std::path::Path;

use mlpackage::proto::{FeatureDescription, ModelDescription, feature_type};
use serde::Serialize;

use super::{COMPILED_ENDING, TOKENIZER_FILES, read_compiled};

/// UNets, which may be in two chunks.
pub const UNETS: [&str; 3] = ["Unet", "UnetRefiner", "ControlledUnet"];

/// Models that are always one.
pub const SINGLE_MODELS: [&str; 6] = [
    "TextEncoder",
    "TextEncoder2",
    "VAEDecoder",
    "VAEEncoder",
    "SafetyChecker",
    "MultilingualTextEncoderProjection",
];

/// What the pipelines give a UNet of themselves.
const GIVEN: [&str; 5] = [
    "sample",
    "timestep",
    "encoder_hidden_states",
    "text_embeds",
    "time_ids",
];
/// What a ControlNet gives a UNet besides, followed by a number.
const RESIDUAL: &str = "additional_residual_";
/// Inputs that only UNets of SDXL have.
const XL_INPUTS: [&str; 2] = ["text_embeds", "time_ids"];
/// As many numbers in `time_ids` tell the loader that a UNet is a refiner.
const REFINER_TIME_IDS: i64 = 5;

/// A model's inputs and outputs.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Interface {
    pub inputs: Vec<FeatureDescription>,
    pub outputs: Vec<FeatureDescription>,
}

impl From<&ModelDescription> for Interface {
    fn from(d: &ModelDescription) -> Self {
        Interface {
            inputs: d.input.clone(),
            outputs: d.output.clone(),
        }
    }
}

impl Interface {
    fn input(&self, name: &str) -> Option<&FeatureDescription> {
        self.inputs.iter().find(|f| f.name == name)
    }

    fn is_xl(&self) -> bool {
        XL_INPUTS.iter().any(|name| self.input(name).is_some())
    }

    fn is_refiner(&self) -> bool {
        let last = self
            .input("time_ids")
            .and_then(|f| shape(f)?.last().copied());
        last == Some(REFINER_TIME_IDS)
    }
}

fn shape(feature: &FeatureDescription) -> Option<&[i64]> {
    match feature.r#type.as_ref()?.r#type.as_ref()? {
        feature_type::Type::MultiArrayType(array) => Some(&array.shape),
        _ => None,
    }
}

/// Names that a resource of so many parts has in the folder: two chunks, or one model.
pub fn file_names(resource: &str, parts: usize) -> Vec<String> {
    match parts {
        2 => (1..=2)
            .map(|i| format!("{resource}Chunk{i}{COMPILED_ENDING}"))
            .collect(),
        _ => vec![format!("{resource}{COMPILED_ENDING}")],
    }
}

/// Names that the resource has in its other form, beside which the loader would take the wrong one or one that is out of date.
pub fn other_forms(resource: &str, parts: usize) -> Vec<String> {
    match (UNETS.contains(&resource), parts) {
        (false, _) => Vec::new(),
        (true, 2) => file_names(resource, 1),
        (true, _) => file_names(resource, 2),
    }
}

/// Whether the loader would use the stages of a resource rightly; what is wrong, if not.
pub fn check(resource: &str, stages: &[&Interface]) -> Result<(), String> {
    match UNETS.contains(&resource) {
        true => check_unet(resource, stages),
        false => stages
            .iter()
            .try_for_each(|stage| check_single(resource, stage)),
    }
}

fn check_unet(resource: &str, stages: &[&Interface]) -> Result<(), String> {
    let (Some(first), Some(last)) = (stages.first(), stages.last()) else {
        return Err(format!("`{resource}` has no stage"));
    };
    let is_xl = stages.iter().any(|s| s.is_xl());
    for name in ["sample", "time_ids"]
        .iter()
        .take(if is_xl { 2 } else { 1 })
    {
        if first.input(name).is_none() {
            return Err(format!(
                "the first model of `{resource}` has no input `{name}`, in which the loader looks up its shape"
            ));
        }
    }
    if resource == "UnetRefiner" && !first.is_refiner() {
        return Err(format!(
            "`{resource}` is no refiner: its `time_ids` do not hold {REFINER_TIME_IDS} numbers"
        ));
    }
    if last.outputs.len() != 1 {
        return Err(format!(
            "the last model of `{resource}` has {} outputs, and the loader takes one",
            last.outputs.len()
        ));
    }
    let nothing = Interface::default();
    let before = std::iter::once(&nothing).chain(stages.iter().copied());
    for (number, (stage, before)) in stages.iter().zip(before).enumerate() {
        for input in &stage.inputs {
            check_input(resource, number + 1, input, before)?;
        }
    }
    Ok(())
}

/// Whether a stage gets an input: from the stage before it, or from the pipeline.
fn check_input(
    resource: &str,
    number: usize,
    input: &FeatureDescription,
    before: &Interface,
) -> Result<(), String> {
    let name = input.name.escape_debug();
    let made = before.outputs.iter().find(|o| o.name == input.name);
    let same_shape = |output: &FeatureDescription| match (shape(output), shape(input)) {
        (Some(made), Some(needed)) => made.is_empty() || made == needed,
        (made, needed) => made.is_none() == needed.is_none(),
    };
    match made {
        Some(output) if same_shape(output) => Ok(()),
        Some(_) => Err(format!(
            "model {number} of `{resource}` needs `{name}` in another shape than the one before makes it"
        )),
        None if is_given(&input.name) || input.r#type.as_ref().is_some_and(|t| t.is_optional) => {
            Ok(())
        }
        None => Err(format!(
            "model {number} of `{resource}` needs `{name}`, which neither the pipeline nor the model before gives"
        )),
    }
}

fn is_given(name: &str) -> bool {
    let number = name.strip_prefix(RESIDUAL);
    GIVEN.contains(&name) || number.is_some_and(|n| n.parse::<u32>().is_ok())
}

fn check_single(resource: &str, model: &Interface) -> Result<(), String> {
    let is_encoder = resource.starts_with("TextEncoder");
    let takes_one = is_encoder || resource.starts_with("VAE");
    if takes_one && model.inputs.len() != 1 {
        return Err(format!(
            "`{resource}` has {} inputs, and the loader gives it one",
            model.inputs.len()
        ));
    }
    if resource.starts_with("VAE") && model.outputs.len() != 1 {
        return Err(format!(
            "`{resource}` has {} outputs, and the loader takes one",
            model.outputs.len()
        ));
    }
    let has = |names: &[&str]| {
        names
            .iter()
            .all(|name| model.outputs.iter().any(|o| o.name == *name))
    };
    let (xl, sd) = (["hidden_embeds", "pooled_outputs"], ["last_hidden_state"]);
    let reads = match resource {
        "TextEncoder2" => has(&xl),
        "TextEncoder" => has(&xl) || has(&sd),
        _ => true,
    };
    match reads {
        true => Ok(()),
        false => Err(format!(
            "`{resource}` has not the outputs that the loader reads: `{}`, or `{}` without SDXL",
            xl.join("`, `"),
            sd[0]
        )),
    }
}

/// Something that the loader looks for and the folder does not have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Missing {
    /// Its name in the folder.
    pub name: String,
    /// Whether no image can be made without it.
    pub required: bool,
    /// What it is for.
    pub purpose: String,
    /// What makes it.
    pub command: String,
}

/// What the loader finds in a folder.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Resources {
    /// Names of what is there.
    names: Vec<String>,
    /// The UNet that it would open, by its first model.
    unet: Option<Interface>,
}

impl Resources {
    /// What is in a folder. A UNet whose description cannot be read, as that of a compiler newer than this program may be, is
    /// there all the same.
    pub fn in_dir(dir: &Path) -> Self {
        let has = |name: &str| fs::metadata(dir.join(name)).is_ok();
        let models = UNETS.iter().chain(&SINGLE_MODELS);
        let models = models.flat_map(|name| [1, 2].map(|parts| file_names(name, parts)).concat());
        let names = models.chain(TOKENIZER_FILES.map(str::to_owned));
        let names: Vec<_> = names.filter(|name| has(name)).collect();
        let mut resources = Resources { names, unet: None };
        let first = UNETS.iter().find_map(|unet| resources.first_model(unet));
        let data = first.and_then(|first| read_compiled(&dir.join(first)).ok());
        resources.unet = data.map(|data| Interface::from(&data.description));
        resources
    }

    fn has(&self, name: &str) -> bool {
        self.names.iter().any(|n| n == name)
    }

    /// The first model of a UNet, as the loader chooses it.
    fn first_model(&self, unet: &str) -> Option<String> {
        let chunks = file_names(unet, 2);
        let one = || {
            file_names(unet, 1)
                .into_iter()
                .next()
                .filter(|name| self.has(name))
        };
        match chunks.iter().all(|name| self.has(name)) {
            true => chunks.into_iter().next(),
            false => one(),
        }
    }
}

/// What the loader takes a folder for, and misses in it.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    pub family: Option<&'static str>,
    pub missing: Vec<Missing>,
}

/// Apple's converter, which makes all models but not the UNets of this program.
const CONVERTER: &str =
    "python -m python_coreml_stable_diffusion.torch2coreml --model-version MODEL";
const TOKENIZER_COMMAND: &str = "chunk-unet bundle … --tokenizer MODEL/tokenizer";
const UNET_COMMAND: &str = "chunk-unet convert CHECKPOINT -o DIR; chunk-unet bundle DIR …";

/// What is missing, for what the folder's UNet is: SDXL if there is none.
pub fn look(resources: &Resources) -> Seen {
    let is_xl = resources.unet.as_ref().is_none_or(Interface::is_xl);
    let is_refiner = resources.unet.as_ref().is_some_and(Interface::is_refiner);
    let family = resources.unet.as_ref().map(|_| match (is_xl, is_refiner) {
        (true, true) => "SDXL refiner",
        (true, false) => "SDXL",
        (false, _) => "Stable Diffusion",
    });
    let xl = if is_xl { " --xl-version" } else { "" };
    let converter = |flag: &str| format!("{CONVERTER}{xl} {flag} -o DIR");
    let mut missing = Vec::new();
    let mut need = |name: &str, required: bool, purpose: &str, command: String| {
        if !resources.has(name) {
            missing.push(Missing {
                name: name.to_owned(),
                required,
                purpose: purpose.to_owned(),
                command,
            });
        }
    };
    let model = |name: &str| format!("{name}{COMPILED_ENDING}");
    if resources.first_model("Unet").is_none() {
        need(&model("Unet"), true, "denoising", UNET_COMMAND.to_owned());
    }
    let encoders = converter("--convert-text-encoder");
    need(
        &model("TextEncoder"),
        !is_refiner,
        "the prompt",
        encoders.clone(),
    );
    if is_xl {
        need(&model("TextEncoder2"), true, "the prompt", encoders);
    }
    need(
        &model("VAEDecoder"),
        true,
        "from latents to the image",
        converter("--convert-vae-decoder"),
    );
    need(
        &model("VAEEncoder"),
        false,
        "images to start from",
        converter("--convert-vae-encoder"),
    );
    if !is_xl {
        need(
            &model("SafetyChecker"),
            false,
            "hiding images",
            converter("--convert-safety-checker"),
        );
    }
    for name in TOKENIZER_FILES {
        need(name, true, "the prompt", TOKENIZER_COMMAND.to_owned());
    }
    Seen { family, missing }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mlpackage::proto::{ArrayFeatureType, FeatureType};

    fn feature(name: &str, shape: &[i64]) -> FeatureDescription {
        let array = ArrayFeatureType {
            shape: shape.to_vec(),
            ..Default::default()
        };
        FeatureDescription {
            name: name.to_owned(),
            r#type: Some(FeatureType {
                is_optional: false,
                r#type: Some(feature_type::Type::MultiArrayType(array)),
            }),
            ..Default::default()
        }
    }

    fn interface(inputs: &[(&str, &[i64])], outputs: &[(&str, &[i64])]) -> Interface {
        let features = |list: &[(&str, &[i64])]| list.iter().map(|(n, s)| feature(n, s)).collect();
        Interface {
            inputs: features(inputs),
            outputs: features(outputs),
        }
    }

    const SAMPLE: (&str, &[i64]) = ("sample", &[2, 4, 8, 8]);
    const TIME_IDS: (&str, &[i64]) = ("time_ids", &[2, 6]);
    const TEXT: (&str, &[i64]) = ("text_embeds", &[2, 8]);
    const H: (&str, &[i64]) = ("h", &[1, 2]);
    const NOISE: (&str, &[i64]) = ("noise_pred", &[2, 4, 8, 8]);

    #[test]
    fn a_unet_must_be_one_that_the_loader_can_run() {
        let ok =
            |resource, stages: &[Interface]| check(resource, &stages.iter().collect::<Vec<_>>());
        let first = interface(&[SAMPLE, TIME_IDS], &[H]);
        let second = interface(&[H, TEXT], &[NOISE]);
        assert_eq!(ok("Unet", &[first.clone(), second.clone()]), Ok(()));
        assert_eq!(ok("Unet", &[interface(&[SAMPLE], &[NOISE])]), Ok(()));
        assert_eq!(
            ok(
                "ControlledUnet",
                &[interface(
                    &[SAMPLE, ("additional_residual_3", &[1])],
                    &[NOISE]
                )]
            ),
            Ok(())
        );
        let refiner = interface(&[SAMPLE, ("time_ids", &[2, 5])], &[NOISE]);
        assert_eq!(ok("UnetRefiner", &[refiner]), Ok(()));
        for (resource, stages, part) in [
            (
                "Unet",
                vec![second.clone(), first.clone()],
                "no input `sample`",
            ),
            (
                "Unet",
                vec![interface(&[SAMPLE], &[H]), second.clone()],
                "no input `time_ids`",
            ),
            (
                "Unet",
                vec![first.clone(), interface(&[H], &[NOISE, H])],
                "2 outputs",
            ),
            (
                "Unet",
                vec![interface(&[SAMPLE, ("x", &[1])], &[NOISE])],
                "model 1 of `Unet` needs `x`",
            ),
            (
                "Unet",
                vec![first.clone(), interface(&[("skip", &[1])], &[NOISE])],
                "model 2 of `Unet` needs `skip`",
            ),
            (
                "Unet",
                vec![first.clone(), interface(&[("h", &[3])], &[NOISE])],
                "another shape",
            ),
            (
                "UnetRefiner",
                vec![interface(&[SAMPLE, TIME_IDS], &[NOISE])],
                "is no refiner",
            ),
            ("Unet", vec![], "no stage"),
        ] {
            let problem = ok(resource, &stages).unwrap_err();
            assert!(problem.contains(part), "{problem}");
        }
    }

    #[test]
    fn other_models_are_used_by_their_only_input() {
        let ok = |resource, model: &Interface| check(resource, &[model]).is_ok();
        let xl = interface(
            &[("ids", &[1, 77])],
            &[("hidden_embeds", &[]), ("pooled_outputs", &[])],
        );
        let sd = interface(
            &[("ids", &[1, 77])],
            &[("last_hidden_state", &[]), ("other", &[])],
        );
        assert!(ok("TextEncoder", &xl) && ok("TextEncoder", &sd) && ok("TextEncoder2", &xl));
        assert!(!ok("TextEncoder2", &sd));
        assert!(!ok("TextEncoder", &interface(&[H], &[H])));
        assert!(!ok("VAEDecoder", &interface(&[H, SAMPLE], &[H])));
        assert!(!ok("VAEEncoder", &interface(&[H], &[H, SAMPLE])));
        assert!(ok("VAEDecoder", &interface(&[H], &[SAMPLE])));
    }

    fn looked(
        names: &[&str],
        unet: Option<Interface>,
    ) -> (Option<&'static str>, Vec<(String, bool)>) {
        let seen = look(&Resources {
            names: names.iter().map(ToString::to_string).collect(),
            unet,
        });
        (
            seen.family,
            seen.missing
                .into_iter()
                .map(|m| (m.name, m.required))
                .collect(),
        )
    }

    #[test]
    fn what_is_missing_depends_on_the_unet() {
        let xl = interface(&[SAMPLE, TIME_IDS], &[NOISE]);
        let (family, missing) = looked(
            &["UnetChunk1.mlmodelc", "UnetChunk2.mlmodelc"],
            Some(xl.clone()),
        );
        assert_eq!(family, Some("SDXL"));
        let expected = [
            ("TextEncoder.mlmodelc", true),
            ("TextEncoder2.mlmodelc", true),
            ("VAEDecoder.mlmodelc", true),
            ("VAEEncoder.mlmodelc", false),
            ("vocab.json", true),
            ("merges.txt", true),
        ];
        assert_eq!(
            missing,
            expected.map(|(name, required)| (name.to_owned(), required))
        );
        let all = [
            "Unet.mlmodelc",
            "TextEncoder.mlmodelc",
            "TextEncoder2.mlmodelc",
            "VAEDecoder.mlmodelc",
            "VAEEncoder.mlmodelc",
            "vocab.json",
            "merges.txt",
        ];
        assert_eq!(looked(&all, Some(xl)).1, []);
        let sd = interface(&[SAMPLE], &[NOISE]);
        let (family, missing) = looked(&["Unet.mlmodelc"], Some(sd));
        assert_eq!(family, Some("Stable Diffusion"));
        assert!(missing.contains(&("SafetyChecker.mlmodelc".to_owned(), false)));
        assert!(
            !missing
                .iter()
                .any(|(name, _)| name.starts_with("TextEncoder2"))
        );
        let (family, missing) = looked(&["UnetChunk1.mlmodelc"], None);
        assert_eq!(family, None);
        assert_eq!(missing[0], ("Unet.mlmodelc".to_owned(), true));
    }
}
