//! The README says what the program does: its tables are those of the code.

use connector::config::{GROUPS, WhenUnset};
use connector::exit::Exit;

const README: &str = include_str!("../README.md");

/// The README's table of variables, as it should be.
fn variables() -> String {
    let mut table = String::new();
    for group in GROUPS {
        table.push_str(&format!("\n**{}**\n\n| variable | default | meaning |\n|---|---|---|\n", group.title));
        for variable in group.variables {
            let default = match variable.default {
                WhenUnset::Required => "required".to_owned(),
                WhenUnset::Value(value) => format!("`{value}`"),
                WhenUnset::Words(words) => words.to_owned(),
            };
            let meaning = variable.meaning.replace('|', "\\|").replace('*', "\\*");
            table.push_str(&format!("| `{}` | {default} | {meaning} |\n", variable.name));
        }
    }
    table + "\n"
}

#[test]
fn the_table_of_variables_is_the_parsers() {
    let (_, rest) = README.split_once("<!-- variables -->\n").expect("where the table begins");
    let (table, _) = rest.split_once("<!-- /variables -->").expect("where it ends");
    assert!(table == variables(), "README.md's table of variables should be:\n{}", variables());
}

#[test]
fn every_exit_code_is_in_the_table() {
    for exit in Exit::ALL {
        let row = match exit {
            Exit::Interrupted | Exit::Terminated => "| 130, 143 | `INTERRUPTED` |".to_owned(),
            _ => format!("| {} | `{}` |", exit.code(), exit.name()),
        };
        assert!(README.contains(&row), "no row {row:?}");
    }
}

#[test]
fn every_failure_code_is_named() {
    for code in connector::failure::FailureCode::ALL {
        assert!(README.contains(&format!("`{}`", code.as_str())), "{} is not in README.md", code.as_str());
    }
}
