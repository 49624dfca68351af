//! What can go, and why.

use std::fmt;
use std::path::PathBuf;

use crate::content::Digest;
use crate::disk::{Identity, Node};
use crate::tree::Sum;

/// Kinds of what can go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// The same content is kept elsewhere.
    Duplicates,
    /// Left by a process that is gone.
    Temporary,
    /// Downloads that never ended.
    Partial,
    /// What programs keep to be faster the next time.
    Caches,
    /// What builds made, and make again.
    Builds,
    /// Packages whose compiled form is there.
    Compiled,
}

impl Class {
    /// All of them.
    pub const ALL: [Class; 6] = [
        Class::Duplicates,
        Class::Temporary,
        Class::Partial,
        Class::Caches,
        Class::Builds,
        Class::Compiled,
    ];

    /// Its name on the command line and in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Class::Duplicates => "duplicates",
            Class::Temporary => "temporary",
            Class::Partial => "partial",
            Class::Caches => "caches",
            Class::Builds => "builds",
            Class::Compiled => "compiled",
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// How sure it is that nobody will miss it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Sureness {
    /// Nothing is lost: every byte is kept elsewhere, or it is this program's own.
    Sure,
    /// It can be made or downloaded again, or differs in what is not the model.
    Likely,
    /// It may be in use in a way that cannot be seen.
    Unsure,
}

impl Sureness {
    /// Its name in tables and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Sureness::Sure => "sure",
            Sureness::Likely => "likely",
            Sureness::Unsure => "unsure",
        }
    }
}

/// The copy that stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Where it is.
    pub path: PathBuf,
    /// Why this one and not another.
    pub because: String,
}

/// Something that can go. Made by [`scan()`](crate::scan()) only.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Candidate {
    /// What kind of thing it is.
    pub class: Class,
    /// How sure it is that nobody will miss it.
    pub sureness: Sureness,
    /// Where it is.
    pub path: PathBuf,
    /// Further names of the same file (hard links), which go with it.
    pub other_names: Vec<PathBuf>,
    /// Whether it is a folder with all in it.
    pub is_folder: bool,
    /// How many files that is.
    pub files: u64,
    /// How long they are together.
    pub len_bytes: u64,
    /// What their going gives back to the disk.
    pub frees_bytes: u64,
    /// Why it can go.
    pub why: String,
    /// The copy that stays, of a duplicate or a package's compiled form.
    pub kept: Option<Kept>,
    /// Why it is not to be deleted, only linked; `None` if it may be.
    pub stays: Option<String>,
    /// Whether a hard link or reflink of the kept copy could take its place.
    pub is_linkable: bool,
    pub(crate) proof: Proof,
}

/// What has to be so still when it goes.
#[derive(Clone, Debug)]
pub(crate) enum Proof {
    /// A file with this content, which another has too.
    Copy {
        identity: Identity,
        content: Content,
        keeper: Keeper,
    },
    /// A file that nothing else tells about.
    File {
        identity: Identity,
        /// How many names it had.
        links: u64,
        held: Option<(Digest, Keeper)>,
    },
    /// A folder; what in it must not be lost is elsewhere too.
    Tree {
        node: Node,
        fingerprint: Sum,
        held: Vec<HeldProof>,
        /// The folder that it is a copy of, and the digest of both.
        copy_of: Option<(PathBuf, Digest)>,
    },
    /// A conversion's working folder, which its own recovery takes away.
    Working { node: Node },
}

/// Content by its digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Content {
    /// Of all bytes.
    Bytes(Digest),
    /// Of a checkpoint's tensors.
    Tensors(Digest),
}

/// The file that has the content and stays.
#[derive(Clone, Debug)]
pub(crate) struct Keeper {
    pub path: PathBuf,
    pub identity: Identity,
}

/// A file with weights in a folder that goes.
#[derive(Clone, Debug)]
pub(crate) struct HeldProof {
    pub path: PathBuf,
    pub identity: Identity,
    pub digest: Digest,
    pub keeper: Keeper,
}

/// Something large that looks as if it could go, and why it is none of the candidates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftAlone {
    /// Where it is.
    pub path: PathBuf,
    /// What it takes of the disk, where that is known.
    pub bytes: u64,
    /// Why it stays.
    pub why: String,
}
