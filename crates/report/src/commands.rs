//! Commands to go on with, as a shell takes them.

use crate::record::{Component, Record, Text};
use crate::sections::facts::is_split;

/// Components that Apple's folder loader knows.
const UNETS: &[&str] = &["unet", "unet_refiner"];

/// A command with what it is for.
pub struct Command {
    pub purpose: String,
    pub line: String,
}

/// What can be done with the packages of `folder`.
pub fn commands(record: &Record, folder: &str) -> Vec<Command> {
    let is_one = record.components.len() == 1;
    let mut commands = Vec::new();
    for (name, component) in &record.components {
        let of = if is_one {
            String::new()
        } else {
            format!(" of {name}")
        };
        commands.push(verify(name, component, folder, &of, is_one));
        commands.extend(compile(component, folder, &of));
    }
    if record
        .components
        .keys()
        .any(|name| UNETS.contains(&name.whole()))
    {
        commands.push(Command {
            purpose: "Lay out the folder that Apple's Swift package loads".to_owned(),
            line: line(&["bundle", folder, "-o", "Resources"]),
        });
    }
    commands
}

fn verify(name: &Text, component: &Component, folder: &str, of: &str, is_one: bool) -> Command {
    let mut args = vec!["verify", folder];
    if !is_one {
        args.extend(["--component", name.whole()]);
    }
    let source = component.source.as_ref().and_then(|s| s.name.as_ref());
    let source = source.map(|s| {
        let ending = if is_split(component) {
            ".mlpackage"
        } else {
            ""
        };
        format!("{}{ending}", s.whole())
    });
    let purpose = match &source {
        Some(source) => {
            args.extend(["--against", source]);
            format!("Prove the packages{of} against what they were made from, where that lies")
        }
        None => format!("Prove that the packages{of} are what was written"),
    };
    Command {
        purpose,
        line: line(&args),
    }
}

fn compile(component: &Component, folder: &str, of: &str) -> Option<Command> {
    let packages = component.packages.as_deref().filter(|p| !p.is_empty())?;
    let folder = folder.trim_end_matches('/');
    let paths: Vec<_> = packages
        .iter()
        .map(|p| format!("{folder}/{}", p.whole()))
        .collect();
    let mut args = vec!["compile"];
    args.extend(paths.iter().map(String::as_str));
    args.extend(["-o", "Compiled"]);
    Some(Command {
        purpose: format!("Compile the packages{of} into what apps load"),
        line: line(&args),
    })
}

fn line(args: &[&str]) -> String {
    let args: Vec<_> = args.iter().map(|arg| quoted(arg)).collect();
    format!("chunk-unet {}", args.join(" "))
}

/// As one word for a shell, and never for an option unless it is one of ours.
fn quoted(arg: &str) -> String {
    const OURS: &[&str] = &["-o", "--against", "--component"];
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-./+=:@%,".contains(c);
    let path = match arg.starts_with('-') && !OURS.contains(&arg) {
        true => format!("./{arg}"),
        false => arg.to_owned(),
    };
    if !path.is_empty() && path.chars().all(is_plain) {
        return path;
    }
    format!("'{}'", path.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(components: &str, folder: &str) -> Vec<String> {
        let text = format!(r#"{{"schema_version": 1, "components": {{{components}}}}}"#);
        let record = Record::parse(text.as_bytes()).unwrap();
        commands(&record, folder)
            .into_iter()
            .map(|c| c.line)
            .collect()
    }

    #[test]
    fn commands_have_the_folders_names() {
        assert_eq!(
            lines(
                r#""unet": {"source": {"name": "it's a.safetensors"}, "packages": ["A.mlpackage", "B C.mlpackage"]}"#,
                "My Model/",
            ),
            [
                r"chunk-unet verify 'My Model/' --against 'it'\''s a.safetensors'",
                "chunk-unet compile 'My Model/A.mlpackage' 'My Model/B C.mlpackage' -o Compiled",
                "chunk-unet bundle 'My Model/' -o Resources",
            ]
        );
    }

    #[test]
    fn several_components_are_told_apart() {
        assert_eq!(
            lines(
                r#""unet": {}, "Text": {"source": {"name": "-t", "model_blake3": "0"}}"#,
                "-out"
            ),
            [
                "chunk-unet verify ./-out --component Text --against ./-t.mlpackage",
                "chunk-unet verify ./-out --component unet",
                "chunk-unet bundle ./-out -o Resources",
            ]
        );
    }

    #[test]
    fn nothing_from_a_record_ends_a_word() {
        for text in [
            "", "a b", "$(x)", "`x`", "a;b", "a\"b", "~", "a\\n", "ü", "#", "*",
        ] {
            let word = quoted(text);
            assert!(word.starts_with('\'') && word.ends_with('\''), "{word}");
        }
        assert_eq!(quoted("a'; x '"), r"'a'\''; x '\'''");
        assert_eq!(quoted("a/b-1.mlpackage"), "a/b-1.mlpackage");
    }
}
