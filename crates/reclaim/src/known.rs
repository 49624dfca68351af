//! Where converting and running models leaves things, on Linux and macOS.
//!
//! Places come from the environment variables that the programs themselves read, else from their defaults. A place that
//! is not there is left out by the scan.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// A place and what is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Where it is.
    pub path: PathBuf,
    /// What it is, in words.
    pub what: String,
    /// Whether it is a cache as a whole; otherwise it is searched.
    pub is_cache: bool,
}

/// The variables of an environment; unset and empty are the same.
pub type Variables<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// The operating systems whose places are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum System {
    /// And others that follow the XDG base directories.
    Linux,
    /// macOS.
    MacOs,
}

impl System {
    /// This one.
    pub fn this() -> System {
        if cfg!(target_vendor = "apple") {
            System::MacOs
        } else {
            System::Linux
        }
    }
}

struct Places<'a> {
    variables: Variables<'a>,
    system: System,
    found: BTreeMap<PathBuf, Known>,
}

/// The places that are known for an environment, sorted by path.
pub fn places(variables: Variables<'_>, system: System) -> Vec<Known> {
    let mut places = Places {
        variables,
        system,
        found: BTreeMap::new(),
    };
    places.hugging_face();
    places.torch();
    places.python();
    places.builds();
    places.apps();
    if system == System::MacOs {
        places.core_ml();
    }
    for path in temporary(variables, system) {
        places.search(Some(path), "temporary files");
    }
    places.found.into_values().collect()
}

/// The folders for temporary files.
pub fn temporary(variables: Variables<'_>, system: System) -> Vec<PathBuf> {
    let mut found = vec![PathBuf::from("/tmp"), PathBuf::from("/var/tmp")];
    let own = set(variables, "TMPDIR").filter(|path| path.is_absolute());
    if let Some(own) = own {
        // Beside it macOS keeps this user's caches.
        if system == System::MacOs
            && let Some(beside) = own.parent()
        {
            found.push(beside.join("C"));
        }
        found.push(own);
    }
    found.sort();
    found.dedup();
    found
}

fn set(variables: Variables<'_>, name: &str) -> Option<PathBuf> {
    let value = variables(name)?;
    (!value.is_empty()).then(|| value.into())
}

impl Places<'_> {
    fn set(&self, name: &str) -> Option<PathBuf> {
        set(self.variables, name)
    }

    fn home(&self, rest: &str) -> Option<PathBuf> {
        Some(self.set("HOME")?.join(rest))
    }

    /// Where programs from the Linux world keep caches, on macOS too.
    fn xdg_cache(&self, rest: &str) -> Option<PathBuf> {
        let cache = self.set("XDG_CACHE_HOME").or_else(|| self.home(".cache"))?;
        Some(cache.join(rest))
    }

    /// Where programs of the system keep caches.
    fn own_cache(&self, rest: &str) -> Option<PathBuf> {
        match self.system {
            System::Linux => self.xdg_cache(rest),
            System::MacOs => Some(self.home("Library/Caches")?.join(rest)),
        }
    }

    fn add(&mut self, path: Option<PathBuf>, what: &str, is_cache: bool) {
        // A relative path would depend on where this runs.
        if let Some(path) = path.filter(|path| path.is_absolute() && path != Path::new("/")) {
            let what = what.to_owned();
            let known = Known {
                path: path.clone(),
                what,
                is_cache,
            };
            self.found.entry(path).or_insert(known);
        }
    }

    fn search(&mut self, path: Option<PathBuf>, what: &str) {
        self.add(path, what, false);
    }

    fn cache(&mut self, path: Option<PathBuf>, what: &str) {
        self.add(path, what, true);
    }

    /// As `huggingface_hub/constants.py` finds them.
    fn hugging_face(&mut self) {
        let home = self
            .set("HF_HOME")
            .or_else(|| self.xdg_cache("huggingface"));
        let within = |rest: &str| home.as_ref().map(|home| home.join(rest));
        let (hub, xet, diffusers) = (within("hub"), within("xet"), within("diffusers"));
        let hub = self
            .set("HF_HUB_CACHE")
            .or_else(|| self.set("HUGGINGFACE_HUB_CACHE"))
            .or(hub);
        self.search(hub, "Hugging Face's cache of models");
        // Where diffusers up to 0.13 kept its models.
        self.search(diffusers, "diffusers' cache of models");
        let xet = self.set("HF_XET_CACHE").or(xet);
        self.cache(xet, "Hugging Face's cache of pieces of downloads");
    }

    /// As `torch.hub` and `torch._inductor` find them.
    fn torch(&mut self) {
        let home = self.set("TORCH_HOME").or_else(|| self.xdg_cache("torch"));
        let within = |rest: &str| home.as_ref().map(|home| home.join(rest));
        let (hub, kernels) = (within("hub"), within("kernels"));
        self.search(hub, "PyTorch's cache of models");
        self.cache(kernels, "PyTorch's cache of kernels");
        self.cache(
            self.set("TORCHINDUCTOR_CACHE_DIR"),
            "PyTorch's cache of compiled code",
        );
        let triton = self
            .set("TRITON_CACHE_DIR")
            .or_else(|| self.home(".triton/cache"));
        self.cache(triton, "Triton's cache of compiled code");
    }

    fn python(&mut self) {
        let pip = self.set("PIP_CACHE_DIR").or_else(|| self.own_cache("pip"));
        self.cache(pip, "pip's cache of wheels");
        let uv = self.set("UV_CACHE_DIR").or_else(|| self.xdg_cache("uv"));
        self.cache(uv, "uv's cache of wheels");
        let environments = self
            .set("WORKON_HOME")
            .or_else(|| self.home(".virtualenvs"));
        self.search(environments, "Python environments");
    }

    fn builds(&mut self) {
        self.search(self.set("CARGO_TARGET_DIR"), "cargo's build folder");
        if self.system == System::MacOs {
            let derived = self.home("Library/Developer/Xcode/DerivedData");
            self.search(derived, "Xcode's build folders");
            let packages = self.home("Library/Caches/org.swift.swiftpm");
            self.cache(packages, "Swift's cache of packages");
        } else {
            self.cache(
                self.own_cache("org.swift.swiftpm"),
                "Swift's cache of packages",
            );
        }
    }

    /// Nothing in these is a leftover; copies in them are found.
    fn apps(&mut self) {
        let mut within_home = vec!["ComfyUI/models", "stable-diffusion-webui/models"];
        if self.system == System::MacOs {
            within_home.extend([
                "Documents/ComfyUI/models",
                "Documents/MochiDiffusion/models",
                "Library/Application Support/DiffusionBee",
                "Library/Containers/com.guernikacore.Guernika/Data/Documents",
                "Library/Containers/com.liuliu.draw-things/Data/Documents/Models",
                "Library/Containers/com.huggingface.Diffusers/Data/Library/Application Support/hf-diffusion-models",
            ]);
        }
        for rest in within_home {
            self.search(self.home(rest), "an app's models");
        }
    }

    /// The caches are below the folder of each program: `com.apple.e5rt.e5bundlecache`.
    fn core_ml(&mut self) {
        self.search(
            self.home("Library/Caches"),
            "caches of programs, Core ML's among them",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(set: &[(&str, &str)], system: System) -> BTreeMap<String, bool> {
        let variables = |name: &str| {
            let found = set.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| OsString::from(value))
        };
        let found = places(&variables, system).into_iter();
        found
            .map(|k| (k.path.to_str().unwrap().to_owned(), k.is_cache))
            .collect()
    }

    #[test]
    fn defaults_are_below_home() {
        let linux = of(&[("HOME", "/h")], System::Linux);
        for (path, is_cache) in [
            ("/h/.cache/huggingface/hub", false),
            ("/h/.cache/huggingface/xet", true),
            ("/h/.cache/torch/hub", false),
            ("/h/.cache/pip", true),
            ("/h/.cache/uv", true),
            ("/h/ComfyUI/models", false),
            ("/tmp", false),
        ] {
            assert_eq!(linux.get(path), Some(&is_cache), "{path}");
        }
        let mac = of(
            &[("HOME", "/h"), ("TMPDIR", "/var/folders/a/b/T")],
            System::MacOs,
        );
        for (path, is_cache) in [
            ("/h/.cache/huggingface/hub", false),
            ("/h/Library/Caches/pip", true),
            ("/h/Library/Developer/Xcode/DerivedData", false),
            ("/h/Documents/MochiDiffusion/models", false),
            ("/var/folders/a/b/T", false),
            ("/var/folders/a/b/C", false),
        ] {
            assert_eq!(mac.get(path), Some(&is_cache), "{path}");
        }
    }

    #[test]
    fn variables_come_first_and_later_ones_give_way() {
        let base = [("HOME", "/h"), ("XDG_CACHE_HOME", "/c")];
        let with = |more: &[(&str, &str)]| of(&[&base, more].concat(), System::Linux);
        assert!(with(&[]).contains_key("/c/huggingface/hub"));
        assert!(with(&[("HF_HOME", "/f")]).contains_key("/f/hub"));
        let hub = with(&[("HF_HOME", "/f"), ("HF_HUB_CACHE", "/g")]);
        assert!(
            hub.contains_key("/g") && !hub.contains_key("/f/hub") && hub.contains_key("/f/xet")
        );
        assert!(with(&[("TORCH_HOME", "/t")]).contains_key("/t/hub"));
        assert!(with(&[("HF_HOME", "")]).contains_key("/c/huggingface/hub"));
    }

    #[test]
    fn nothing_depends_on_where_this_runs() {
        let found = of(
            &[
                ("HF_HOME", "rel"),
                ("CARGO_TARGET_DIR", "target"),
                ("TMPDIR", "t"),
            ],
            System::Linux,
        );
        assert!(found.keys().all(|path| path.starts_with('/')), "{found:?}");
        assert_eq!(found.keys().collect::<Vec<_>>(), ["/tmp", "/var/tmp"]);
    }
}
