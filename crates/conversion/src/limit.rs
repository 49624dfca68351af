//! How large a chunk's weight file may be, and who says so.

use partition::Plan;

use crate::error::Error;

/// A named limit, each with its evidence (`docs/profiles.md` has the table).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// What the Neural Engine's own log names as the maximum.
    Ane2G,
    /// What converters for iPhone and iPad keep to.
    Ane1G,
    /// The most careful choice.
    Ane250M,
    /// No limit.
    None,
}

impl Profile {
    /// Every profile.
    pub const ALL: &[Profile] = &[
        Profile::Ane2G,
        Profile::Ane1G,
        Profile::Ane250M,
        Profile::None,
    ];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Profile::Ane2G => "ane-2g",
            Profile::Ane1G => "ane-1g",
            Profile::Ane250M => "ane-250m",
            Profile::None => "none",
        }
    }

    /// Bytes of weight.bin, header and padding included; equal fits.
    pub fn bytes(self) -> Option<u64> {
        match self {
            Profile::Ane2G => Some(2_147_483_648),
            Profile::Ane1G => Some(1_000_000_000),
            Profile::Ane250M => Some(250_000_000),
            Profile::None => None,
        }
    }

    /// Who says so.
    pub fn evidence(self) -> &'static str {
        match self {
            Profile::Ane2G => {
                "2,147,483,648 bytes: the Neural Engine's log, `Weight file size (2525476480 bytes) exceeds the maximum \
                 (2147483648 bytes)` (coremltools pull request 2593)"
            }
            Profile::Ane1G => {
                "1,000,000,000 bytes: about 1 GB a file on iOS (ANEMLL, docs/convert.md; coremltools guide and \
                 ml-stable-diffusion README on iPhone)"
            }
            Profile::Ane250M => {
                "250,000,000 bytes: the most careful choice (ane-book, chapters 1 and 4)"
            }
            Profile::None => "no limit",
        }
    }
}

/// The limit of one conversion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// A profile's.
    Profile(Profile),
    /// A size given by hand.
    Explicit(u64),
}

impl Limit {
    /// Bytes of weight.bin, header and padding included; equal fits.
    pub fn bytes(self) -> Option<u64> {
        match self {
            Limit::Profile(p) => p.bytes(),
            Limit::Explicit(bytes) => Some(bytes),
        }
    }

    /// Refuses a plan over a limit that was given by hand; a profile's is only said.
    pub(crate) fn check(self, plan: &Plan) -> Result<(), Error> {
        let largest = plan.chunks.iter().map(|c| c.weight_bytes).max();
        self.check_bytes(plan.chunks.len(), largest.unwrap_or(0))
    }

    /// As [`Limit::check`], of so many chunks whose largest has so many bytes.
    pub(crate) fn check_bytes(self, chunks: usize, largest: u64) -> Result<(), Error> {
        match self {
            Limit::Explicit(limit) if largest > limit => Err(Error::Usage {
                message: format!(
                    "{chunks} chunks do not fit a limit of {limit} bytes: the largest needs {largest} bytes",
                ),
                help: "give more `--chunks`, `--chunks auto`, or a larger `--max-chunk-size`"
                    .to_owned(),
            }),
            _ => Ok(()),
        }
    }

    /// The profile's name, or `explicit`.
    pub fn name(self) -> &'static str {
        match self {
            Limit::Profile(p) => p.name(),
            Limit::Explicit(_) => "explicit",
        }
    }
}
