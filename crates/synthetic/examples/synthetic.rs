//! Writes a synthetic checkpoint, for scripts and benchmarks.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line program"
)]

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use checkpoint::Dtype;
use diffusion::Layout;
use synthetic::{Container, Options, Preset};

const USAGE: &str = "\
Writes a synthetic checkpoint of a model.

usage: synthetic MODEL -o PATH [options]

MODEL is one of sdxl, sdxl-refiner, sd15, sd15-inpainting, sd21, demo-sdxl, tiny-sdxl,
tiny-sdxl-refiner, tiny-sd15, tiny-sd21.

options:
  -o PATH              the file, or with --shards the folder; must not exist
  --dtype TYPE         F32, F16 (default), BF16, F8_E4M3, F8_E5M2
  --layout LAYOUT      names in a file: original (default) or diffusers
  --prefix             names begin with `model.diffusion_model.` (default)
  --no-prefix          they do not
  --shards N           a diffusers folder with N files of weights
  --variant NAME       the variant in the names of a folder's files
  --seed N             1 by default
  --sparse             zeros that take no room on the disk
  --others             also a few small tensors of other parts
  --metadata KEY=TEXT  an entry of the file's metadata, may be repeated
  --threads N          all of the machine's by default
";

struct Command {
    model: Preset,
    path: PathBuf,
    options: Options,
}

fn parse(mut args: impl Iterator<Item = String>) -> Result<Command, String> {
    let (mut model, mut path, mut shards, mut variant) = (None, None, None, None);
    let mut options = Options::default();
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or(format!("{arg} needs a value"));
        match arg.as_str() {
            "-o" => path = Some(value()?.into()),
            "--dtype" => {
                let name = value()?;
                options.dtype = Dtype::from_name(&name).ok_or(format!("unknown dtype {name}"))?;
            }
            "--layout" => {
                options.layout = match value()?.as_str() {
                    "original" => Layout::Original,
                    "diffusers" => Layout::Diffusers,
                    other => return Err(format!("unknown layout {other}")),
                }
            }
            "--prefix" => options.prefix = true,
            "--no-prefix" => options.prefix = false,
            "--shards" => shards = Some(number(&value()?)?),
            "--variant" => variant = Some(value()?),
            "--seed" => options.seed = number(&value()?)?,
            "--threads" => options.threads = number(&value()?)?,
            "--sparse" => options.sparse = true,
            "--others" => options.with_other_parts = true,
            "--metadata" => {
                let entry = value()?;
                let (key, text) = entry.split_once('=').ok_or("metadata is KEY=TEXT")?;
                options.metadata.insert(key.to_owned(), text.to_owned());
            }
            name => {
                let preset = Preset::from_name(name).ok_or(format!("unknown argument {name}"))?;
                model = Some(preset);
            }
        }
    }
    if shards.is_some() || variant.is_some() {
        options.container = Container::Folder {
            shards: shards.unwrap_or(1),
            variant,
        };
    }
    Ok(Command {
        model: model.ok_or("which model?")?,
        path: path.ok_or("-o is missing")?,
        options,
    })
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("{text} is no number"))
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.is_empty() || args.iter().any(|a| a == "-h" || a == "--help") {
        print!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    let command = match parse(args.into_iter()) {
        Ok(command) => command,
        Err(message) => {
            eprintln!("error: {message}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let start = Instant::now();
    match synthetic::write(&command.path, &command.model.config(), &command.options) {
        Ok(summary) => {
            println!(
                "{} parameters in {} tensors, {} bytes in {} file(s), {:.1} s",
                summary.num_parameters,
                summary.num_tensors,
                summary.len_bytes,
                summary.files.len(),
                start.elapsed().as_secs_f64()
            );
            ExitCode::SUCCESS
        }
        Err(error) => {
            let source = std::error::Error::source(&error);
            let cause = source.map_or_else(String::new, |s| format!(": {s}"));
            eprintln!("error: {error}{cause}");
            ExitCode::FAILURE
        }
    }
}
