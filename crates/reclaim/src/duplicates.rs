//! From what was seen to candidates: contents are compared, one copy of each is chosen to stay, and leftovers are checked
//! for what is nowhere else.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use rayon::prelude::*;

use crate::candidate::{Content, HeldProof, Keeper, Proof};
use crate::content::{self, Digest, Tensors};
use crate::disk::{Folder, Node};
use crate::extents::Extents;
use crate::keeper::{self, Claim, Merit};
use crate::seen::{EntryId, Lead, Seen, Shape, UnitId};
use crate::{
    Candidate, Class, Error, Found, Kept, LeftAlone, Options, Sureness, Watcher, shown, tree,
};

struct Finder<'a> {
    seen: Seen,
    options: &'a Options,
    watcher: &'a dyn Watcher,
    found: Found,
    /// Whole files with the same content, those in leftovers among them.
    equal: BTreeMap<Digest, Vec<EntryId>>,
    /// The digests of those.
    digests: BTreeMap<EntryId, Digest>,
    /// Units that may go: nothing in them is kept for anything else.
    going: BTreeSet<UnitId>,
    /// Files that stay so that others may go.
    keepers: BTreeSet<EntryId>,
    /// Files that may go.
    duplicates: BTreeSet<EntryId>,
}

/// Finds the candidates among what was seen.
pub(crate) fn find(seen: Seen, options: &Options, watcher: &dyn Watcher) -> Result<Found, Error> {
    let mut finder = Finder {
        seen,
        options,
        watcher,
        found: Found::default(),
        equal: BTreeMap::new(),
        digests: BTreeMap::new(),
        going: BTreeSet::new(),
        keepers: BTreeSet::new(),
        duplicates: BTreeSet::new(),
    };
    if options.duplicates {
        finder.compare();
        finder.check()?;
        finder.units();
        finder.check()?;
    }
    finder.leads();
    finder.files();
    if options.tensors {
        finder.tensors();
    }
    finder.check()?;
    let mut found = finder.found;
    found.left_alone.append(&mut finder.seen.left_alone);
    found.unreadable = finder.seen.unreadable;
    found.num_unreadable = finder.seen.num_unreadable;
    Ok(found)
}

impl Finder<'_> {
    fn check(&self) -> Result<(), Error> {
        if self.watcher.is_cancelled() {
            Err(Error::Cancelled)
        } else {
            Ok(())
        }
    }

    fn min_bytes(&self) -> u64 {
        self.options.min_bytes.max(1)
    }

    /// Compares files of the same length by their ends, and those that agree by all of their bytes.
    fn compare(&mut self) {
        let mut by_len: BTreeMap<u64, Vec<EntryId>> = BTreeMap::new();
        for (id, entry) in self.seen.entries.iter().enumerate() {
            by_len
                .entry(entry.facts.identity.len_bytes)
                .or_default()
                .push(id);
        }
        let groups = by_len
            .into_values()
            .filter(|ids| self.is_worth_reading(ids));
        let ids: Vec<EntryId> = groups.flatten().collect();
        let ends = self.digest(&ids, |seen, id| {
            let len = seen.entries[id].facts.identity.len_bytes;
            content::ends(&seen.open(id)?, len)
        });
        let mut by_ends: BTreeMap<(u64, Digest), Vec<EntryId>> = BTreeMap::new();
        for (id, digest) in ends {
            let len = self.seen.entries[id].facts.identity.len_bytes;
            by_ends.entry((len, digest)).or_default().push(id);
        }
        let groups = by_ends
            .into_values()
            .filter(|ids| self.is_worth_reading(ids));
        let ids: Vec<EntryId> = groups.flatten().collect();
        let len = |&id: &EntryId| self.seen.entries[id].facts.identity.len_bytes;
        self.watcher
            .on_reading(ids.iter().map(len).fold(0, u64::saturating_add));
        let watcher = self.watcher;
        let whole = self.digest(&ids, |seen, id| {
            content::whole(&seen.open(id)?, &seen.entries[id].facts.identity, watcher)
        });
        for (id, digest) in whole {
            self.equal.entry(digest).or_default().push(id);
            self.digests.insert(id, digest);
        }
    }

    /// Whether files of one length can make anything a candidate.
    fn is_worth_reading(&self, ids: &[EntryId]) -> bool {
        let entries = || ids.iter().map(|&id| &self.seen.entries[id]);
        let counts =
            |min: u64| entries().any(|e| e.lead.is_some() || e.facts.allocated_bytes >= min);
        let nodes: BTreeSet<Node> = entries().map(|e| e.facts.node()).collect();
        nodes.len() > 1 && entries().any(|e| e.lead.is_none()) && counts(self.min_bytes())
    }

    /// Digests of files, computed in parallel, in their order. What cannot be read is written down and left out.
    fn digest(
        &mut self,
        ids: &[EntryId],
        of: impl Fn(&Seen, EntryId) -> std::io::Result<Digest> + Sync,
    ) -> Vec<(EntryId, Digest)> {
        let seen = &self.seen;
        let all: Vec<_> = ids.par_iter().map(|&id| (id, of(seen, id))).collect();
        let mut digests = Vec::with_capacity(all.len());
        for (id, digest) in all {
            match digest {
                Ok(digest) => digests.push((id, digest)),
                Err(error) => self.seen.unreadable(self.seen.path(id), error.to_string()),
            }
        }
        digests
    }

    /// Finds models and packages that are copies as a whole.
    fn units(&mut self) {
        let mut by_shape: BTreeMap<_, Vec<UnitId>> = BTreeMap::new();
        for (id, unit) in self.seen.units.iter().enumerate() {
            if unit.measured.obstacle.is_none() && unit.measured.files > 0 {
                by_shape.entry(unit.measured.shape).or_default().push(id);
            }
        }
        let is_large = |id: &UnitId| self.seen.units[*id].measured.frees_bytes >= self.min_bytes();
        let ids: Vec<UnitId> = by_shape
            .into_values()
            .filter(|ids| ids.len() > 1 && ids.iter().any(is_large))
            .flatten()
            .collect();
        let (seen, watcher) = (&self.seen, self.watcher);
        let total = ids.iter().map(|&id| seen.units[id].measured.len_bytes);
        watcher.on_reading(total.fold(0, u64::saturating_add));
        let contents = |&id: &UnitId| {
            let path = &seen.units[id].path;
            let contents = Folder::open(path).and_then(|f| tree::contents(&f, watcher));
            contents.ok().map(|digest| (digest, id))
        };
        let mut equal: BTreeMap<Digest, Vec<UnitId>> = BTreeMap::new();
        for (digest, id) in ids.par_iter().filter_map(contents).collect::<Vec<_>>() {
            equal.entry(digest).or_default().push(id);
        }
        for (digest, mut ids) in equal {
            ids.sort_by_cached_key(|&id| self.unit_merit(id));
            if let [keeper, others @ ..] = ids.as_slice() {
                others
                    .iter()
                    .for_each(|&other| self.unit(*keeper, other, digest));
            }
        }
    }

    fn unit_merit(&self, id: UnitId) -> Merit {
        let unit = &self.seen.units[id];
        let name = unit.path.file_name();
        let source = self
            .seen
            .sources
            .iter()
            .find(|s| name == Some(s.name.as_ref()));
        let claim = if let Some(source) = source {
            Claim::Source(source.record.clone())
        } else if let Some(link) = self.seen.link_into(&unit.path) {
            Claim::Linked(link.to_owned())
        } else if let Some(holder) = &unit.soft {
            Claim::Used(holder.words())
        } else {
            Claim::Plain
        };
        let is_stray = keeper::is_stray(&unit.path, &self.options.temporary);
        let newest = (unit.measured.newest, 0);
        Merit::new(claim, is_stray, 1, newest, unit.path.clone())
    }

    fn unit(&mut self, keeper: UnitId, other: UnitId, digest: Digest) {
        let because = keeper::because(&self.unit_merit(keeper), &self.unit_merit(other));
        let (kept, unit) = (&self.seen.units[keeper], &self.seen.units[other]);
        let measured = &unit.measured;
        if measured.frees_bytes < self.min_bytes() || kept.node == unit.node {
            return;
        }
        let soft = unit.soft.as_ref();
        let sureness = sureness(true, kept.node, unit.node);
        let link = self.seen.link_into(&unit.path);
        let is_apart = kept.path.parent() != unit.path.parent();
        let stays = link
            .map(|link| format!("the symbolic link `{}` leads to it", shown::path(link)))
            .or_else(|| Some(format!("part of {}", soft.filter(|_| is_apart)?.words())));
        self.found.candidates.push(Candidate {
            class: Class::Duplicates,
            sureness,
            path: unit.path.clone(),
            other_names: Vec::new(),
            is_folder: true,
            files: measured.files,
            len_bytes: measured.len_bytes,
            frees_bytes: measured.frees_bytes,
            why: "file for file the same bytes as the one that stays".to_owned(),
            kept: Some(Kept {
                path: kept.path.clone(),
                because,
            }),
            stays,
            is_linkable: kept.node.device == unit.node.device,
            proof: Proof::Tree {
                node: unit.node,
                fingerprint: measured.fingerprint,
                held: Vec::new(),
                copy_of: Some((kept.path.clone(), digest)),
            },
        });
        self.going.insert(other);
    }

    /// Whether a file may stay for the sake of another that goes.
    fn may_keep(&self, id: EntryId) -> bool {
        let entry = &self.seen.entries[id];
        entry.lead.is_none() && entry.unit.is_none_or(|unit| !self.going.contains(&unit))
    }

    /// Leftovers become candidates if all weights in them are kept elsewhere.
    fn leads(&mut self) {
        for lead in std::mem::take(&mut self.seen.leads) {
            let mut held = Vec::new();
            let mut missing = None;
            for &id in &lead.holds {
                match self.held(id, lead.kept_in.as_deref()) {
                    Some(proof) => held.push(proof),
                    None => missing = missing.or(Some(id)),
                }
            }
            match missing {
                None => self.lead(lead, held),
                Some(id) => self.lead_alone(&lead, id),
            }
        }
    }

    /// The copy of a file in a leftover that stays.
    fn held(&mut self, id: EntryId, kept_in: Option<&Path>) -> Option<HeldProof> {
        let digest = *self.digests.get(&id)?;
        let entry = &self.seen.entries[id];
        entry.lead?;
        let node = entry.facts.node();
        let stays = |&other: &EntryId| {
            let is_other = self.seen.entries[other].facts.node() != node;
            let is_there =
                || kept_in.is_none_or(|folder| self.seen.path(other).starts_with(folder));
            is_other && self.may_keep(other) && is_there()
        };
        let others = self.equal.get(&digest)?.iter().copied().filter(stays);
        let keeper = others.min_by_key(|&other| self.merit(other, false))?;
        self.keepers.insert(keeper);
        Some(HeldProof {
            path: self.seen.path(id),
            identity: self.seen.entries[id].facts.identity,
            digest,
            keeper: self.keeper(keeper),
        })
    }

    fn keeper(&self, id: EntryId) -> Keeper {
        Keeper {
            path: self.seen.path(id),
            identity: self.seen.entries[id].facts.identity,
        }
    }

    fn lead(&mut self, lead: Lead, held: Vec<HeldProof>) {
        let because = |_: &HeldProof| "it holds the same weights".to_owned();
        let kept = held.first().map(|first| Kept {
            path: lead.kept_in.clone().unwrap_or(first.keeper.path.clone()),
            because: because(first),
        });
        let (is_folder, files, len_bytes, frees_bytes) = match &lead.shape {
            Shape::File(facts) => {
                let frees = if facts.links > 1 {
                    0
                } else {
                    facts.allocated_bytes
                };
                (false, 1, facts.identity.len_bytes, frees)
            }
            Shape::Tree { measured: m, .. } | Shape::Working { measured: m, .. } => {
                (true, m.files, m.len_bytes, m.frees_bytes)
            }
        };
        let stays = self.seen.link_into(&lead.path).filter(|_| is_folder);
        let stays =
            stays.map(|link| format!("the symbolic link `{}` leads to it", shown::path(link)));
        let proof = match lead.shape {
            Shape::File(facts) => Proof::File {
                identity: facts.identity,
                links: facts.links,
                held: held.into_iter().next().map(|h| (h.digest, h.keeper)),
            },
            Shape::Tree { node, measured } => Proof::Tree {
                node,
                fingerprint: measured.fingerprint,
                held,
                copy_of: None,
            },
            Shape::Working { node, .. } => Proof::Working { node },
        };
        self.found.candidates.push(Candidate {
            class: lead.class,
            sureness: lead.sureness,
            path: lead.path,
            other_names: Vec::new(),
            is_folder,
            files,
            len_bytes,
            frees_bytes,
            why: lead.why,
            kept,
            stays,
            is_linkable: false,
            proof,
        });
    }

    fn lead_alone(&mut self, lead: &Lead, held: EntryId) {
        let path = shown::path(&self.seen.path(held));
        let nowhere = match &lead.kept_in {
            Some(compiled) => format!("`{}` does not hold the same bytes", shown::path(compiled)),
            None => "the same bytes were found nowhere else".to_owned(),
        };
        let bytes = match &lead.shape {
            Shape::File(facts) => facts.allocated_bytes,
            Shape::Tree { measured, .. } | Shape::Working { measured, .. } => measured.frees_bytes,
        };
        self.found.left_alone.push(LeftAlone {
            path: lead.path.clone(),
            bytes,
            why: format!("{}, but `{path}` holds weights, and {nowhere}", lead.class),
        });
    }

    /// Chooses what stays of each content; the rest may go.
    fn files(&mut self) {
        for (digest, ids) in std::mem::take(&mut self.equal) {
            let mut nodes = BTreeSet::new();
            let mut ids = ids;
            ids.retain(|&id| self.may_keep(id) && nodes.insert(self.seen.entries[id].facts.node()));
            if ids.len() < 2 {
                continue;
            }
            let merits = self.sorted(ids);
            let [(keeper, best), others @ ..] = merits.as_slice() else {
                continue;
            };
            for (other, merit) in others {
                // What stays because of a leftover stays.
                if !self.keepers.contains(other) {
                    let kept = (*keeper, best);
                    self.file(kept, *other, merit, Content::Bytes(digest));
                }
            }
        }
    }

    fn merit(&self, id: EntryId, is_kept_for_others: bool) -> Merit {
        keeper::merit(&self.seen, id, is_kept_for_others, &self.options.temporary)
    }

    fn sorted(&self, ids: Vec<EntryId>) -> Vec<(EntryId, Merit)> {
        let merit = |id| (id, self.merit(id, self.keepers.contains(&id)));
        let mut merits: Vec<_> = ids.into_iter().map(merit).collect();
        merits.sort_by(|a, b| a.1.cmp(&b.1));
        merits
    }

    fn file(&mut self, keeper: (EntryId, &Merit), other: EntryId, merit: &Merit, content: Content) {
        let (keeper, best) = keeper;
        let facts = self.seen.entries[other].facts;
        if facts.allocated_bytes < self.min_bytes() {
            return;
        }
        let extents = |id| self.seen.open(id).ok().and_then(|file| Extents::of(&file));
        let (own, keepers) = (extents(other), extents(keeper));
        if let (Some(own), Some(keepers)) = (&own, &keepers)
            && own.are_those_of(keepers)
        {
            return;
        }
        let names = 1 + self.seen.other_names(other).len() as u64;
        let shared = own.map_or(0, |own| own.shared_bytes);
        let frees_bytes = match names < facts.links {
            true => 0,
            false => facts.allocated_bytes.saturating_sub(shared),
        };
        let kept = &self.seen.entries[keeper].facts;
        let is_bytes = matches!(content, Content::Bytes(_));
        let stays = self.stays(keeper, other, names);
        let mut why = match content {
            Content::Bytes(_) => "the same bytes as the one that stays".to_owned(),
            Content::Tensors(_) => {
                "the same tensors as the one that stays, in another order or with other metadata"
                    .to_owned()
            }
        };
        if shared > 0 {
            why.push_str("; other files share blocks with it, which stay");
        }
        self.keepers.insert(keeper);
        self.duplicates.insert(other);
        self.found.candidates.push(Candidate {
            class: Class::Duplicates,
            sureness: sureness(is_bytes, kept.node(), facts.node()),
            path: self.seen.path(other),
            other_names: self.seen.other_names(other).to_vec(),
            is_folder: false,
            files: 1,
            len_bytes: facts.identity.len_bytes,
            frees_bytes,
            why,
            kept: Some(Kept {
                path: self.seen.path(keeper),
                because: keeper::because(best, merit),
            }),
            stays,
            is_linkable: is_bytes
                && kept.node().device == facts.node().device
                && names == facts.links,
            proof: Proof::Copy {
                identity: facts.identity,
                content,
                keeper: self.keeper(keeper),
            },
        });
    }

    /// Why a copy must keep its name.
    fn stays(&self, keeper: EntryId, other: EntryId, names: u64) -> Option<String> {
        let seen = &self.seen;
        let (entry, path) = (&seen.entries[other], seen.path(other));
        let elsewhere = entry.facts.links.saturating_sub(names);
        if let Some(holder) = seen.holder_of(other).filter(|h| h.kind.is_strict()) {
            return Some(format!("part of {}", holder.words()));
        }
        if let Some(link) = seen.link_to(entry.facts.node(), &path) {
            return Some(format!(
                "the symbolic link `{}` leads to it",
                shown::path(link)
            ));
        }
        if entry.is_torn {
            return Some("it has names at places of different kinds".to_owned());
        }
        if elsewhere > 0 {
            return Some(format!(
                "it has {elsewhere} other name(s) elsewhere, so that deleting it frees nothing"
            ));
        }
        let soft = seen.holder_of(other)?;
        let is_apart = seen.folder(keeper) != seen.folder(other);
        is_apart.then(|| format!("part of {}", soft.words()))
    }

    /// Finds checkpoints that are equal in tensors though not in bytes.
    fn tensors(&mut self) {
        let ids: Vec<EntryId> = (0..self.seen.entries.len())
            .filter(|&id| self.may_keep(id) && !self.duplicates.contains(&id))
            .collect();
        let seen = &self.seen;
        let table = |&id: &EntryId| {
            let tensors = Tensors::open(&seen.path(id), &seen.entries[id].facts.identity)?;
            Some((tensors.table(), id))
        };
        let mut by_table: BTreeMap<Digest, Vec<EntryId>> = BTreeMap::new();
        for (table, id) in ids.par_iter().filter_map(table).collect::<Vec<_>>() {
            by_table.entry(table).or_default().push(id);
        }
        let groups = by_table
            .into_values()
            .filter(|ids| self.is_worth_reading(ids));
        let ids: Vec<EntryId> = groups.flatten().collect();
        let len = |&id: &EntryId| self.seen.entries[id].facts.identity.len_bytes;
        self.watcher
            .on_reading(ids.iter().map(len).fold(0, u64::saturating_add));
        let watcher = self.watcher;
        let digests = self.digest(&ids, |seen, id| {
            let identity = &seen.entries[id].facts.identity;
            let tensors = Tensors::open(&seen.path(id), identity);
            let tensors = tensors.ok_or_else(|| std::io::Error::other("it changed meanwhile"))?;
            tensors.digest(identity, watcher)
        });
        let mut equal: BTreeMap<Digest, Vec<EntryId>> = BTreeMap::new();
        for (id, digest) in digests {
            equal.entry(digest).or_default().push(id);
        }
        for (digest, ids) in equal {
            let merits = self.sorted(ids);
            let [(keeper, best), others @ ..] = merits.as_slice() else {
                continue;
            };
            for (other, merit) in others {
                // Bytes that others go for stay, and a source stays in its own bytes.
                let stays = self.keepers.contains(other) || matches!(merit.claim, Claim::Source(_));
                if !stays {
                    self.file((*keeper, best), *other, merit, Content::Tensors(digest));
                }
            }
        }
    }
}

/// How sure one can be of a copy: a disk that holds the one that stays may be taken away.
fn sureness(is_exact: bool, kept: Node, copy: Node) -> Sureness {
    if is_exact && kept.device == copy.device {
        Sureness::Sure
    } else {
        Sureness::Likely
    }
}
