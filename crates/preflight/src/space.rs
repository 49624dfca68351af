//! A need against what is free.

use std::fmt;
use std::path::PathBuf;

use crate::error::shown;

/// What a job needs on one filesystem, and what that filesystem has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Space {
    /// The path at which the filesystem was asked.
    pub path: PathBuf,
    /// What the job will write, in bytes of the filesystem's blocks.
    pub need_bytes: u64,
    /// What this user can write; `None` where the filesystem gives no figures.
    pub have_bytes: Option<u64>,
}

impl Space {
    /// How much is missing; 0 if the job fits or the filesystem gives no figures.
    pub fn short_by_bytes(&self) -> u64 {
        self.have_bytes
            .map_or(0, |have_bytes| self.need_bytes.saturating_sub(have_bytes))
    }

    /// Whether nothing is missing.
    pub fn fits(&self) -> bool {
        self.short_by_bytes() == 0
    }
}

impl fmt::Display for Space {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "`{}`: need {} bytes, ",
            shown(&self.path),
            self.need_bytes
        )?;
        match self.have_bytes {
            Some(have_bytes) => write!(f, "have {have_bytes}, short by {}", self.short_by_bytes()),
            None => f.write_str("free space unknown"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_by_is_what_is_missing() {
        struct Case {
            need_bytes: u64,
            have_bytes: Option<u64>,
            short_by_bytes: u64,
        }
        for Case {
            need_bytes,
            have_bytes,
            short_by_bytes,
        } in [
            Case {
                need_bytes: 10,
                have_bytes: Some(10),
                short_by_bytes: 0,
            },
            Case {
                need_bytes: 11,
                have_bytes: Some(10),
                short_by_bytes: 1,
            },
            Case {
                need_bytes: 9,
                have_bytes: Some(10),
                short_by_bytes: 0,
            },
            Case {
                need_bytes: u64::MAX,
                have_bytes: None,
                short_by_bytes: 0,
            },
        ] {
            let space = Space {
                path: "/".into(),
                need_bytes,
                have_bytes,
            };
            assert_eq!(space.short_by_bytes(), short_by_bytes);
            assert_eq!(space.fits(), short_by_bytes == 0);
        }
    }

    #[test]
    fn the_text_has_all_three_numbers_and_no_control_characters() {
        let space = Space {
            path: "/a\u{1b}b".into(),
            need_bytes: 7,
            have_bytes: Some(4),
        };
        assert_eq!(
            space.to_string(),
            "`/a\\u{1b}b`: need 7 bytes, have 4, short by 3"
        );
    }
}
