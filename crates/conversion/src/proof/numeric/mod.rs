//! The numeric proof: packages run beside what they should compute, on the same inputs.
//!
//! [`against_packages`] runs a chain beside another. [`against_model`] runs it beside the program of a checkpoint, built anew in
//! `fp32` from the checkpoint's own elements; at another size than the packages' own it is their program, built anew for that
//! size, that runs with the weights of their weight files. That proves weights and numbers, while the structural proof ties the
//! packages' operations to the builder.
//!
//! Both sides run in lockstep on one machine, so that values are compared where they are made and not kept.

mod comparison;
mod difference;
mod inputs;
mod lockstep;
mod names;
mod places;
mod report;
mod watched;

use std::time::Instant;

use diffusion::unet::{self, Attention};
use diffusion::{CheckpointWeights, Overflow};
use mil::{Opset, Program};
use mil_eval::Rounding;

use super::chain::Chain;
use super::report::shown;
use super::structure::Structure;
use crate::error::Error;
use crate::evaluation::{Stages, TensorFile};
use crate::memory_budget::MemoryBudget;
use crate::model::Model;
use crate::progress::{Cancel, Reporter};
use comparison::{Comparison, Sides};
use places::Places;

pub use inputs::Inputs;
pub use report::{ComparedTensor, NumericReport, Subject};

/// The latent at which a model is compared unless another is asked for: small enough for minutes at full size.
pub const DEFAULT_LATENT: [u64; 2] = [32, 32];
/// The threshold of Apple's converter, in dB.
pub const DEFAULT_MIN_PSNR: f64 = 35.0;

/// At which size packages are compared with a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// The packages' own.
    Native,
    /// This height and width of the latent.
    Latent([u64; 2]),
}

/// How the numeric proof is done.
#[derive(Clone, Debug)]
pub struct NumericOptions<'o> {
    /// At which size; `None` for the inputs' own where they are given, else for [`DEFAULT_LATENT`] or the packages' own, whichever
    /// is smaller.
    pub size: Option<Size>,
    /// What both sides run on.
    pub inputs: Inputs<'o>,
    /// The ratio that all that is compared must reach, in dB.
    pub min_psnr: f64,
    /// Whether the values of all operations are compared, and not only outputs and what crosses between packages.
    pub per_operation: bool,
    /// What happens to values that the packages type `fp16`; a model beside them is never rounded.
    pub rounding: Rounding,
    /// How many threads compute; `None` for as many as the machine runs at once.
    pub threads: Option<usize>,
    /// What this process may keep resident: less freed memory is kept for reuse, and what outgrows it is stopped.
    pub memory: MemoryBudget,
}

impl Default for NumericOptions<'_> {
    fn default() -> Self {
        NumericOptions {
            size: None,
            inputs: Inputs::Seed(0),
            min_psnr: DEFAULT_MIN_PSNR,
            per_operation: false,
            rounding: Rounding::Fp16,
            threads: None,
            memory: MemoryBudget::default(),
        }
    }
}

/// Runs a chain beside the program of a model. `structure` is what the structural proof against that model came to.
///
/// Packages that this tool did not make run at their own size only.
///
/// # Errors
/// The packages cannot run at the size asked for, an input is missing or of another type, something cannot be computed or
/// read, or the job was cancelled.
pub fn against_model(
    chain: &Chain,
    structure: &Structure,
    model: &Model,
    options: &NumericOptions<'_>,
    reporter: &dyn Reporter,
    cancel: &Cancel,
) -> Result<NumericReport, Error> {
    let start = Instant::now();
    let packages = Stages::new(chain.packages(), None)?;
    let matched = structure.matched.as_ref();
    let native = matched.map(|m| m.options).or_else(|| shapes_of(&packages));
    let native = native.ok_or_else(no_unet)?;
    let [height, width] = size(options, native, matched.is_some())?;
    let shapes = unet::Options {
        height,
        width,
        ..native
    };
    let mut weights = CheckpointWeights::fp32(&model.checkpoint, &model.names, &model.config);
    let reference = unet::build(&model.config, &shapes, &mut weights)?;
    let name = shown(model.checkpoint.name());
    let comparison = Comparison {
        chain,
        packages: &packages,
        options,
        native: Some(native),
        reporter,
        cancel,
    };
    let rebuilt;
    let (ran, found, places) = match matched.filter(|_| shapes != native) {
        Some(matched) => {
            rebuilt = rebuild(model, &shapes)?;
            let found = Stages::of_program(REBUILT, &rebuilt, matched);
            (
                Subject::Rebuilt,
                found,
                Places::of_program(matched, &rebuilt),
            )
        }
        None => (Subject::Packages, packages.clone(), Places::Own),
    };
    let report = comparison.run(&Sides {
        found,
        places,
        reference: Stages::of_program(&format!("`{name}`"), &reference, &weights),
        // The model itself, which no engine rounds.
        reference_rounding: Rounding::None,
    })?;
    Ok(NumericReport {
        against: name,
        ran,
        latent_height: Some(height),
        latent_width: Some(width),
        seconds: start.elapsed().as_secs_f64(),
        ..report
    })
}

/// What messages call the packages' program built anew.
const REBUILT: &str = "the packages' program built anew";

/// Runs a chain beside other packages, both at their own size.
///
/// # Errors
/// As [`against_model`].
pub fn against_packages(
    chain: &Chain,
    name: &str,
    reference: &Stages<'_>,
    options: &NumericOptions<'_>,
    reporter: &dyn Reporter,
    cancel: &Cancel,
) -> Result<NumericReport, Error> {
    let start = Instant::now();
    if let Some(Size::Latent(_)) = options.size {
        return Err(Error::Usage {
            message: "packages run beside packages at their own size only".to_owned(),
            help: "leave `--latent-size` out, or give the checkpoint with `--against`".to_owned(),
        });
    }
    let packages = Stages::new(chain.packages(), None)?;
    let comparison = Comparison {
        chain,
        packages: &packages,
        options,
        native: shapes_of(&packages),
        reporter,
        cancel,
    };
    let report = comparison.run(&Sides {
        found: packages.clone(),
        places: Places::Own,
        reference: reference.clone(),
        reference_rounding: options.rounding,
    })?;
    Ok(NumericReport {
        against: shown(name),
        seconds: start.elapsed().as_secs_f64(),
        ..report
    })
}

fn no_unet() -> Error {
    Error::Usage {
        message: "the packages take no `sample` and `encoder_hidden_states` of fixed size, as a UNet does"
            .to_owned(),
        help: "give packages that they should be like with `--against`, instead of a checkpoint".to_owned(),
    }
}

/// The shapes of a UNet's inputs; the form of attention is any.
fn shapes_of(packages: &Stages<'_>) -> Option<unet::Options> {
    let inputs = packages.inputs();
    let shape = |name: &str| {
        let input = inputs.iter().find(|f| f.name == name)?;
        <[u64; 4]>::try_from(input.ty.shape()?).ok()
    };
    let [batch, _, height, width] = shape("sample")?;
    let [_, _, _, tokens] = shape("encoder_hidden_states")?;
    Some(unet::Options {
        attention: Attention::SplitEinsum,
        batch,
        height,
        width,
        tokens,
        opset: Opset::CoreMl6,
    })
}

/// The height and width of the latent that both sides run at.
fn size(
    options: &NumericOptions<'_>,
    native: unet::Options,
    can_be_rebuilt: bool,
) -> Result<[u64; 2], Error> {
    let own = [native.height, native.width];
    let wanted = match (options.size, options.inputs) {
        (Some(Size::Native), _) => own,
        (Some(Size::Latent(size)), _) => size,
        _ if !can_be_rebuilt => own,
        (None, Inputs::File { file, .. }) => latent_of(file)?.unwrap_or(own),
        (None, Inputs::Seed(_))
            if own.iter().product::<u64>() <= DEFAULT_LATENT.iter().product() =>
        {
            own
        }
        (None, Inputs::Seed(_)) => DEFAULT_LATENT,
    };
    if wanted == own || can_be_rebuilt {
        return Ok(wanted);
    }
    Err(Error::Usage {
        message: format!(
            "these packages run at their own size only, a latent of {}x{}: for another one their operations must be those \
             that chunk-unet builds for the checkpoint",
            native.width, native.height
        ),
        help: "leave `--latent-size` out, or give `native`".to_owned(),
    })
}

/// The height and width of the latent in a file of inputs.
fn latent_of(file: &TensorFile) -> Result<Option<[u64; 2]>, Error> {
    let sample = file.read(["sample"])?.remove("sample");
    Ok(sample.and_then(|sample| match sample.shape[..] {
        [_, _, height, width] => Some([height as u64, width as u64]),
        _ => None,
    }))
}

/// The model's program for other shapes; its weights have the numbers that [`Matched`](super::Matched) serves.
fn rebuild(model: &Model, shapes: &unet::Options) -> Result<Program, Error> {
    let mut numbers = CheckpointWeights::new(
        &model.checkpoint,
        &model.names,
        &model.config,
        Overflow::default(),
    );
    Ok(unet::build(&model.config, shapes, &mut numbers)?)
}
