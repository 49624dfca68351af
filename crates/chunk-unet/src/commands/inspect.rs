//! `chunk-unet inspect`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use conversion::Model;
use diffusion::Recorder;
use diffusion::unet::{self, Attention};
use mil::text::{self, Location};
use mil::{Opset, Program};
use mlpackage::{FeatureType, Package};
use serde::Serialize;

use crate::failure::{Failure, shown, shown_path};
use crate::format::{self, Table, thousands};
use crate::model::{self, ModelArgs};
use crate::progress::note_line;
use crate::{folder, output};

pub const EXAMPLES: &str = "\
Examples:
  chunk-unet inspect Juggernaut-XL_v9.safetensors
  chunk-unet inspect Juggernaut-XL_v9.safetensors --tensors
  chunk-unet inspect Juggernaut/UnetChunk1of3.mlpackage --mil

Exit status:
  0  done
  1  failed
  2  wrong usage
  4  bad input";

#[derive(Args)]
pub struct Opts {
    /// A .safetensors file, a diffusers folder, or a .mlpackage
    path: PathBuf,
    /// Print one JSON object on stdout (docs/json.md)
    #[arg(long)]
    pub json: bool,
    /// Print the program in Core ML's text form; of a checkpoint the one that convert builds by default
    #[arg(long, conflicts_with = "json")]
    mil: bool,
    /// List every tensor, or every weight of a package
    #[arg(long, conflicts_with = "mil")]
    tensors: bool,
    #[command(flatten)]
    model: ModelArgs,
}

pub fn run(opts: &Opts) -> Result<(), Failure> {
    if model::is_package(&opts.path) {
        package(opts)
    } else {
        checkpoint(opts)
    }
}

/// A tensor of a checkpoint or a weight of a package.
#[derive(Serialize)]
struct TensorRow {
    name: String,
    dtype: String,
    shape: Vec<u64>,
    bytes: u64,
}

fn tensor_table(rows: &[TensorRow]) -> Vec<String> {
    let mut table = Table::default();
    table.row(["tensor", "dtype", "shape", "bytes"]);
    for row in rows {
        table.row([
            shown(&row.name),
            row.dtype.clone(),
            format!("{:?}", row.shape),
            thousands(row.bytes),
        ]);
    }
    table.lines()
}

#[derive(Serialize)]
struct CheckpointReport {
    kind: &'static str,
    name: String,
    bytes: u64,
    family: String,
    layout: String,
    prefix: &'static str,
    config: Option<String>,
    in_channels: u64,
    out_channels: u64,
    cross_attention_dim: u64,
    block_out_channels: Vec<u64>,
    transformer_depths: Depths,
    attention_heads: Vec<u64>,
    tensors: usize,
    parameters: u64,
    dtypes: BTreeMap<String, u64>,
    other_tensors: usize,
    metadata: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tensor_list: Option<Vec<TensorRow>>,
}

/// Depth of the transformer after each resnet; `null` for none.
#[derive(Serialize)]
struct Depths {
    down: Vec<Vec<Option<u32>>>,
    mid: Option<u32>,
    up: Vec<Vec<Option<u32>>>,
}

fn checkpoint(opts: &Opts) -> Result<(), Failure> {
    let model = opts.model.open(&opts.path)?;
    model::show_notes(&model);
    if opts.mil {
        let program =
            default_program(&model).map_err(|e| Failure::from(conversion::Error::from(e)))?;
        return show_program(&program, &Location::unplaced);
    }
    let report = checkpoint_report(opts, &model);
    if opts.json {
        output::json_ok(&report)
    } else {
        show_checkpoint(&report)
    }
}

fn show_checkpoint(report: &CheckpointReport) -> Result<(), Failure> {
    let layout = match report.prefix {
        "" => report.layout.clone(),
        prefix => format!("{}, under {prefix}", report.layout),
    };
    let depth = |d: &Option<u32>| d.map_or_else(|| "-".to_owned(), |n| n.to_string());
    let depths = |blocks: &[Vec<Option<u32>>]| {
        blocks
            .iter()
            .map(|b| b.iter().map(depth).collect::<Vec<_>>().join(" "))
            .collect::<Vec<_>>()
            .join(" | ")
    };
    let d = &report.transformer_depths;
    for (label, value) in [
        (
            "checkpoint",
            format!("{} ({})", report.name, format::bytes(report.bytes)),
        ),
        ("family", report.family.clone()),
        ("layout", layout),
        (
            "configuration",
            report
                .config
                .clone()
                .unwrap_or_else(|| "told from the tensors".to_owned()),
        ),
        (
            "channels",
            format!(
                "{} in, {:?}, {} out",
                report.in_channels, report.block_out_channels, report.out_channels
            ),
        ),
        (
            "transformers",
            format!(
                "down {}; mid {}; up {}",
                depths(&d.down),
                depth(&d.mid),
                depths(&d.up)
            ),
        ),
        ("heads", format!("{:?}", report.attention_heads)),
        ("text width", report.cross_attention_dim.to_string()),
        (
            "UNet",
            format!(
                "{} tensors, {} parameters",
                report.tensors,
                thousands(report.parameters)
            ),
        ),
        (
            "element types",
            report
                .dtypes
                .iter()
                .map(|(t, n)| format!("{t} ({n})"))
                .collect::<Vec<_>>()
                .join(", "),
        ),
        ("other tensors", report.other_tensors.to_string()),
    ] {
        output::line(&shown(&format!("{label:<14}  {value}")))?;
    }
    for (key, value) in &report.metadata {
        const SHOWN: usize = 100;
        output::line(&shown(&format!(
            "{key}: {}",
            value.chars().take(SHOWN).collect::<String>()
        )))?;
    }
    match &report.tensor_list {
        Some(rows) => output::lines(tensor_table(rows)),
        None => Ok(()),
    }
}

fn show_program(
    program: &Program,
    locate: &dyn Fn(mil::WeightId) -> Location,
) -> Result<(), Failure> {
    let text = text::print(program, locate);
    // Names and texts in it are escaped the same way; all else of it is ours.
    output::lines(text.trim_end().lines().map(shown))
}

fn default_program(model: &Model) -> Result<Program, diffusion::Error> {
    let [height, width] = model.config.default_latent();
    let options = unet::Options {
        attention: Attention::SplitEinsum,
        batch: 2,
        height,
        width,
        tokens: 77,
        opset: Opset::CoreMl6,
    };
    unet::build(&model.config, &options, &mut Recorder::default())
}

fn checkpoint_report(opts: &Opts, model: &Model) -> CheckpointReport {
    let (checkpoint, config) = (&model.checkpoint, &model.config);
    let ours: Vec<_> = model
        .names
        .iter()
        .filter_map(|(_, name)| checkpoint.get(name))
        .collect();
    let mut dtypes = BTreeMap::new();
    for tensor in &ours {
        *dtypes.entry(tensor.dtype.to_string()).or_insert(0) += 1;
    }
    let row = |t: &checkpoint::Tensor| TensorRow {
        name: t.name.clone(),
        dtype: t.dtype.to_string(),
        shape: t.shape.clone(),
        bytes: t.len_bytes,
    };
    CheckpointReport {
        kind: "checkpoint",
        name: shown(checkpoint.name()),
        bytes: checkpoint.len_bytes(),
        family: config.family().to_string(),
        layout: model.names.layout.to_string(),
        prefix: model.names.prefix,
        config: model.config_path.as_ref().map(|p| shown_path(p)),
        in_channels: config.in_channels,
        out_channels: config.out_channels,
        cross_attention_dim: config.cross_attention_dim,
        block_out_channels: config.down.iter().map(|b| b.channels).collect(),
        transformer_depths: Depths {
            down: config.down.iter().map(|b| b.layers.clone()).collect(),
            mid: config.mid.as_ref().and_then(|m| m.depth),
            up: config.up.iter().map(|b| b.layers.clone()).collect(),
        },
        attention_heads: config.down.iter().map(|b| b.heads).collect(),
        tensors: ours.len(),
        parameters: ours.iter().map(|t| t.num_elements()).sum(),
        dtypes,
        other_tensors: model.names.others.len(),
        metadata: checkpoint.metadata().clone(),
        tensor_list: opts
            .tensors
            .then(|| checkpoint.tensors().map(row).collect()),
    }
}

#[derive(Serialize)]
struct PackageReport {
    kind: &'static str,
    path: String,
    model_type: &'static str,
    specification_version: i32,
    description: String,
    version: String,
    author: String,
    license: String,
    user_defined: BTreeMap<String, String>,
    inputs: Vec<FeatureRow>,
    outputs: Vec<FeatureRow>,
    functions: Vec<FunctionRow>,
    weights: usize,
    weight_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    tensor_list: Option<Vec<TensorRow>>,
}

#[derive(Serialize)]
struct FeatureRow {
    name: String,
    dtype: String,
    shape: Vec<i64>,
    description: String,
    optional: bool,
}

#[derive(Serialize)]
struct FunctionRow {
    /// Of a pipeline the stage, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    stage: Option<usize>,
    name: String,
    opset: String,
    /// Operations that are no constants.
    operations: usize,
    /// How many there are of each type, constants included.
    operation_types: BTreeMap<String, usize>,
}

fn package(opts: &Opts) -> Result<(), Failure> {
    // The package may be one of a set whose replacement was killed half-way. Where that cannot be settled, what is there can
    // still be looked at.
    if let Err(failure) = folder::settle(folder::holding(&opts.path)) {
        note_line(failure.message());
    }
    let fail = |e: mlpackage::Error| Failure::from(conversion::Error::from(e)).or_file(&opts.path);
    let package = Package::open(&opts.path).map_err(fail)?;
    if opts.mil {
        let program = package.program().map_err(fail)?;
        let table = package.weight_table().map_err(fail)?;
        let locate = |weight| match table.get(weight) {
            Some(w) => Location {
                path: w.place.file_name.clone(),
                offset: w.place.offset_bytes,
            },
            None => Location::unplaced(weight),
        };
        return show_program(program, &locate);
    }
    let report = package_report(opts, &package).map_err(fail)?;
    if opts.json {
        output::json_ok(&report)
    } else {
        show_package(&report)
    }
}

fn package_report(opts: &Opts, package: &Package) -> Result<PackageReport, mlpackage::Error> {
    let info = package.info();
    let holds_programs = ["mlProgram", "pipeline"].contains(&package.kind());
    let (mut functions, mut tensors) = (Vec::new(), Vec::new());
    let (mut weights, mut weight_bytes) = (0, 0);
    let stages = holds_programs.then(|| package.stages()).transpose()?;
    for stage in stages.unwrap_or_default() {
        let (program, table) = (stage.program()?, stage.weight_table()?);
        let row = |(name, f): (&String, _)| function_row(stage.number(), name, f);
        functions.extend(program.functions.iter().map(row));
        weights += table.len();
        let files = stage.weights()?.files().iter();
        weight_bytes += files.map(mlpackage::blob::BlobFile::len_bytes).sum::<u64>();
        if opts.tensors {
            tensors.extend(weight_rows(program, table));
        }
    }
    Ok(PackageReport {
        kind: "package",
        path: shown_path(package.path()),
        model_type: package.kind(),
        specification_version: package.model().specification_version,
        description: info.short_description,
        version: info.version,
        author: info.author,
        license: info.license,
        user_defined: info.user_defined,
        inputs: package.inputs().into_iter().map(feature_row).collect(),
        outputs: package.outputs().into_iter().map(feature_row).collect(),
        functions,
        weights,
        weight_bytes,
        tensor_list: (opts.tensors && holds_programs).then_some(tensors),
    })
}

fn weight_rows(program: &Program, table: &mlpackage::program::WeightTable) -> Vec<TensorRow> {
    let shapes = weight_shapes(program);
    let row = |(id, w): (mil::WeightId, &mlpackage::program::StoredWeight)| TensorRow {
        name: w.name.clone(),
        dtype: w.dtype.to_string(),
        shape: shapes
            .get(&id)
            .cloned()
            .unwrap_or_else(|| vec![w.num_elements]),
        bytes: w.len_bytes,
    };
    table.iter().map(row).collect()
}

fn weight_shapes(program: &Program) -> BTreeMap<mil::WeightId, Vec<u64>> {
    let mut shapes = BTreeMap::new();
    for f in program.functions.values() {
        for c in f.ops().flat_map(mil::Operation::constants) {
            if let (Some(id), Some(shape)) =
                (c.as_weight(), c.ty.as_tensor().and_then(|t| t.shape()))
            {
                shapes.insert(id, shape);
            }
        }
    }
    shapes
}

fn function_row(stage: Option<usize>, name: &str, f: &mil::Function) -> FunctionRow {
    let mut types = BTreeMap::new();
    for op in f.ops() {
        *types.entry(op.kind.name().to_owned()).or_insert(0) += 1;
    }
    let constants = types.get("const").copied().unwrap_or(0);
    let operations = types.values().sum::<usize>() - constants;
    FunctionRow {
        stage,
        name: name.to_owned(),
        opset: f.opset.clone(),
        operations,
        operation_types: types,
    }
}

fn feature_row(f: mlpackage::Feature) -> FeatureRow {
    let (dtype, shape) = match f.ty {
        FeatureType::Array { dtype, shape } => (
            dtype.map_or_else(|| "unknown".to_owned(), |d| d.to_string()),
            shape,
        ),
        FeatureType::Other(name) => (name.to_owned(), Vec::new()),
        _ => ("unknown".to_owned(), Vec::new()),
    };
    FeatureRow {
        name: f.name,
        dtype,
        shape,
        description: f.description,
        optional: f.optional,
    }
}

fn show_package(report: &PackageReport) -> Result<(), Failure> {
    let mut lines = vec![
        format!(
            "{}: {}, specification {}",
            report.path, report.model_type, report.specification_version
        ),
        report.description.clone(),
    ];
    let credits = [
        ("author", &report.author),
        ("license", &report.license),
        ("version", &report.version),
    ];
    lines.extend(
        credits
            .iter()
            .filter(|(_, v)| !v.is_empty())
            .map(|(k, v)| format!("{k}: {v}")),
    );
    lines.extend(report.user_defined.iter().map(|(k, v)| format!("{k}: {v}")));
    let mut table = Table::default();
    for (direction, list) in [("in", &report.inputs), ("out", &report.outputs)] {
        for f in list {
            table.row([
                format!("{direction:<3}  {}", f.name),
                f.dtype.clone(),
                format!("{:?}", f.shape),
            ]);
        }
    }
    lines.extend(table.lines());
    for f in &report.functions {
        let stage = f.stage.map_or_else(String::new, |n| format!("stage {n}, "));
        lines.push(format!(
            "{stage}function {} ({}): {} operations",
            f.name,
            f.opset,
            thousands(f.operations as u64)
        ));
        let mut types: Vec<_> = f.operation_types.iter().collect();
        types.sort_by_key(|(name, n)| (std::cmp::Reverse(**n), (*name).clone()));
        lines.push(
            types
                .iter()
                .map(|(name, n)| format!("{name} {}", thousands(**n as u64)))
                .collect::<Vec<_>>()
                .join(", "),
        );
    }
    lines.push(format!(
        "{} weights, {} bytes of weight files",
        report.weights,
        thousands(report.weight_bytes)
    ));
    if let Some(rows) = &report.tensor_list {
        lines.extend(tensor_table(rows));
    }
    output::lines(lines.iter().map(|line| shown(line)))
}
