//! What a file is part of. What others reach by its name is not theirs alone to lose.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use crate::shown;
use crate::weights;

/// A folder whose files belong together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Holder {
    pub kind: Kind,
    pub path: PathBuf,
}

/// Why they do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A package or another folder that is one thing to its users.
    Package,
    /// A model in several files.
    Model,
    /// A repository in Hugging Face's cache.
    HuggingFace,
    /// A Python installation.
    Environment,
    /// A working tree of git.
    Git,
    /// Where an app looks for its models.
    App,
}

/// A folder that its users take for one file.
const BUNDLES: [&str; 8] = [
    "mlpackage",
    "mlmodelc",
    "app",
    "framework",
    "xcframework",
    "bundle",
    "xcarchive",
    "photoslibrary",
];
/// In a folder with one of these, the rest is the model's: a pipeline of diffusers, resources of Apple's pipeline.
const MODEL_FILES: [&str; 3] = ["model_index.json", "merges.txt", "vocab.json"];
/// Folders of ComfyUI, A1111 and their like, in one that is called `models`.
const APP_FOLDERS: [&str; 17] = [
    "checkpoints",
    "clip",
    "clip_vision",
    "controlnet",
    "coreml",
    "diffusers",
    "diffusion_models",
    "embeddings",
    "lora",
    "loras",
    "lycoris",
    "stable-diffusion",
    "text_encoders",
    "unet",
    "upscale_models",
    "vae",
    "vae_approx",
];

impl Kind {
    /// The kind of a folder, by its path and the names in it.
    pub fn of(path: &Path, names: &[OsString]) -> Option<Kind> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let above = path.parent().and_then(Path::file_name).unwrap_or_default();
        let has = |name: &str| names.binary_search(&OsString::from(name)).is_ok();
        let is_bundle = |(_, extension): (&str, &str)| BUNDLES.contains(&extension);
        if name.rsplit_once('.').is_some_and(is_bundle) {
            Some(Kind::Package)
        } else if has("blobs") && has("snapshots") && name.contains("--") {
            Some(Kind::HuggingFace)
        } else if MODEL_FILES.into_iter().any(has) || is_model_folder(names) {
            Some(Kind::Model)
        } else if has("pyvenv.cfg") || name == "site-packages" || name == "dist-packages" {
            Some(Kind::Environment)
        } else if has(".git") {
            Some(Kind::Git)
        } else if is_app_folder(&name, above) {
            Some(Kind::App)
        } else {
            None
        }
    }

    /// Whether each file has its place in it, so that none may go; otherwise copies within one folder may.
    pub fn is_strict(self) -> bool {
        !matches!(self, Kind::Git | Kind::App)
    }

    /// Whether two of the kind with equal contents are duplicates as a whole.
    pub fn is_unit(self, path: &Path) -> bool {
        let extension = path.extension().unwrap_or_default();
        match self {
            Kind::Model => true,
            Kind::Package => extension == "mlpackage" || extension == "mlmodelc",
            _ => false,
        }
    }
}

/// A model beside its configuration, or in shards.
fn is_model_folder(names: &[OsString]) -> bool {
    let has_config = names.iter().any(|name| name == "config.json");
    let ends = |end: &str| {
        names
            .iter()
            .any(|name| name.to_string_lossy().ends_with(end))
    };
    has_config && names.iter().any(|name| weights::is_named_so(name))
        || ends(".safetensors.index.json")
        || ends(".bin.index.json")
}

fn is_app_folder(name: &str, above: &OsStr) -> bool {
    let is_one = |name: &str| APP_FOLDERS.contains(&name.to_ascii_lowercase().as_str());
    above.eq_ignore_ascii_case("models") && is_one(name)
        || above == "MochiDiffusion" && name == "models"
        || above == "Library" && ["Application Support", "Containers"].contains(&name)
}

/// Whether an output folder of conversions holds nothing but their packages, so that it is one model as a whole.
pub(crate) fn is_output_folder(names: &[OsString], packages: &BTreeSet<String>) -> bool {
    let belongs = |name: &OsString| {
        let text = name.to_string_lossy();
        packages.contains(text.as_ref())
            || text.ends_with(".mlmodelc")
            || Path::new(name).extension().is_some()
                && !weights::is_named_so(name)
                && !text.ends_with(".mlpackage")
    };
    names.iter().all(belongs)
}

impl Holder {
    /// In words, after "part of".
    pub fn words(&self) -> String {
        let path = shown::path(&self.path);
        match self.kind {
            Kind::Package => format!("`{path}`"),
            Kind::Model => format!("the model in `{path}`"),
            Kind::HuggingFace => format!("Hugging Face's cache, `{path}`"),
            Kind::Environment => format!("the Python installation `{path}`"),
            Kind::Git => format!("the working tree `{path}`"),
            Kind::App => format!("an app's models, `{path}`"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holders_are_told_by_name_and_content() {
        let cases: &[(&str, &[&str], Option<Kind>)] = &[
            ("/m/A.mlpackage", &["Manifest.json"], Some(Kind::Package)),
            (
                "/m/models--a--b",
                &["blobs", "refs", "snapshots"],
                Some(Kind::HuggingFace),
            ),
            ("/m/sdxl", &["model_index.json", "unet"], Some(Kind::Model)),
            (
                "/m/unet",
                &["config.json", "diffusion_pytorch_model.safetensors"],
                Some(Kind::Model),
            ),
            ("/m/x", &["a.safetensors.index.json"], Some(Kind::Model)),
            ("/m/project", &["config.json", "main.js"], None),
            ("/m/venv", &["bin", "pyvenv.cfg"], Some(Kind::Environment)),
            ("/m/src", &[".git", "README.md"], Some(Kind::Git)),
            (
                "/ComfyUI/models/checkpoints",
                &["a.safetensors"],
                Some(Kind::App),
            ),
            ("/webui/models/Stable-diffusion", &[], Some(Kind::App)),
            ("/m/models/mine", &["a.safetensors"], None),
            ("/", &["home"], None),
        ];
        for (path, names, kind) in cases {
            let names: Vec<OsString> = names.iter().map(OsString::from).collect();
            assert_eq!(Kind::of(Path::new(path), &names), *kind, "{path}");
        }
    }

    #[test]
    fn an_output_folder_is_one_model_if_nothing_else_is_in_it() {
        let packages = BTreeSet::from(["A.mlpackage".to_owned()]);
        let is = |names: &[&str]| {
            let names: Vec<OsString> = names.iter().map(OsString::from).collect();
            is_output_folder(&names, &packages)
        };
        assert!(is(&[
            "A.mlpackage",
            "conversion.json",
            "report.html",
            "A.mlmodelc"
        ]));
        assert!(!is(&["A.mlpackage", "conversion.json", "a.safetensors"]));
        assert!(!is(&["A.mlpackage", "conversion.json", "more"]));
        assert!(!is(&["A.mlpackage", "B.mlpackage", "conversion.json"]));
    }
}
