//! The package that is split, checked for what would be lost. The stages of a pipeline are made one program first, so that what
//! comes of it can be cut anywhere and no pipeline is ever in another.

use std::fs::{self, File, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use mil::{Function, Opset, Program, WeightError, WeightId, WeightStore};
use mlpackage::proto::{FeatureDescription, ModelDescription};
use mlpackage::{MANIFEST_PATH, Package, PackageWeights, carries_programs, check_links};
use partition::{Joined, Joining, StageWeight};
use reclaim::Inventory;

use crate::error::Error;
use crate::metadata::is_place;
use crate::set;

/// Inputs of a UNet of Stable Diffusion, by which one is told.
const UNET_INPUTS: [&str; 3] = ["sample", "timestep", "encoder_hidden_states"];
/// Numbers that the refiner's `time_ids` hold; Apple's pipeline tells it by them as well.
const REFINER_TIME_IDS: i64 = 5;
/// The first of the inputs that a UNet for a ControlNet has besides.
const CONTROL_INPUT: &str = "additional_residual_0";

const UNKNOWN_FIELDS: &str =
    "its model file holds fields that are not known here and would be lost";

/// A package that is split: an ML Program that can be carried without loss.
#[derive(Debug)]
pub struct Source {
    package: Package,
    /// The stages as one program, if the package is a pipeline.
    joined: Option<Joined>,
    /// Every file that is read, as it was when the package was opened.
    stamps: Vec<(PathBuf, Stamp)>,
    /// These files and the manifest, for the package's removal.
    inventory: Inventory,
    model_blake3: String,
}

/// What changes when a file does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    len_bytes: u64,
    inode: u64,
    modified: (i64, i64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Stamp {
        Stamp {
            len_bytes: metadata.len(),
            inode: metadata.ino(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        }
    }
}

impl Source {
    /// Opens a package and checks what splitting relies on, apart from whether its programs come through decoding. Reads no weight.
    ///
    /// # Errors
    /// It is no package, holds another kind of model, is damaged, leads out of its folder, or holds something that would be lost.
    pub fn open(path: &Path) -> Result<Source, Error> {
        check_links(path)?;
        let package = Package::open(path)?;
        if !package.is_lossless() {
            return Err(refused(path, UNKNOWN_FIELDS));
        }
        let description = package.model().description.as_ref();
        if package.model().is_updatable || description.is_some_and(|d| !d.training_input.is_empty())
        {
            let what = "it can be trained on the device, which no part of it could be";
            return Err(refused(path, what));
        }
        let mut files = vec![package.model_path().to_path_buf()];
        for stage in package.stages()? {
            let blobs = stage.weights()?.files();
            files.extend(blobs.iter().map(|f| f.path().to_path_buf()));
        }
        // Stages may share a file.
        files.sort();
        files.dedup();
        let inventory = inventory(path, &files)?;
        let stamps = files.into_iter().map(|path| {
            let stamp = stamp(&path)?;
            Ok::<_, Error>((path, stamp))
        });
        let stamps = stamps.collect::<Result<_, _>>()?;
        let model_blake3 = digest(package.model_path())?;
        Ok(Source {
            joined: joined(&package)?,
            package,
            stamps,
            inventory,
            model_blake3,
        })
    }

    /// That its programs come out of decoding and encoding as they went in. This takes as long as all the rest of planning.
    ///
    /// # Errors
    /// They hold something that would be lost.
    pub(super) fn check_carried(&self) -> Result<(), Error> {
        match carries_programs(&self.package)? {
            true => Ok(()),
            false => Err(refused(self.package.path(), UNKNOWN_FIELDS)),
        }
    }

    /// Whether the package is a pipeline.
    pub fn is_pipeline(&self) -> bool {
        self.joined.is_some()
    }

    /// The package.
    pub fn package(&self) -> &Package {
        &self.package
    }

    /// The package's own name, without its ending.
    pub fn stem(&self) -> String {
        let path = self.package.path();
        let resolved = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let name = path.file_name().or(resolved.file_name());
        let name = name.unwrap_or_default().to_string_lossy().into_owned();
        name.strip_suffix(".mlpackage").unwrap_or(&name).to_owned()
    }

    /// The name from which those of the packages are made: the one that Apple's folder loader looks for where the model is a
    /// UNet, else the package's own.
    pub fn base_name(&self) -> String {
        let inputs = self.package.inputs();
        let has = |name: &str| inputs.iter().any(|f| f.name == name);
        if !UNET_INPUTS.iter().all(|name| has(name)) {
            return self.stem();
        }
        let is_refiner = inputs.iter().any(|f| match &f.ty {
            mlpackage::FeatureType::Array { shape, .. } => {
                f.name == "time_ids" && shape.last() == Some(&REFINER_TIME_IDS)
            }
            _ => false,
        });
        let name = match (has(CONTROL_INPUT), is_refiner) {
            (true, _) => "ControlledUnet",
            (false, true) => "UnetRefiner",
            (false, false) => "Unet",
        };
        name.to_owned()
    }

    /// Length of its files: the model and the weights.
    pub fn len_bytes(&self) -> u64 {
        self.stamps.iter().map(|(_, stamp)| stamp.len_bytes).sum()
    }

    /// Its files that are read.
    pub(super) fn files(&self) -> impl Iterator<Item = &Path> {
        self.stamps.iter().map(|(path, _)| path.as_path())
    }

    /// BLAKE3 of the model file in hexadecimal.
    pub(super) fn model_blake3(&self) -> &str {
        &self.model_blake3
    }

    /// That no file has changed since the package was opened.
    ///
    /// # Errors
    /// One has, or is gone.
    pub fn check_unchanged(&self) -> Result<(), Error> {
        for (path, before) in &self.stamps {
            if stamp(path)? != *before {
                return Err(refused(path, "the file was changed while it was read"));
            }
        }
        Ok(())
    }

    /// That the package may be deleted once its parts lie in `dir`: it is a folder, neither is in the other, and it holds
    /// nothing that is not read.
    ///
    /// # Errors
    /// It may not.
    pub fn check_removable(&self, dir: &Path) -> Result<(), Error> {
        let given = self.package.path();
        let package = given.canonicalize().map_err(|e| io("open", given, e))?;
        let output = resolved(dir)?;
        let usage = |message: &str| {
            Err(Error::Usage {
                message: format!("the package cannot be deleted: {message}"),
                help: "choose another folder with `-o`, or leave out `--remove-original`"
                    .to_owned(),
            })
        };
        if package.starts_with(&output) {
            return usage("it lies in the output folder");
        }
        // Without a slash at its end, which has the system follow a link.
        let name: PathBuf = given.components().collect();
        if name.is_symlink() {
            return usage("it is a symbolic link");
        }
        let Some(stranger) = self.inventory.stranger().map_err(|e| undeleted(given, e))? else {
            return Ok(());
        };
        let stranger = stranger.to_string_lossy();
        Err(Error::Usage {
            message: format!(
                "the package cannot be deleted: `{}` in it is no part of the model",
                stranger.escape_debug()
            ),
            help: "move that away, or leave out `--remove-original`".to_owned(),
        })
    }

    /// That packages can be written into `dir`: it is not in the package, and the package is no part of a set there.
    ///
    /// # Errors
    /// They cannot.
    pub(super) fn check_apart(&self, dir: &Path) -> Result<(), Error> {
        let given = self.package.path();
        let package = given.canonicalize().map_err(|e| io("open", given, e))?;
        let output = resolved(dir)?;
        let usage = |message: &str| {
            Err(Error::Usage {
                message: message.to_owned(),
                help: "choose another folder with `-o`".to_owned(),
            })
        };
        if output.starts_with(&package) {
            return usage("the output folder is in the package that is split");
        }
        let name = package.file_name().unwrap_or_default().to_string_lossy();
        if package.parent() == Some(&output) && set::holds(&output, &name)? {
            return usage(
                "the package that is split is part of a set that the output folder holds",
            );
        }
        Ok(())
    }

    /// Deletes the package, which has not changed since it was opened: the files that were read, and the folders that then are
    /// empty.
    ///
    /// # Errors
    /// It has changed or holds something else, and is as it was; or the system refuses.
    pub fn remove(&self) -> Result<(), Error> {
        self.check_unchanged()?;
        let removed = self.inventory.remove();
        removed.map_err(|e| undeleted(self.package.path(), e))
    }

    /// The program that is cut.
    pub(crate) fn program(&self) -> Result<&Program, Error> {
        match &self.joined {
            Some(joined) => Ok(&joined.program),
            None => Ok(self.package.program()?),
        }
    }

    /// Its weights.
    pub(crate) fn weights(&self) -> Result<SourceWeights<'_>, Error> {
        let mut stages = Vec::new();
        for stage in self.package.stages()? {
            stages.push(stage.weights()?);
        }
        Ok(SourceWeights {
            stages,
            places: self.joined.as_ref().map(|j| &j.weights[..]),
        })
    }

    /// Length of the weight files.
    pub(super) fn weight_bytes(&self) -> u64 {
        let files = self.stamps.iter();
        let blobs = files.filter(|(path, _)| path != self.package.model_path());
        blobs.map(|(_, stamp)| stamp.len_bytes).sum()
    }

    /// Number of its weights.
    pub(super) fn num_weights(&self) -> usize {
        let stages = self.package.stages().unwrap_or_default();
        let tables = stages.iter().filter_map(|stage| stage.weight_table().ok());
        tables.map(|table| table.len()).sum()
    }

    /// The function that is cut.
    pub(super) fn main(&self) -> Result<(&Function, Opset), Error> {
        let path = self.package.path();
        let program = self.program()?;
        let names: Vec<_> = program.functions.keys().map(String::as_str).collect();
        let main = match (program.main(), &names[..]) {
            (Some(main), [_]) => main,
            _ => {
                let names = names.iter().map(|n| format!("`{}`", n.escape_debug()));
                let names = names.collect::<Vec<_>>().join(", ");
                let what = format!(
                    "it has the functions {names}, which share weights; only a single function `main` can be cut, since \
                     each function would have to be cut in the same places to go on sharing them"
                );
                return Err(refused(path, &what));
            }
        };
        if main.specializations.len() > 1 {
            let sets: Vec<_> = main.specializations.keys().map(String::as_str).collect();
            let what = format!(
                "`main` has a body for each of {}, and only one can be cut",
                sets.join(", ")
            );
            return Err(refused(path, &what));
        }
        let opset = Opset::parse(&main.opset).filter(|_| main.body().is_some());
        let opset = opset.ok_or_else(|| refused(path, "`main` has no body"))?;
        Ok((main, opset))
    }

    /// The description of the model.
    pub(super) fn description(&self) -> ModelDescription {
        self.package.model().description.clone().unwrap_or_default()
    }

    /// The description of a pipeline of all chunks.
    pub(crate) fn whole_description(&self) -> ModelDescription {
        let [input, output, state] = self.features();
        let mut description = self.description();
        let metadata = description.metadata.get_or_insert_default();
        metadata.user_defined.retain(|key, _| !is_place(key));
        ModelDescription {
            input,
            output,
            state,
            functions: Vec::new(),
            default_function_name: String::new(),
            ..description
        }
    }

    /// Descriptions of inputs, of outputs and of states, of the model or of its only function.
    pub(super) fn features(&self) -> [Vec<FeatureDescription>; 3] {
        let mut description = self.description();
        match description.functions.pop() {
            Some(f) => [f.input, f.output, f.state],
            None => [description.input, description.output, description.state],
        }
    }
}

/// The stages of a pipeline as one program.
fn joined(package: &Package) -> Result<Option<Joined>, Error> {
    let stages = package.stages()?;
    if stages.iter().all(|stage| stage.number().is_none()) {
        return Ok(None);
    }
    let mut programs = Vec::with_capacity(stages.len());
    for stage in &stages {
        let verified = mil::verify(stage.program()?).map_err(|source| Error::Program {
            path: package.path().to_owned(),
            source,
        })?;
        programs.push(verified);
    }
    let (inputs, outputs) = (package.inputs(), package.outputs());
    let inputs: Vec<_> = inputs.iter().map(|f| f.name.as_str()).collect();
    let outputs: Vec<_> = outputs.iter().map(|f| f.name.as_str()).collect();
    let how = Joining {
        originals: Some(&inputs),
        pipeline_outputs: Some(&outputs),
        narrowed: false,
    };
    let joined = partition::join(&programs, &how).map_err(|e| {
        let what = format!("its stages cannot be made one program: {e}");
        refused(package.path(), &what)
    })?;
    Ok(Some(joined))
}

/// The weights of a source: its own, or those of its stages under the numbers of the joined program.
pub(crate) struct SourceWeights<'s> {
    stages: Vec<&'s PackageWeights>,
    places: Option<&'s [StageWeight]>,
}

impl SourceWeights<'_> {
    fn place(&self, weight: WeightId) -> Option<(&PackageWeights, WeightId)> {
        let Some(places) = self.places else {
            return Some((self.stages.first()?, weight));
        };
        let place = places.get(usize::try_from(weight.0).ok()?)?;
        Some((self.stages.get(place.stage)?, place.weight))
    }
}

impl WeightStore for SourceWeights<'_> {
    /// 0 for weights that the source does not have.
    fn len_bytes(&self, weight: WeightId) -> u64 {
        let place = self.place(weight);
        place.map_or(0, |(store, weight)| store.len_bytes(weight))
    }

    fn read_at(
        &self,
        weight: WeightId,
        offset_bytes: u64,
        out: &mut [u8],
    ) -> Result<(), WeightError> {
        let (store, weight) = self.place(weight).ok_or("no weight of the source")?;
        store.read_at(weight, offset_bytes, out)
    }

    fn name(&self, weight: WeightId) -> String {
        let place = self.place(weight);
        place.map_or_else(String::new, |(store, weight)| store.name(weight))
    }
}

/// The path without links, as far as it is there.
fn resolved(path: &Path) -> Result<PathBuf, Error> {
    let absolute = std::path::absolute(path).map_err(|e| io("open", path, e))?;
    let known = absolute
        .ancestors()
        .find_map(|a| Some((a, a.canonicalize().ok()?)));
    let Some((known, resolved)) = known else {
        return Ok(absolute);
    };
    let rest = absolute.strip_prefix(known).unwrap_or(Path::new(""));
    Ok(resolved.join(rest))
}

fn stamp(path: &Path) -> Result<Stamp, Error> {
    let metadata = fs::metadata(path).map_err(|e| io("open", path, e))?;
    Ok(Stamp::of(&metadata))
}

/// The package's manifest and files of it, taken down.
fn inventory(package: &Path, files: &[PathBuf]) -> Result<Inventory, Error> {
    let failed = |e| io("open", package, e);
    let inside = files.iter().filter_map(|f| f.strip_prefix(package).ok());
    let files = inside.chain([Path::new(MANIFEST_PATH)]);
    Inventory::take(package.canonicalize().map_err(failed)?, files).map_err(failed)
}

fn undeleted(path: &Path, e: reclaim::Error) -> Error {
    Error::io("delete", path, std::io::Error::other(e))
}

fn digest(path: &Path) -> Result<String, Error> {
    let mut hasher = blake3::Hasher::new();
    let read = File::open(path).and_then(|file| hasher.update_reader(file).map(drop));
    read.map_err(|e| io("read", path, e))?;
    Ok(hasher.finalize().to_hex().to_string())
}

fn io(action: &'static str, path: &Path, source: std::io::Error) -> Error {
    let path = path.to_owned();
    Error::Package(mlpackage::Error::Io {
        action,
        path,
        source,
    })
}

pub(super) fn refused(path: &Path, what: &str) -> Error {
    Error::NotSplit {
        path: path.to_owned(),
        what: what.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use mlpackage::proto::mil_spec::Operation;
    use mlpackage::proto::mil_spec::dimension::{ConstantDimension, Dimension};
    use mlpackage::proto::mil_spec::value::Value;
    use mlpackage::proto::mil_spec::value_type::Type as Shape;
    use mlpackage::proto::model::Type;
    use mlpackage::{MANIFEST_PATH, MODEL_PATH, WEIGHTS_PATH};
    use prost::Message;

    use super::*;

    /// Gives the weight that an operation makes this size each way.
    fn grow(op: &mut Operation, size: u64) -> bool {
        let val = op.attributes.get_mut("val");
        let weight = val.filter(|v| matches!(v.value, Some(Value::BlobFileValue(_))));
        let Some(weight) = weight else { return false };
        let types = op.outputs.iter_mut().map(|o| &mut o.r#type);
        for ty in types.chain([&mut weight.r#type]).flatten() {
            let Some(Shape::TensorType(tensor)) = &mut ty.r#type else {
                continue;
            };
            for dimension in &mut tensor.dimensions {
                dimension.dimension = Some(Dimension::Constant(ConstantDimension { size }));
            }
        }
        true
    }

    #[test]
    fn giant_shapes_are_bad_input() {
        let fixture = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../fixtures/split/ladder-ios16-fp16.mlpackage");
        for size in [u64::MAX, 1 << 40, 1 << 20] {
            let folder = tempfile::tempdir().unwrap();
            let package = folder.path().join("giant.mlpackage");
            for file in [MANIFEST_PATH, WEIGHTS_PATH] {
                fs::create_dir_all(package.join(file).parent().unwrap()).unwrap();
                fs::copy(fixture.join(file), package.join(file)).unwrap();
            }
            let mut model = Package::open(&fixture).unwrap().model().clone();
            if let Some(Type::MlProgram(program)) = &mut model.r#type {
                let main = program.functions.get_mut("main").unwrap();
                let body = main.block_specializations.values_mut().next().unwrap();
                let mut grown = 0;
                for bytes in &mut body.operations {
                    let mut op = Operation::decode(bytes.clone()).unwrap();
                    grown += usize::from(grow(&mut op, size));
                    *bytes = op.encode_to_vec().into();
                }
                assert!(grown > 0);
            }
            fs::write(package.join(MODEL_PATH), model.encode_to_vec()).unwrap();
            let error = Source::open(&package).unwrap_err();
            assert_eq!(error.class(), crate::Class::BadInput, "{error}");
        }
    }
}
