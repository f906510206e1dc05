//! The text of `--help`, out of the table that the parser reads.

use std::fmt::Write as _;

use super::table::{self, WhenUnset};

const HEAD: &str = "\
sftp-s3-connector: an SFTP directory into S3, once, with a status

It takes no arguments but --help and --version. These environment variables configure it; an empty one counts as unset.
Sizes take B, KiB, MiB, GiB, TiB, KB, MB, GB, TB; durations ms, s, m, h, d; lists are comma-separated; booleans are
true or false.
";

/// Every variable with its default and meaning.
pub fn help() -> String {
    let mut text = String::from(HEAD);
    for group in table::GROUPS {
        let _ = write!(text, "\n{}\n\n", group.title);
        for variable in group.variables {
            let default = match variable.default {
                WhenUnset::Required => String::from("required"),
                WhenUnset::Value(value) => format!("default: {value}"),
                WhenUnset::Words(words) => format!("default: {words}"),
            };
            let _ = writeln!(text, "  {:<22} {}\n      ({default})", variable.name, variable.meaning);
        }
    }
    text.push_str("\nKnown, and refused because this version does not act on them\n\n");
    for names in table::LATER.chunks(6) {
        let _ = writeln!(text, "  {}", names.join(", "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_variable_is_there_with_its_default_and_meaning() {
        let help = help();
        for variable in table::variables() {
            assert!(help.contains(&format!("  {} ", variable.name)), "{}", variable.name);
            assert!(help.contains(variable.meaning), "{}", variable.name);
            if let WhenUnset::Value(value) = variable.default {
                assert!(help.contains(&format!("default: {value}")), "{}", variable.name);
            }
        }
        assert!(table::LATER.iter().all(|name| help.contains(name)));
    }

    #[test]
    fn no_line_is_too_long_to_read() {
        let longest = help().lines().map(str::len).max();
        assert!(longest <= Some(130), "{longest:?}");
    }
}
