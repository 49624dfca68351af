//! What was converted from what, and how: the head of a set.

use super::{Badge, Fact, UNKNOWN, chunks, cuts, given, num_stages, packages, proof, run};
use crate::number;
use crate::record::{Component, Options, Source, Text};

/// Pixels of an image for each position of a latent, each way.
const PIXELS: u64 = 8;
/// The first systems that read a specification version: Model.proto and coremltools' targets.
const SYSTEMS: &[(u64, &str)] = &[
    (6, "macOS 12, iOS 15 and later"),
    (7, "macOS 13, iOS 16 and later"),
    (8, "macOS 14, iOS 17 and later"),
    (9, "macOS 15, iOS 18 and later"),
    (10, "macOS 26, iOS 26 and later"),
];

/// The head of a set.
pub struct Facts {
    pub title: String,
    pub lead: String,
    pub badges: Vec<Badge>,
    pub tiles: Vec<Tile>,
    pub source: Vec<Fact>,
    pub options: Vec<Fact>,
    pub losses: Vec<Loss>,
}

/// A number with what it is.
pub struct Tile {
    pub value: String,
    pub label: &'static str,
    pub note: String,
}

/// What was lost on the way.
pub struct Loss {
    pub what: &'static str,
    pub names: Vec<String>,
}

impl Facts {
    pub fn of(name: &Text, component: &Component) -> Facts {
        Facts {
            title: title(name, component),
            lead: lead(component),
            badges: vec![chunks::badge(component), proof::badge(component)],
            tiles: tiles(component),
            source: source(component),
            options: options(component),
            losses: losses(component),
        }
    }
}

/// A set is called as what it was made from.
fn title(name: &Text, component: &Component) -> String {
    let source = component.source.as_ref().and_then(|s| s.name.as_ref());
    given(source).unwrap_or_else(|| name.to_string())
}

/// Whether the set was cut from a package, and not converted from a checkpoint.
pub fn is_split(component: &Component) -> bool {
    let source = component.source.as_ref();
    source.is_some_and(|s| s.model_blake3.is_some())
}

fn lead(component: &Component) -> String {
    let family = given(component.family.as_ref()).map(|f| format!("{f}, "));
    let what = if is_split(component) {
        "a package, split into"
    } else {
        "converted into"
    };
    let stages =
        num_stages(component).map(|n| format!(", a pipeline of {}", number::count(n, "stage")));
    let packages = match num_packages(component) {
        Some(n) => format!(
            "{}{}",
            number::count(n, "package"),
            stages.unwrap_or_default()
        ),
        None => "packages that are not recorded".to_owned(),
    };
    let tool = component.tool.as_ref();
    let tool = tool.and_then(|t| Some(format!("{} {}", t.name.as_ref()?, t.version.as_ref()?)));
    let by = tool.map_or_else(String::new, |tool| format!(" by {tool}"));
    let mut text = format!("{}{what} {packages}{by}.", family.unwrap_or_default());
    if let Some(first) = text.get(..1).map(str::to_ascii_uppercase) {
        text.replace_range(..1, &first);
    }
    text
}

/// A pipeline is one package, whatever its stages.
fn num_packages(component: &Component) -> Option<usize> {
    let listed = component.packages.as_ref().map(Vec::len);
    let chunks = component.chunks.as_ref().map(Vec::len);
    match num_stages(component) {
        Some(_) => listed.or(Some(1)),
        None => chunks.or(listed),
    }
}

fn tiles(component: &Component) -> Vec<Tile> {
    let list = packages(component);
    let or_unknown = |text: Option<String>| text.unwrap_or_else(|| UNKNOWN.to_owned());
    let longest = chunks::longest_bytes(component);
    let limit = chunks::limit_bytes(component);
    let share = longest
        .zip(limit)
        .map(|(n, limit)| format!("{} of the limit", number::share(n, limit)));
    let crossing = cuts::total_bytes(component);
    let seconds = run::total_seconds(component);
    let peak = run::peak_bytes(component);
    vec![
        size_tile(component),
        Tile {
            label: "packages",
            value: or_unknown(num_packages(component).map(|n| n.to_string())),
            note: component
                .packages_bytes
                .map_or_else(String::new, |n| format!("{} together", number::bytes(n))),
        },
        Tile {
            label: "largest weight file",
            value: or_unknown(longest.map(number::bytes)),
            note: match (share, &component.limit) {
                (Some(share), _) => share,
                (None, Some(_)) if limit.is_none() => "no limit".to_owned(),
                (None, _) => String::new(),
            },
        },
        Tile {
            label: "crosses each step",
            value: or_unknown(crossing.map(number::bytes)),
            note: match list.len() {
                0 => String::new(),
                n => number::count(n - 1, "cut"),
            },
        },
        Tile {
            label: "time",
            value: or_unknown(seconds.map(number::seconds)),
            note: String::new(),
        },
        Tile {
            label: "peak memory",
            value: or_unknown(peak.map(number::bytes)),
            note: String::new(),
        },
    ]
}

fn size_tile(component: &Component) -> Tile {
    let source = component.source.as_ref();
    let parameters = source.and_then(|s| s.parameters);
    let operations = source
        .and_then(|s| s.operations)
        .filter(|_| is_split(component));
    let counted = |n: Option<u64>, what| {
        n.map_or_else(String::new, |n| format!("{} {what}", number::thousands(n)))
    };
    match operations {
        Some(operations) => Tile {
            label: "operations",
            value: number::thousands(operations),
            note: counted(source.and_then(|s| s.weights), "weights"),
        },
        None => Tile {
            label: "parameters",
            value: parameters.map_or_else(|| UNKNOWN.to_owned(), number::words),
            note: counted(source.and_then(|s| s.tensors), "tensors"),
        },
    }
}

fn source(component: &Component) -> Vec<Fact> {
    let Some(source) = &component.source else {
        return vec![Fact::new("Source", UNKNOWN)];
    };
    let mut facts = Vec::new();
    let mut add = |label, value: Option<String>| facts.extend(value.map(|v| Fact::new(label, v)));
    add("Name", given(source.name.as_ref()));
    add("Files", files(source));
    add("Size", source.bytes.map(number::bytes));
    add("Weights", source.weight_bytes.map(number::bytes));
    add("Element types", source.dtypes.as_deref().map(joined));
    add(
        "Names",
        given(source.layout.as_ref()).map(|l| format!("{l} layout")),
    );
    add(
        "Structure",
        match source.config.as_ref().map(|c| c.whole()) {
            Some("file") => Some("read from a config.json".to_owned()),
            Some("tensors") => Some("told by the tensors".to_owned()),
            _ => given(source.config.as_ref()),
        },
    );
    add("Operation set", given(source.opset.as_ref()));
    add(
        "BLAKE3 of the headers",
        given(source.header_blake3.as_ref()),
    );
    add("BLAKE3 of the model", given(source.model_blake3.as_ref()));
    facts
}

/// The files, where they are not what the source itself is called.
fn files(source: &Source) -> Option<String> {
    let files = source.files.as_deref().filter(|files| !files.is_empty())?;
    if files.len() == 1 && files.first() == source.name.as_ref() {
        return None;
    }
    Some(joined(files))
}

fn joined(texts: &[Text]) -> String {
    let texts: Vec<_> = texts.iter().map(ToString::to_string).collect();
    texts.join(", ")
}

fn options(component: &Component) -> Vec<Fact> {
    let Some(o) = &component.options else {
        return vec![Fact::new("Options", UNKNOWN)];
    };
    let mut facts = Vec::new();
    let mut add = |label, value: Option<String>| facts.extend(value.map(|v| Fact::new(label, v)));
    add("For", target(o));
    add("Attention", given(o.attention.as_ref()));
    add(
        "Latent",
        o.latent_width.zip(o.latent_height).map(|(width, height)| {
            let [wide, high] = [width, height].map(|side| side.saturating_mul(PIXELS));
            format!("{width} × {height}, images of {wide} × {high} pixels")
        }),
    );
    add("Rows of every input", o.batch.map(|n| n.to_string()));
    add("Tokens of the text", o.tokens.map(|n| n.to_string()));
    add("Values cross as", given(o.boundary.as_ref()));
    add("Chunks asked for", given(o.chunks.as_ref()));
    add(
        "Imbalance allowed",
        o.balance.map(|b| format!("{:.0} %", b * 100.0)),
    );
    add(
        "Beyond fp16",
        o.allow_overflow
            .map(|is_allowed| if is_allowed { "clamped" } else { "refused" }.to_owned()),
    );
    add("Name of the packages", given(o.name.as_ref()));
    add("Author", given(o.author.as_ref()));
    add("Licence", given(o.license.as_ref()));
    facts
}

fn target(o: &Options) -> Option<String> {
    let version = o.specification_version?;
    let system = SYSTEMS.iter().find(|(v, _)| *v == version);
    let opset = given(o.opset.as_ref()).map(|opset| format!("{opset}, "));
    let format = format!("{}specification {version}", opset.unwrap_or_default());
    Some(match system {
        Some((_, system)) => format!("{system} ({format})"),
        None => format,
    })
}

fn losses(component: &Component) -> Vec<Loss> {
    let clamped = component.clamped.iter().flatten().map(|c| {
        let tensor = given(c.tensor.as_ref()).unwrap_or_else(|| "unnamed".to_owned());
        let values = c
            .values
            .map(|n| format!(": {} values", number::thousands(n)));
        format!("{tensor}{}", values.unwrap_or_default())
    });
    let narrowed = component.narrowed.iter().flatten();
    let losses = [
        Loss {
            what: "Values beyond what fp16 holds were written as ±65504",
            names: clamped.collect(),
        },
        Loss {
            what: "Values of type fp32 cross as fp16, which loses digits",
            names: narrowed.map(ToString::to_string).collect(),
        },
    ];
    losses.into_iter().filter(|l| !l.names.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::super::testing::component;
    use super::*;

    fn facts(fields: &str) -> Facts {
        Facts::of(&Text::new("unet"), &component(fields))
    }

    #[test]
    fn an_empty_entry_claims_nothing() {
        let found = facts("");
        assert_eq!(found.title, "unet");
        assert_eq!(found.lead, "Converted into packages that are not recorded.");
        let unknown = found.tiles.iter().filter(|t| t.value == UNKNOWN).count();
        assert_eq!(unknown, found.tiles.len());
        assert_eq!(found.source[0].value, UNKNOWN);
        assert!(found.losses.is_empty());
    }

    #[test]
    fn a_checkpoint_and_a_package_are_told_apart() {
        let checkpoint = facts(
            r#""family": "SDXL", "source": {"name": "a.safetensors", "files": ["a.safetensors"], "parameters": 2567463684},
                "chunks": [{}, {}, {}], "tool": {"name": "chunk-unet", "version": "0.1.0"}"#,
        );
        assert_eq!(checkpoint.title, "a.safetensors");
        assert_eq!(
            checkpoint.lead,
            "SDXL, converted into 3 packages by chunk-unet 0.1.0."
        );
        assert_eq!(checkpoint.tiles[0].value, "2.57 billion");
        assert!(checkpoint.source.iter().all(|f| f.label != "Files"));
        let package = facts(
            r#""source": {"name": "Unet", "model_blake3": "0", "operations": 5000}, "chunks": [{}]"#,
        );
        assert_eq!(package.lead, "A package, split into 1 package.");
        assert_eq!(package.tiles[0].label, "operations");
    }

    #[test]
    fn a_pipeline_is_one_package() {
        let found = facts(
            r#""packages": ["A"], "chunks": [{"path": "A", "stage": 1}, {"path": "A", "stage": 2}]"#,
        );
        assert_eq!(
            found.lead,
            "Converted into 1 package, a pipeline of 2 stages."
        );
        assert_eq!(found.tiles[1].value, "1");
        assert_eq!(found.tiles[3].note, "1 cut");
    }

    #[test]
    fn options_are_said_in_words() {
        let found = facts(
            r#""options": {"specification_version": 7, "opset": "CoreML6", "latent_width": 128, "latent_height": 96}"#,
        );
        let shown: Vec<_> = found.options.iter().map(|f| f.value.as_str()).collect();
        assert_eq!(
            shown,
            [
                "macOS 13, iOS 16 and later (CoreML6, specification 7)",
                "128 × 96, images of 1024 × 768 pixels"
            ]
        );
        let unknown = facts(r#""options": {"specification_version": 99}"#);
        assert_eq!(unknown.options[0].value, "specification 99");
    }

    #[test]
    fn losses_are_named() {
        let found = facts(r#""clamped": [{"tensor": "a", "values": 3}, {}], "narrowed": ["b"]"#);
        assert_eq!(found.losses[0].names, ["a: 3 values", "unnamed"]);
        assert_eq!(found.losses[1].names, ["b"]);
    }
}
