//! What a command that writes packages says where it is to write nothing.

use std::path::Path;

use conversion::report::Chunk;
use preflight::Space;
use serde::Serialize;

use crate::failure::{Failure, shown_path};
use crate::folder::{self, Met};
use crate::{format, output, progress};

/// A plan, with what it takes to know of it here.
pub struct Planned<'p, P> {
    pub plan: &'p P,
    pub component: &'p str,
    pub chunks: &'p [Chunk],
    pub packages_bytes: u64,
}

/// Where it was to go, and how it is said.
pub struct How<'p> {
    pub dir: Option<&'p Path>,
    pub force: bool,
    pub json: bool,
    pub quiet: bool,
}

/// What `--dry-run --json` prints.
#[derive(Serialize)]
struct Object<'p, P> {
    #[serde(flatten)]
    plan: &'p P,
    #[serde(skip_serializing_if = "Option::is_none")]
    exists: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    space: Option<SpaceReport>,
}

#[derive(Serialize)]
struct SpaceReport {
    need_bytes: u64,
    have_bytes: Option<u64>,
    short_by_bytes: u64,
    fits: bool,
}

impl From<&Space> for SpaceReport {
    fn from(space: &Space) -> SpaceReport {
        SpaceReport {
            need_bytes: space.need_bytes,
            have_bytes: space.have_bytes,
            short_by_bytes: space.short_by_bytes(),
            fits: space.fits(),
        }
    }
}

/// What the folder that was named has to do with the plan.
struct Place<'d> {
    dir: &'d Path,
    met: Met,
    space: Space,
}

/// Says what would be written, and what the folder has to do with it.
pub fn finish<P: Serialize>(
    planned: &Planned<'_, P>,
    how: &How<'_>,
    space: impl Fn(&Path) -> Result<Space, conversion::Error>,
) -> Result<(), Failure> {
    let place = |dir| {
        let space = space(dir)?;
        let met = Met::of(dir, planned.component, planned.chunks)?;
        Ok::<_, Failure>(Place { dir, met, space })
    };
    let place = how.dir.map(place).transpose()?;
    if let Some(place) = place.as_ref().filter(|_| !how.quiet) {
        for folder in folder::unsettled(place.dir) {
            progress::note_line(&format!(
                "a replacement was interrupted, or is under way, in `{}`; the next command on the folder settles it",
                shown_path(&folder)
            ));
        }
    }
    if how.json {
        return output::json_ok(&Object {
            plan: planned.plan,
            exists: place.as_ref().map(|p| matches!(p.met, Met::Set)),
            space: place.as_ref().map(|p| (&p.space).into()),
        });
    }
    if how.quiet {
        return Ok(());
    }
    output::line(&format!(
        "\n{} in all; nothing was written",
        format::bytes(planned.packages_bytes)
    ))?;
    let Some(Place { dir, met, space }) = place else {
        return Ok(());
    };
    output::line(&room(&space))?;
    output::lines(met.line(dir, how.force))
}

fn room(space: &Space) -> String {
    let have = space
        .have_bytes
        .map_or_else(|| "an unknown amount".to_owned(), format::bytes);
    let verdict = match space.short_by_bytes() {
        0 => "fits".to_owned(),
        short => format!("does not fit, short by {}", format::bytes(short)),
    };
    format!(
        "needs {} of disk, {have} is free: {verdict}",
        format::bytes(space.need_bytes)
    )
}
