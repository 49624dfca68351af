//! What a preflight found, for people.

use conversion::need::{FilesystemNeed, MemoryNeed, Need, Role, Verdict};

use super::Report;
use crate::failure::shown;
use crate::format::{self, Table, thousands};
use crate::plan_table::placed;

pub fn lines(report: &Report) -> Vec<String> {
    let need = &report.need;
    let mut lines = files(need);
    section(&mut lines, "disk", disk(need));
    section(
        &mut lines,
        "afterwards, by others; not exact",
        allowances(need),
    );
    section(&mut lines, "memory", memory(&need.memory));
    section(&mut lines, "on a Mac", running(need));
    let warnings = need
        .warnings
        .iter()
        .map(|w| format!("warning: {}", shown(w)));
    section(&mut lines, "", warnings.collect());
    section(&mut lines, "can go", candidates(report));
    section(&mut lines, "", verdict(report));
    lines
}

fn section(lines: &mut Vec<String>, title: &str, body: Vec<String>) {
    if body.is_empty() {
        return;
    }
    lines.push(String::new());
    if !title.is_empty() {
        lines.push(format!("{title}:"));
    }
    lines.extend(body);
}

fn files(need: &Need) -> Vec<String> {
    let mut table = Table::default();
    table.row(["file", "bytes"]);
    for file in &need.files {
        table.row([shown(&file.path), thousands(file.bytes)]);
    }
    table.row(["in all, exactly".to_owned(), thousands(need.packages_bytes)]);
    table.lines()
}

fn known(bytes: Option<u64>) -> String {
    bytes.map_or_else(|| "unknown".to_owned(), format::bytes)
}

fn disk(need: &Need) -> Vec<String> {
    let mut table = Table::default();
    table.row([
        "filesystem",
        "kind",
        "needs",
        "free",
        "files",
        "free",
        "for",
    ]);
    for filesystem in &need.filesystems {
        let roles: Vec<_> = filesystem.used_for.iter().map(|r| r.name()).collect();
        let count = |n: Option<u64>| n.map_or_else(|| "any".to_owned(), thousands);
        table.row([
            shown(&filesystem.path),
            shown(filesystem.kind.as_deref().unwrap_or("unknown")),
            format::bytes(filesystem.need_bytes),
            known(filesystem.free_bytes),
            thousands(filesystem.need_files),
            count(filesystem.free_files),
            roles.join(", "),
        ]);
    }
    let notes = need.filesystems.iter().flat_map(notes);
    table.lines().into_iter().chain(notes).collect()
}

fn notes(filesystem: &FilesystemNeed) -> Vec<String> {
    let path = shown(&filesystem.path);
    let is_output = filesystem.used_for.contains(&Role::Output);
    let mut notes = Vec::new();
    if let Some(bytes) = filesystem.purgeable_bytes {
        notes.push(format!(
            "`{path}`: macOS can clear {} more; not counted",
            format::bytes(bytes)
        ));
    }
    for quota in &filesystem.quotas {
        let left = quota
            .left_bytes
            .map_or_else(|| "any size".to_owned(), format::bytes);
        let files = quota
            .left_files
            .map_or_else(String::new, |n| format!(" and {} files", thousands(n)));
        notes.push(format!(
            "`{path}`: the quota of this {} leaves {left}{files}",
            quota.holder
        ));
    }
    if filesystem.network {
        notes.push(format!("`{path}`: a network filesystem"));
    }
    if let Some(bytes) = filesystem.longest_file_bytes.filter(|_| is_output) {
        notes.push(format!(
            "`{path}`: files of at most {} bytes",
            thousands(bytes)
        ));
    }
    let reserving = match filesystem.reserves {
        _ if !is_output => None,
        Some(true) => None,
        Some(false) => Some("space cannot be reserved"),
        None => Some("whether space can be reserved shows when it is done"),
    };
    notes.extend(reserving.map(|text| format!("`{path}`: {text}")));
    notes
}

fn allowances(need: &Need) -> Vec<String> {
    let mut lines = Vec::new();
    for allowance in &need.allowances {
        let purpose = match allowance.purpose {
            "compiled" => "compiled models",
            "core_ml_cache" => "Core ML's compiler and cache, on a Mac",
            _ => "an app's copy of compiled models",
        };
        let counted = if allowance.counted { ", counted" } else { "" };
        lines.push(format!(
            "{purpose}: {}{counted}",
            format::bytes(allowance.bytes)
        ));
        lines.push(format!("  {}", allowance.source));
    }
    lines
}

fn memory(memory: &MemoryNeed) -> Vec<String> {
    let workers = match memory.workers {
        1 => "1 worker".to_owned(),
        n => format!("{n} workers"),
    };
    let limit = memory.limit_bytes.map_or_else(String::new, |n| {
        format!("; --memory-limit is {}", format::bytes(n))
    });
    let mut lines = vec![
        format!(
            "the job holds at most {}: the plan with {}, {workers} with {} each{limit}",
            known(memory.most_bytes),
            known(memory.plan_bytes),
            format::bytes(memory.worker_bytes),
        ),
        format!(
            "the machine has {}, {} available; swap {}, {} free",
            known(memory.total_bytes),
            known(memory.available_bytes),
            known(memory.swap_bytes),
            known(memory.free_swap_bytes),
        ),
    ];
    for limit in &memory.limits {
        let path = limit
            .path
            .as_ref()
            .map_or_else(String::new, |path| format!(" at `{}`", shown(path)));
        lines.push(format!(
            "{}{path} allows {}, {} used",
            limit.by,
            format::bytes(limit.limit_bytes),
            known(limit.used_bytes)
        ));
    }
    lines
}

fn running(need: &Need) -> Vec<String> {
    let running = &need.running;
    let mut table = Table::default();
    let profiles = running.chunks.first().into_iter().flat_map(|c| &c.profiles);
    let heads = profiles.map(|p| format!("{} ({})", p.profile, format::bytes(p.bytes)));
    table.row(
        ["package".to_owned(), "weight.bin".to_owned()]
            .into_iter()
            .chain(heads),
    );
    for chunk in &running.chunks {
        let fits = chunk
            .profiles
            .iter()
            .map(|p| if p.fits { "fits" } else { "too large" });
        let name = placed(shown(&chunk.path), chunk.stage);
        let cells = [name, format::bytes(chunk.weight_bytes)];
        table.row(cells.into_iter().chain(fits.map(str::to_owned)));
    }
    let mut lines = table.lines();
    for window in &running.windows {
        lines.push(format!(
            "all loaded: {}; {} keeps {} at once: {}",
            format::bytes(running.resident_bytes),
            window.machine,
            format::bytes(window.bytes),
            if window.fits { "fits" } else { "does not fit" },
        ));
        lines.push(format!("  {}", window.source));
    }
    lines
}

fn candidates(report: &Report) -> Vec<String> {
    let line = |c: &super::CandidateReport| {
        format!(
            "  {}  {}  {} ({}): {}",
            format::bytes(c.frees_bytes),
            c.path,
            c.class,
            c.sureness,
            c.why
        )
    };
    report.candidates.iter().map(line).collect()
}

fn verdict(report: &Report) -> Vec<String> {
    let obstacles = report.need.obstacles.iter();
    let mut lines: Vec<_> = obstacles
        .map(|o| format!("in the way: {}", shown(&o.message)))
        .collect();
    let to_free = format::bytes(report.to_free_bytes.unwrap_or(0));
    lines.push(match report.verdict {
        Verdict::Fits => "fits".to_owned(),
        Verdict::FitsAfterFreeing => format!(
            "fits after freeing {to_free}; what can go frees {}",
            format::bytes(report.candidates_bytes)
        ),
        Verdict::DoesNotFit if report.to_free_bytes.is_some() => {
            format!("does not fit; short by {to_free}")
        }
        Verdict::DoesNotFit => "does not fit".to_owned(),
    });
    lines
}
