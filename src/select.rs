//! Which entries are taken: entries and rules in, decisions out. Pure.

/// What selects.
#[derive(Debug, Clone)]
pub struct Rules {
    /// Descend into subdirectories.
    pub recursive: bool,
    // include, exclude: compiled globs
}
