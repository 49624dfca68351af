//! The page.

use askama::Template;

use crate::commands::{self, Command};
use crate::number;
use crate::record::{Component, Record, Text};
use crate::sections::chunks::Chunks;
use crate::sections::cuts::Cuts;
use crate::sections::disk::Disk;
use crate::sections::facts::Facts;
use crate::sections::proof::Proof;
use crate::sections::run::Run;
use crate::sections::weights::Weights;
use crate::sections::{UNKNOWN, given};

/// Every page has this within its first [`HEAD_LEN_BYTES`].
const MARK: &[u8] = br#"<meta name="generator" content="chunk-unet report">"#;
/// How a page begins.
const START: &[u8] = b"<!doctype html>";
/// So much of a file tells whether it is a page of ours.
pub const HEAD_LEN_BYTES: u64 = 512;

#[derive(Template)]
#[template(path = "page.html")]
struct Page {
    title: String,
    sets: Vec<Set>,
    commands: Vec<Command>,
    folder: String,
    version: &'static str,
}

/// One set of packages.
struct Set {
    component: String,
    facts: Facts,
    chunks: Chunks,
    weights: Weights,
    cuts: Cuts,
    run: Run,
    proof: Proof,
    disk: Option<Disk>,
    files: Vec<File>,
}

/// A file that was written.
struct File {
    path: String,
    size: String,
    blake3: String,
}

impl Set {
    fn of(name: &Text, component: &Component) -> Set {
        Set {
            component: name.to_string(),
            facts: Facts::of(name, component),
            chunks: Chunks::of(component),
            weights: Weights::of(component),
            cuts: Cuts::of(component),
            run: Run::of(component),
            proof: Proof::of(component),
            disk: Disk::of(component),
            files: files(component),
        }
    }
}

fn files(component: &Component) -> Vec<File> {
    let or_unknown = |text: Option<String>| text.unwrap_or_else(|| UNKNOWN.to_owned());
    let file = |f: &crate::record::File| File {
        path: or_unknown(given(f.path.as_ref())),
        size: or_unknown(f.bytes.map(number::bytes)),
        blake3: or_unknown(given(f.blake3.as_ref())),
    };
    component.files.iter().flatten().map(file).collect()
}

/// The page of a record; `folder` is where the packages lie, as the commands on the page are to name it. The same record and
/// folder give the same page.
pub fn html(record: &Record, folder: &str) -> String {
    let sets = record.components.iter();
    let sets: Vec<_> = sets.map(|(name, c)| Set::of(name, c)).collect();
    let folder = Text::new(folder);
    let page = Page {
        title: match &sets[..] {
            [set] => set.facts.title.clone(),
            _ => folder.to_string(),
        },
        sets,
        commands: commands::commands(record, folder.whole()),
        folder: folder.to_string(),
        version: env!("CARGO_PKG_VERSION"),
    };
    page.render().expect("nothing in the templates fails")
}

/// Whether a file that begins so is a page that was made here.
pub fn is_page(head: &[u8]) -> bool {
    head.starts_with(START) && head.windows(MARK.len()).any(|part| part == MARK)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(components: &str) -> String {
        let text = format!(r#"{{"schema_version": 1, "components": {{{components}}}}}"#);
        html(&Record::parse(text.as_bytes()).unwrap(), "out")
    }

    #[test]
    fn a_page_is_known_by_its_head() {
        let text = page("");
        let head = &text.as_bytes()[..HEAD_LEN_BYTES as usize];
        assert!(is_page(head));
        assert!(!is_page(b""));
        assert!(!is_page(b"<!doctype html><title>mine</title>"));
        assert!(!is_page(MARK));
    }

    #[test]
    fn markup_in_a_record_stays_text() {
        const EVIL: &str = r#"<script>alert('1')</script>\"&\u001b\u202e"#;
        let name = |field: &str| format!(r#""{field}": "{EVIL}""#);
        let feature = format!(r#"{{{}, {}}}"#, name("name"), name("dtype"));
        let chunk = format!(
            r#"{{{}, {}, "inputs": [{feature}], "outputs": [{feature}], "blocks": [{{{}, "bytes": 1}}]}}"#,
            name("path"),
            name("cut_after"),
            name("name")
        );
        let text = page(&format!(
            r#""{EVIL}": {{{family}, "tool": {{{tool}, {version}}}, "source": {{{tool}, {layout}, "files": ["{EVIL}"], "dtypes": ["{EVIL}"]}},
                "options": {{{attention}, {author}}}, "limit": {{{profile}}}, "chunks": [{chunk}, {chunk}], "packages": ["{EVIL}"],
                "clamped": [{{{tensor}}}], "narrowed": ["{EVIL}"], "files": [{{{path}, {blake3}}}], "memory": [{{{at}}}],
                "disk": {{{filesystem}, {mount}, "free_before_bytes": 1, "free_after_bytes": 1}},
                "verification": {{{against}, "numeric": {{{ran}, {rounding}, {inputs}, "outputs": [{{{tool}}}], "worst": {{{tool}}}}}}}}}"#,
            family = name("family"),
            tool = name("name"),
            version = name("version"),
            layout = name("layout"),
            attention = name("attention"),
            author = name("author"),
            profile = name("profile"),
            tensor = name("tensor"),
            path = name("path"),
            blake3 = name("blake3"),
            at = name("at"),
            filesystem = name("filesystem"),
            mount = name("mount"),
            against = name("against"),
            ran = name("ran"),
            rounding = name("rounding"),
            inputs = name("inputs"),
        ));
        assert!(!text.contains("<script") && !text.contains("alert('1')"));
        assert!(!text.contains('\u{1b}') && !text.contains('\u{202e}'));
        // Every field above is on the page, some more than once.
        let shown = text.matches(r"\u{202e}").count();
        assert!(shown > 25, "{shown}");
    }

    #[test]
    fn every_drawing_is_within_its_box() {
        let chunks: Vec<_> = (0..22)
            .map(|n| {
                format!(
                    r#"{{"path": "C{n}", "weight_bytes": {}, "crossing_bytes": {n}, "blocks": [{{"name": "b{n}", "bytes": {n}}}]}}"#,
                    n * 1000
                )
            })
            .collect();
        let text = page(&format!(
            r#""unet": {{"limit": {{"bytes": 9000}}, "chunks": [{}]}}"#,
            chunks.join(",")
        ));
        assert!(!text.contains("NaN") && !text.contains("inf\""));
        for part in text.split(" width=\"").skip(1) {
            let number: f64 = part.split('"').next().unwrap().parse().unwrap();
            assert!((0.0..=100.0).contains(&number), "{number}");
        }
    }

    #[test]
    fn a_page_fetches_nothing_and_runs_nothing() {
        let text = page(r#""unet": {"chunks": [{}, {}]}, "unet_refiner": {}"#);
        for part in [
            "<script", "http:", "https:", "url(", "@import", " src=", "onload",
        ] {
            let allowed = text.matches(r#"xmlns="http:"#).count();
            assert_eq!(
                text.matches(part).count(),
                if part == "http:" { allowed } else { 0 },
                "{part}"
            );
        }
        assert!(text.contains("default-src 'none'"));
        assert!(text.contains(r##"href="#set-2""##));
    }
}
