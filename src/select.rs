//! Which entries are taken: entries and rules in, decisions out. Pure.
//!
//! Paths are held against the globs as bytes, relative to `SFTP_DIRECTORY_PATH`: a name that is not UTF-8 is matched by
//! `*` like any other.

use std::fmt;
use std::str::FromStr;

use globset::{Candidate, ErrorKind, Glob, GlobBuilder, GlobSet, GlobSetBuilder};

use crate::remote::{FileKind, RemotePath};

/// What selects.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    /// Descend into subdirectories.
    pub recursive: bool,
    /// Take only what one of these matches; none takes all.
    pub include: Globs,
    /// Leave what one of these matches, included or not.
    pub exclude: Globs,
}

/// What becomes of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    Take,
    Skip(SkipReason),
}

/// Why something is not taken, as `skip-reason` in its record says it: in capitals, like the failure codes beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SkipReason {
    /// `EXCLUDE` matches it.
    Excluded,
    /// `INCLUDE` is set and does not match it.
    NotIncluded,
    /// A device, socket or pipe; in an archive, a link too.
    NotRegular,
    /// A directory, or a link to one, where no directory is descended into.
    Directory,
    /// A symbolic link that leads back to a directory on its own path.
    LinkLoop,
    /// A symbolic link that leads nowhere.
    LinkDangling,
}

impl SkipReason {
    pub const ALL: [SkipReason; 6] = [
        SkipReason::Excluded,
        SkipReason::NotIncluded,
        SkipReason::NotRegular,
        SkipReason::Directory,
        SkipReason::LinkLoop,
        SkipReason::LinkDangling,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            SkipReason::Excluded => "EXCLUDED",
            SkipReason::NotIncluded => "NOT_INCLUDED",
            SkipReason::NotRegular => "NOT_REGULAR",
            SkipReason::Directory => "DIRECTORY",
            SkipReason::LinkLoop => "LINK_LOOP",
            SkipReason::LinkDangling => "LINK_DANGLING",
        }
    }
}

impl fmt::Display for SkipReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Rules {
    /// Whether the file at `relative` is taken. Names are judged before kinds: what the globs leave out is left out for
    /// that reason, whatever it is.
    ///
    /// `kind` is what the path leads to. A link that could not be followed keeps [`FileKind::Symlink`] and is dangling; a
    /// kind that the server does not tell is taken for a file, and reading it will show.
    pub fn decide(&self, relative: &RemotePath, kind: FileKind) -> Decision {
        let candidate = Candidate::from_bytes(relative.as_bytes());
        if self.exclude.files.is_match_candidate(&candidate) {
            return Decision::Skip(SkipReason::Excluded);
        }
        if !self.include.is_empty() && !self.include.files.is_match_candidate(&candidate) {
            return Decision::Skip(SkipReason::NotIncluded);
        }
        match kind {
            FileKind::File | FileKind::Unknown => Decision::Take,
            FileKind::Directory => Decision::Skip(SkipReason::Directory),
            FileKind::Symlink => Decision::Skip(SkipReason::LinkDangling),
            FileKind::Special => Decision::Skip(SkipReason::NotRegular),
        }
    }

    /// Whether the directory at `relative` is worth listing: with `RECURSIVE`, unless `EXCLUDE` leaves out all that can be
    /// in it, so that `EXCLUDE=archive/**` costs no listing of `archive` and no right to read it.
    pub fn descends_into(&self, relative: &RemotePath) -> bool {
        self.recursive && !self.exclude.trees.is_match_candidate(&Candidate::from_bytes(relative.as_bytes()))
    }
}

/// A list of globs. `*` and `?` stay within a folder, `**` crosses folders, `[a-z]`, `{a,b}` and `\` are as in a shell.
#[derive(Debug, Clone, Default)]
pub struct Globs {
    /// As written, for display.
    patterns: Vec<String>,
    files: GlobSet,
    /// For each pattern `X/**`, `X`: the directories below which everything matches.
    trees: GlobSet,
}

impl Globs {
    /// Whether there is no pattern.
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }
}

/// Why a list of globs cannot be used, by the number of the glob in it. The text is not repeated: what is in the wrong
/// variable may be a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GlobsError {
    #[error("glob {number} of the list is none: {problem}")]
    Malformed { number: usize, problem: &'static str },
    #[error(
        "glob {0} of the list begins with `/`, and globs match the path relative to SFTP_DIRECTORY_PATH: leave out the `/`"
    )]
    Absolute(usize),
    #[error("glob {0} of the list ends with `/`, and no file's path does: for all below that folder append `**`")]
    Folder(usize),
    #[error("the globs are too large or too many")]
    TooLarge,
}

impl FromStr for Globs {
    type Err = GlobsError;

    /// Comma-separated; a comma within `{}`, within `[]` or after `\` belongs to its pattern.
    fn from_str(list: &str) -> Result<Self, GlobsError> {
        let mut files = GlobSetBuilder::new();
        let mut trees = GlobSetBuilder::new();
        let mut patterns = Vec::new();
        for (number, written) in (1..).zip(split_list(list)) {
            let pattern = written.strip_prefix("./").unwrap_or(written);
            if pattern.starts_with('/') {
                return Err(GlobsError::Absolute(number));
            }
            if pattern.ends_with('/') {
                return Err(GlobsError::Folder(number));
            }
            let glob =
                |pattern| glob(pattern).map_err(|error| GlobsError::Malformed { number, problem: words(&error) });
            files.add(glob(pattern)?);
            if let Some(tree) = pattern.strip_suffix("/**").filter(|tree| !tree.ends_with('\\')) {
                trees.add(glob(tree)?);
            } else if pattern == "**" {
                trees.add(glob(pattern)?);
            }
            patterns.push(written.to_owned());
        }
        let build = |set: GlobSetBuilder| set.build().map_err(|_| GlobsError::TooLarge);
        Ok(Self { patterns, files: build(files)?, trees: build(trees)? })
    }
}

impl fmt::Display for Globs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.patterns.join(","))
    }
}

fn glob(pattern: &str) -> Result<Glob, globset::Error> {
    GlobBuilder::new(pattern).literal_separator(true).backslash_escape(true).empty_alternates(true).build()
}

/// What is wrong with a glob, in words that repeat nothing of it.
fn words(error: &globset::Error) -> &'static str {
    match error.kind() {
        ErrorKind::UnclosedClass => "a `[` without its `]`",
        ErrorKind::InvalidRange(..) => "a range within `[]` that runs backwards",
        ErrorKind::UnopenedAlternates => "a `}` without its `{`",
        ErrorKind::UnclosedAlternates => "a `{` without its `}`",
        ErrorKind::DanglingEscape => "a `\\` at its end, with nothing after it to take literally",
        _ => "it cannot be compiled",
    }
}

/// The list's items without the blanks around them; empty ones are left out.
fn split_list(list: &str) -> Vec<&str> {
    let mut items = Vec::new();
    let (mut start, mut braces, mut class, mut escaped) = (0, 0_usize, false, false);
    for (at, letter) in list.char_indices() {
        if std::mem::take(&mut escaped) {
            continue;
        }
        match letter {
            '\\' => escaped = true,
            '[' => class = true,
            ']' => class = false,
            '{' if !class => braces += 1,
            '}' if !class => braces = braces.saturating_sub(1),
            ',' if !class && braces == 0 => {
                items.push(&list[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    items.push(&list[start..]);
    items.into_iter().map(str::trim).filter(|item| !item.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn rules(include: &str, exclude: &str) -> Rules {
        let globs = |list: &str| list.parse().expect("the test's globs compile");
        Rules { recursive: true, include: globs(include), exclude: globs(exclude) }
    }

    fn takes(rules: &Rules, path: &str) -> bool {
        rules.decide(&RemotePath::from(path), FileKind::File) == Decision::Take
    }

    #[test]
    fn without_globs_every_file_is_taken() {
        let rules = Rules::default();
        for path in ["a.csv", "a/b/c.csv", ".hidden", " ", "a\nb"] {
            assert!(takes(&rules, path), "{path:?}");
        }
    }

    #[test]
    fn a_star_stays_within_a_folder_and_two_cross() {
        let top = rules("*.csv", "");
        assert!(takes(&top, "a.csv") && takes(&top, ".csv") && takes(&top, "a\nb.csv"));
        assert!(!takes(&top, "out/a.csv") && !takes(&top, "a.csv.gz") && !takes(&top, "a.CSV"));

        let anywhere = rules("**/*.csv", "");
        assert!(takes(&anywhere, "a.csv") && takes(&anywhere, "out/2024/a.csv"));

        let below = rules("out/**", "");
        assert!(takes(&below, "out/a") && takes(&below, "out/b/c") && !takes(&below, "output/a"));
    }

    #[test]
    fn exclude_wins_over_include() {
        let rules = rules("**/*.csv", "**/tmp_*,archive/**");
        assert!(takes(&rules, "a.csv") && takes(&rules, "x/a.csv"));
        assert_eq!(rules.decide(&"x/tmp_a.csv".into(), FileKind::File), Decision::Skip(SkipReason::Excluded));
        assert_eq!(rules.decide(&"archive/a.csv".into(), FileKind::File), Decision::Skip(SkipReason::Excluded));
        assert_eq!(rules.decide(&"a.txt".into(), FileKind::File), Decision::Skip(SkipReason::NotIncluded));
    }

    #[test]
    fn a_leading_dot_slash_is_the_directory_itself() {
        let rules = rules("./*.csv,./in/?.txt", "");
        assert!(takes(&rules, "a.csv") && takes(&rules, "in/a.txt") && !takes(&rules, "b/a.csv"));
    }

    #[test]
    fn a_comma_within_a_pattern_does_not_end_it() {
        let rules = rules("*.{csv,txt}, [a,b].dat ,c\\,d,", "");
        for path in ["a.csv", "a.txt", ",.dat", "a.dat", "c,d"] {
            assert!(takes(&rules, path), "{path}");
        }
        assert!(!takes(&rules, "c.dat") && !takes(&rules, "d"));
    }

    #[test]
    fn a_name_that_is_not_utf8_is_matched_by_its_bytes() {
        let csv = rules("**/*.csv", "**/caf?.*");
        let latin1 = |path: &[u8]| csv.decide(&RemotePath::new(path), FileKind::File);
        assert_eq!(latin1(b"\xff\xfe/na\xefve.csv"), Decision::Take);
        assert_eq!(latin1(b"caf\xe9.csv"), Decision::Skip(SkipReason::Excluded));
        assert_eq!(latin1(b"\xe9.txt"), Decision::Skip(SkipReason::NotIncluded));
    }

    #[test]
    fn what_is_no_file_is_skipped_for_what_it_is() {
        let rules = rules("", "**/*.sock");
        let decide = |path: &str, kind| rules.decide(&RemotePath::from(path), kind);
        assert_eq!(decide("fifo", FileKind::Special), Decision::Skip(SkipReason::NotRegular));
        assert_eq!(decide("link", FileKind::Symlink), Decision::Skip(SkipReason::LinkDangling));
        assert_eq!(decide("dir", FileKind::Directory), Decision::Skip(SkipReason::Directory));
        assert_eq!(decide("some", FileKind::Unknown), Decision::Take);
        assert_eq!(decide("a.sock", FileKind::Special), Decision::Skip(SkipReason::Excluded));
    }

    #[test]
    fn a_folder_that_is_excluded_whole_is_not_descended_into() {
        let rules = rules("", "archive/**,**/tmp/**,logs/*");
        let descends = |path: &str| rules.descends_into(&RemotePath::from(path));
        assert!(!descends("archive") && !descends("tmp") && !descends("a/tmp"));
        assert!(descends("a") && descends("archives") && descends("a/archive"));
        assert!(descends("logs"), "`logs/*` leaves what lies deeper");
        assert!(!Rules { recursive: false, ..rules.clone() }.descends_into(&"a".into()));
    }

    #[test]
    fn a_pattern_that_can_never_match_is_refused() {
        assert_eq!("/out/*.csv".parse::<Globs>().unwrap_err(), GlobsError::Absolute(1));
        assert_eq!("a,archive/".parse::<Globs>().unwrap_err(), GlobsError::Folder(2));
        for broken in ["[a", "{a,b", "a\\", "*.csv,[z-a]"] {
            let error = broken.parse::<Globs>().expect_err(broken);
            assert!(matches!(error, GlobsError::Malformed { .. }), "{broken}: {error}");
        }
    }

    #[test]
    fn skip_reasons_are_distinct_words_in_capitals() {
        let words: std::collections::BTreeSet<_> = SkipReason::ALL.iter().map(|reason| reason.as_str()).collect();
        assert_eq!(words.len(), SkipReason::ALL.len());
        assert!(words.iter().all(|word| word.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_')));
    }

    fn any_path() -> impl Strategy<Value = Vec<u8>> {
        vec(vec(any::<u8>().prop_filter("no separator", |byte| *byte != b'/'), 1..6), 1..5)
            .prop_map(|segments| segments.join(&b'/'))
    }

    /// Globs out of the pieces that people use, over names that [`near_path`] makes.
    fn any_glob() -> impl Strategy<Value = String> {
        let segment = prop_oneof![Just("a"), Just("b*"), Just("*"), Just("?"), Just("{a,c}"), Just("[ab]"), Just("**")];
        vec(segment, 1..4).prop_map(|segments| segments.join("/"))
    }

    fn near_path() -> impl Strategy<Value = String> {
        vec("[abc]{1,2}", 1..5).prop_map(|segments| segments.join("/"))
    }

    proptest! {
        #[test]
        fn any_bytes_get_a_decision(path in any_path()) {
            let path = RemotePath::new(path);
            prop_assert_eq!(rules("**", "").decide(&path, FileKind::File), Decision::Take);
            prop_assert_eq!(rules("", "**").decide(&path, FileKind::File), Decision::Skip(SkipReason::Excluded));
        }

        #[test]
        fn no_text_makes_the_globs_panic(list in any::<String>()) {
            let _ = list.parse::<Globs>();
        }

        #[test]
        fn what_one_glob_of_a_list_matches_the_list_matches(
            globs in vec(any_glob(), 1..4), path in near_path(),
        ) {
            let alone = globs.iter().any(|glob| takes(&rules(glob, ""), &path));
            prop_assert_eq!(takes(&rules(&globs.join(","), ""), &path), alone);
        }

        #[test]
        fn excluding_takes_exactly_what_including_leaves(glob in any_glob(), path in near_path()) {
            prop_assert_ne!(takes(&rules(&glob, ""), &path), takes(&rules("", &glob), &path));
        }

        #[test]
        fn below_a_folder_not_descended_into_nothing_would_be_taken(
            exclude in any_glob(), dir in near_path(), below in near_path(),
        ) {
            let rules = rules("", &exclude);
            if !rules.descends_into(&RemotePath::from(dir.as_str())) {
                let path = format!("{dir}/{below}");
                prop_assert!(!takes(&rules, &path), "{}", path);
            }
        }
    }
}
