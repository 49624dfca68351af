//! The plan before a conversion and the report after it, for people.

use std::path::Path;

use conversion::report::{Chunk, Feature, LimitReport, Timings};
use conversion::split::SplitReport;
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
    lines.extend(chunks(&report.chunks, &report.limit, fewest));
    lines
}

/// What is split and into what; `fewest` as in [`plan`].
pub fn split(report: &SplitReport, fewest: Option<usize>) -> Vec<String> {
    let source = &report.source;
    let mut lines = vec![
        format!(
            "{}: {} operations, {} weights in {}, {} (specification {})",
            shown(&source.name),
            thousands(source.operations as u64),
            thousands(source.weights as u64),
            format::bytes(source.weight_bytes),
            shown(&source.opset),
            source.specification_version,
        ),
        String::new(),
    ];
    lines.extend(chunks(&report.chunks, &report.limit, fewest));
    lines
}

fn chunks(chunks: &[Chunk], limit: &LimitReport, fewest: Option<usize>) -> Vec<String> {
    let mut lines = table(chunks, limit).lines();
    lines.extend(over_limit(chunks, limit, fewest));
    lines
}

fn table(chunks: &[Chunk], limit: &LimitReport) -> Table {
    let mut table = Table::default();
    let of_limit = limit.bytes.map_or_else(
        || "limit".to_owned(),
        |n| format!("of {}", format::bytes(n)),
    );
    table.row([
        "package",
        "operations",
        "weight.bin",
        &of_limit,
        "enters",
        "leaves",
    ]);
    for chunk in chunks {
        let share = limit.bytes.map_or_else(
            || "none".to_owned(),
            |n| format::share(chunk.weight_bytes, n),
        );
        table.row([
            name(chunk),
            thousands(chunk.operations as u64),
            format::bytes(chunk.weight_bytes),
            share,
            traffic(&chunk.inputs),
            traffic(&chunk.outputs),
        ]);
    }
    table
}

fn name(chunk: &Chunk) -> String {
    placed(shown(&chunk.path), chunk.stage)
}

/// What a chunk is called: its package, and of a pipeline its stage.
pub fn placed(package: String, stage: Option<usize>) -> String {
    match stage {
        Some(stage) => format!("{package} stage {stage}"),
        None => package,
    }
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
fn over_limit(chunks: &[Chunk], asked: &LimitReport, fewest: Option<usize>) -> Vec<String> {
    let Some(limit) = asked.bytes else {
        return Vec::new();
    };
    let over = chunks.iter().filter(|c| !c.within_limit);
    let over: Vec<String> = over.map(name).collect();
    let (are, they, them) = match over.len() {
        0 => return Vec::new(),
        1 => ("is", "it", "it"),
        _ => ("are", "they", "them"),
    };
    let largest = chunks.iter().map(|c| c.weight_bytes).max();
    let most = Profile::Ane2G.bytes();
    let refused = format!(
        "the Neural Engine will probably not take {them}, and the model will run on the CPU or GPU"
    );
    let profile = |p: &&Profile| p.name() == asked.profile;
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
            asked.profile,
        ),
    ]
}

/// Every input and output, and where the program was cut.
pub fn features(chunks: &[Chunk]) -> Vec<String> {
    let mut lines = Vec::new();
    for chunk in chunks {
        lines.push(String::new());
        lines.push(name(chunk));
        let mut table = Table::default();
        for (direction, list) in [("in", &chunk.inputs), ("out", &chunk.outputs)] {
            for f in list {
                table.row([
                    format!("  {direction:<3}  {}", shown(&f.name)),
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
                .map(|op| format!("  cut after `{}`", shown(op))),
        );
    }
    lines
}

/// What was written, how large, and how to load it.
pub fn done(report: &Report, dir: &Path) -> Vec<String> {
    let mut lines = written(
        dir,
        &report.chunks,
        &report.limit,
        report.packages_bytes,
        report.timings,
    );
    for c in &report.clamped {
        lines.push(format!(
            "{}: {} value(s) beyond fp16 were written as 65504 with their sign",
            shown(&c.tensor),
            c.values
        ));
    }
    lines.push(loading(&report.component, &report.chunks));
    lines
}

/// What was written of a package, how large, and how to load it.
pub fn split_done(report: &SplitReport, dir: &Path) -> Vec<String> {
    let mut lines = written(
        dir,
        &report.chunks,
        &report.limit,
        report.packages_bytes,
        report.timings,
    );
    lines.push(match report.component.as_str() {
        "unet" | "unet_refiner" => loading(&report.component, &report.chunks),
        _ if report.chunks.iter().any(|c| c.stage.is_some()) => {
            "To load: compile with `xcrun coremlcompiler compile`; it takes and gives what the whole did.".to_owned()
        }
        _ => "To load: compile with `xcrun coremlcompiler compile`; each takes the outputs of the one before it, and the \
              original inputs."
            .to_owned(),
    });
    lines
}

fn written(
    dir: &Path,
    chunks: &[Chunk],
    limit: &LimitReport,
    packages_bytes: u64,
    timings: Option<Timings>,
) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut table = Table::default();
    table.row(["written", "size", "weight.bin", "share of the limit"]);
    for chunk in chunks {
        let share = limit.bytes.map_or_else(
            || "no limit".to_owned(),
            |n| format::share(chunk.weight_bytes, n),
        );
        table.row([
            placed(shown_path(&dir.join(&chunk.path)), chunk.stage),
            format::bytes(chunk.package_bytes),
            format::bytes(chunk.weight_bytes),
            share,
        ]);
    }
    lines.extend(table.lines());
    if let Some(t) = timings {
        let seconds = t.plan_seconds + t.write_seconds;
        lines.push(format!(
            "{} in {}",
            format::bytes(packages_bytes),
            format::seconds(seconds)
        ));
    }
    lines
}

/// Apple's folder loader knows one package and two by name (`Unet`, `UnetChunk1` and `UnetChunk2`; for the refiner
/// `UnetRefiner…`), and prefers the two.
fn loading(component: &str, chunks: &[Chunk]) -> String {
    let compile = "To load: compile with `xcrun coremlcompiler compile`, then";
    let base = if component == "unet_refiner" {
        "UnetRefiner"
    } else {
        "Unet"
    };
    let paths = conversion::report::packages(chunks);
    let known = paths == conversion::package_names(base, paths.len());
    match (paths.len(), known) {
        (1 | 2, true) => {
            let takes_sizes = chunks[0].inputs.iter().any(|f| f.name == "time_ids");
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
