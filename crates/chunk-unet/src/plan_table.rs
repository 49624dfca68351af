//! The plan before a conversion and the report after it, for people.

use std::path::Path;

use conversion::report::Feature;
use conversion::{Profile, Report};

use crate::failure::{shown, shown_path};
use crate::format::{self, Table, thousands};

/// What is converted, how, and into what; `fewest` is the number of packages that would fit, if it is known and those planned do
/// not.
pub fn plan(report: &Report, fewest: Option<usize>) -> Vec<String> {
    let (source, options) = (&report.source, &report.options);
    let mut lines = vec![
        format!(
            "{}: {}, {} layout, {} parameters in {}",
            shown(&source.name),
            report.family,
            source.layout,
            thousands(source.parameters),
            source.dtypes.join(", "),
        ),
        format!(
            "{}, latent {}x{}, batch {}, {} tokens, {} (specification {})",
            options.attention,
            options.latent_width,
            options.latent_height,
            options.batch,
            options.tokens,
            options.opset,
            options.specification_version,
        ),
        String::new(),
    ];
    lines.extend(chunks(report).lines());
    lines.extend(over_limit(report, fewest));
    lines
}

fn chunks(report: &Report) -> Table {
    let mut table = Table::default();
    let limit = report.limit.bytes.map_or_else(
        || "limit".to_owned(),
        |n| format!("of {}", format::bytes(n)),
    );
    table.row([
        "package",
        "operations",
        "weight.bin",
        &limit,
        "enters",
        "leaves",
    ]);
    for chunk in &report.chunks {
        let share = report.limit.bytes.map_or_else(
            || "none".to_owned(),
            |n| format::share(chunk.weight_bytes, n),
        );
        table.row([
            chunk.path.clone(),
            thousands(chunk.operations as u64),
            format::bytes(chunk.weight_bytes),
            share,
            traffic(&chunk.inputs),
            traffic(&chunk.outputs),
        ]);
    }
    table
}

fn traffic(features: &[Feature]) -> String {
    let bytes: u64 = features.iter().map(|f| f.bytes).sum();
    let noun = if features.len() == 1 {
        "tensor"
    } else {
        "tensors"
    };
    format!("{} {noun}, {}", features.len(), format::bytes(bytes))
}

/// In plain words, which chunks are larger than the profile allows, what that means, and what would fit.
fn over_limit(report: &Report, fewest: Option<usize>) -> Vec<String> {
    let Some(limit) = report.limit.bytes else {
        return Vec::new();
    };
    let over = report.chunks.iter().filter(|c| !c.within_limit);
    let over: Vec<&str> = over.map(|c| c.path.as_str()).collect();
    let (are, they, them) = match over.len() {
        0 => return Vec::new(),
        1 => ("is", "it", "it"),
        _ => ("are", "they", "them"),
    };
    let largest = report.chunks.iter().map(|c| c.weight_bytes).max();
    let most = Profile::Ane2G.bytes();
    let refused = format!(
        "the Neural Engine will probably not take {them}, and the model will run on the CPU or GPU"
    );
    let profile = |p: &&Profile| p.name() == report.limit.profile;
    let mut text = match Profile::ALL.iter().find(profile) {
        Some(Profile::Ane2G) => {
            format!(", the maximum that the Neural Engine's own log names: {refused}.")
        }
        Some(Profile::Ane1G) => {
            format!(", about what a file may have on iPhone and iPad: {they} may not load there.")
        }
        Some(Profile::Ane250M) => {
            ", the most careful choice, which is no known maximum.".to_owned()
        }
        Some(Profile::None) | None => ".".to_owned(),
    };
    if largest > most && Some(limit) < most {
        let most = most.map_or_else(String::new, thousands);
        text += &format!(
            " Over {most} bytes, the maximum that the Neural Engine's own log names, {refused}."
        );
    }
    text += &fewest.map_or_else(String::new, |n| {
        format!(" `--chunks auto` makes {n} that fit.")
    });
    vec![
        String::new(),
        format!(
            "{} {are} over the limit of {} bytes ({}){text}",
            over.join(", "),
            thousands(limit),
            report.limit.profile,
        ),
    ]
}

/// Every input and output, and where the program was cut.
pub fn features(report: &Report) -> Vec<String> {
    let mut lines = Vec::new();
    for chunk in &report.chunks {
        lines.push(String::new());
        lines.push(chunk.path.clone());
        let mut table = Table::default();
        for (direction, list) in [("in", &chunk.inputs), ("out", &chunk.outputs)] {
            for f in list {
                table.row([
                    format!("  {direction:<3}  {}", f.name),
                    f.dtype.clone(),
                    format!("{:?}", f.shape),
                    format::bytes(f.bytes),
                ]);
            }
        }
        lines.extend(table.lines());
        lines.extend(
            chunk
                .cut_after
                .as_ref()
                .map(|op| format!("  cut after `{op}`")),
        );
    }
    lines
}

/// What was written, how large, and how to load it.
pub fn done(report: &Report, dir: &Path) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut table = Table::default();
    table.row(["written", "size", "weight.bin", "share of the limit"]);
    for chunk in &report.chunks {
        let share = report.limit.bytes.map_or_else(
            || "no limit".to_owned(),
            |n| format::share(chunk.weight_bytes, n),
        );
        table.row([
            shown_path(&dir.join(&chunk.path)),
            format::bytes(chunk.package_bytes),
            format::bytes(chunk.weight_bytes),
            share,
        ]);
    }
    lines.extend(table.lines());
    if let Some(t) = report.timings {
        let seconds = t.plan_seconds + t.write_seconds;
        lines.push(format!(
            "{} in {}",
            format::bytes(report.packages_bytes),
            format::seconds(seconds)
        ));
    }
    for c in &report.clamped {
        lines.push(format!(
            "{}: {} value(s) beyond fp16 were written as 65504 with their sign",
            shown(&c.tensor),
            c.values
        ));
    }
    lines.push(loading(report));
    lines
}

/// Apple's folder loader knows one package and two by name (`Unet`, `UnetChunk1` and `UnetChunk2`; for the refiner
/// `UnetRefiner…`), and prefers the two.
fn loading(report: &Report) -> String {
    let compile = "To load: compile with `xcrun coremlcompiler compile`, then";
    let base = if report.component == "unet_refiner" {
        "UnetRefiner"
    } else {
        "Unet"
    };
    let paths: Vec<&str> = report.chunks.iter().map(|c| c.path.as_str()).collect();
    let known = paths == conversion::package_names(base, paths.len());
    match (paths.len(), known) {
        (1 | 2, true) => {
            let takes_sizes = report.chunks[0].inputs.iter().any(|f| f.name == "time_ids");
            let pipeline = if takes_sizes {
                "StableDiffusionXLPipeline"
            } else {
                "StableDiffusionPipeline"
            };
            format!("{compile} give the folder to Apple's {pipeline}(resourcesAt:configuration:).")
        }
        (1, false) => format!("{compile} Unet(modelAt:configuration:) with it."),
        (n, _) => format!(
            "{compile} Unet(chunksAt:configuration:) with the {n} in order; Apple's folder loader does not find them."
        ),
    }
}
