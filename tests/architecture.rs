//! The map of the crate, held by a machine: `use` runs one way, and a crate that speaks to the outside has one home.
//!
//! It reads the sources as text. What is between `//` and the end of a line does not count, nor does what is after
//! `#[cfg(test)]`: tests may look anywhere.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The modules, from the top down: each may use those below it. The first is what reads the environment and ends the
/// process, the last are leaves that know nothing of the program.
const ORDER: &[&str] = &[
    "main", "lib", "probe", "run", "connect", "progress", "transfer", "plan", "list", "notify", "metrics", "store",
    "report", "logging", "secret", "config", "select", "template", "remote", "failure", "checksum", "retry",
    "shutdown", "ecs", "exit", "pulse", "causes", "units",
];

/// Crates with a face of their own, and the only files that may name them.
const HOMES: [(&str, &[&str]); 13] = [
    ("russh", &["remote/russh", "remote/private_key"]),
    ("ssh2", &["remote/libssh2"]),
    ("zip", &["transfer/unpack"]),
    ("aws_sdk_s3", &["store"]),
    ("aws_sigv4", &["store"]),
    ("aws_smithy_http_client", &["store", "ecs"]),
    ("aws_smithy_runtime_api", &["store", "ecs"]),
    ("aws_sdk_eventbridge", &["notify/events"]),
    ("aws_sdk_sfn", &["notify/task_token"]),
    ("flate2", &["report/spool"]),
    ("aws_sdk_secretsmanager", &["secret"]),
    ("envy", &["config"]),
    ("indicatif", &["progress"]),
];

struct Source {
    /// Below `src/`, without `.rs`: `remote/russh`.
    name: String,
    code: String,
}

impl Source {
    /// `remote` for `remote/russh`.
    fn module(&self) -> &str {
        self.name.split('/').next().unwrap_or_default()
    }

    /// Whether this is the file `home`, or one of the folder named like it.
    fn is_in(&self, home: &str) -> bool {
        self.name.strip_prefix(home).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&root, &mut files);
    assert!(files.len() > 5, "found only {files:?}");
    let read = |file: PathBuf| {
        let name = file.strip_prefix(&root).expect("a file below src").with_extension("").display().to_string();
        let text = fs::read_to_string(&file).expect("a source file");
        Source { name, code: code_of(&text) }
    };
    files.into_iter().map(read).collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder of sources") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// Without comments and without the tests at the end.
fn code_of(text: &str) -> String {
    let before_tests = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
    before_tests.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// Top-level modules that `code` names after `crate::`, in a `use` or in a path; the `{…}` of a `use crate::{…}` too.
fn used_modules(code: &str) -> Vec<String> {
    let mut used = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        if code[..at].ends_with(is_identifier) {
            continue;
        }
        let rest = &code[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            Some(group) => used.extend(heads_of_group(group)),
            None => used.push(identifier(rest)),
        }
    }
    used
}

/// The first name of each item of `{a::b, c::{d, e}}`, whose opening brace is gone already.
fn heads_of_group(group: &str) -> Vec<String> {
    let mut heads = Vec::new();
    let mut depth = 0;
    let mut item = String::new();
    for character in group.chars() {
        match character {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => heads.push(std::mem::take(&mut item)),
            _ => {}
        }
        item.push(character);
    }
    heads.push(item);
    heads
        .iter()
        .map(|item| identifier(item.trim_start_matches([',', ' ', '\n'])))
        .filter(|head| !head.is_empty())
        .collect()
}

fn identifier(text: &str) -> String {
    text.chars().take_while(|character| is_identifier(*character)).collect()
}

fn is_identifier(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

/// Whether `code` names the crate: followed by `::`, as a whole word, and not as a module of another path.
fn names_crate(code: &str, name: &str) -> bool {
    code.match_indices(&format!("{name}::")).any(|(at, _)| {
        let before = &code[..at];
        !before.ends_with(is_identifier) && (!before.ends_with("::") || before.ends_with(" ::"))
    })
}

#[test]
fn modules_use_only_what_is_below_them() {
    let place: BTreeMap<&str, usize> = ORDER.iter().enumerate().map(|(place, module)| (*module, place)).collect();
    let mut faults = Vec::new();
    for source in sources() {
        let Some(own) = place.get(source.module()) else {
            faults.push(format!("src/{}.rs: no place in ORDER for `{}`", source.name, source.module()));
            continue;
        };
        for used in used_modules(&source.code) {
            match place.get(used.as_str()) {
                Some(theirs) if theirs >= own => {}
                Some(_) => faults.push(format!("src/{}.rs uses crate::{used}, which is above it", source.name)),
                // A name of the root, like a type that lib.rs re-exports: only the root itself is above everything.
                None if *own <= place["lib"] => {}
                None => faults.push(format!("src/{}.rs uses crate::{used}, which ORDER does not know", source.name)),
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn outside_crates_are_named_in_their_homes_only() {
    let mut faults = Vec::new();
    let sources = sources();
    for (name, homes) in HOMES {
        for source in &sources {
            if names_crate(&source.code, name) && !homes.iter().any(|home| source.is_in(home)) {
                faults.push(format!("src/{}.rs names {name}; its home is {homes:?}", source.name));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn the_reader_of_sources_sees_every_form() {
    let text = "\
        use crate::remote::{Kind, path};\n\
        // use crate::comment;\n\
        pub(crate) use crate::{units::ByteSize, retry::{once, Twice}, exit};\n\
        fn f() -> crate::error::Error { mycrate::nothing() }\n\
        #[cfg(test)]\nmod tests { use crate::transfer; }";
    assert_eq!(used_modules(&code_of(text)), ["remote", "units", "retry", "exit", "error"]);

    assert!(names_crate("use russh::client;", "russh"));
    assert!(names_crate("fn f(key: &russh::Key)", "russh"));
    assert!(names_crate("use ::zip::read;", "zip"));
    assert!(!names_crate("use crate::remote::russh::Engine;", "russh"));
    assert!(!names_crate("libssh2::connect()", "ssh2"));
}
