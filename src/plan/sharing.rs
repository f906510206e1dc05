//! Which sources of a run share a key, and which could: what an archive holds is not known before it is read. Pure.

use std::collections::HashMap;

use super::{Plan, PlannedFile, RunContext};
use crate::failure::{Failure, FailureCode};
use crate::template::{KeyTemplate, ObjectKey, UnpackTemplate};

/// No archive is smaller: the end record of a zip file without entries (APPNOTE.TXT 4.3.16).
pub const SMALLEST_ARCHIVE: u64 = 22;

/// Files that share a key all fail: which of them was meant cannot be known.
pub fn fail_collisions(plan: &mut Plan) {
    /// Who has one key. Each but the first is told of the first, and the first of the last.
    struct Sharers {
        count: u32,
        first: usize,
        last: usize,
    }
    let mut sharing: HashMap<ObjectKey, Sharers> = HashMap::with_capacity(plan.files.len());
    for (index, file) in plan.files.iter().enumerate() {
        let alone = || Sharers { count: 0, first: index, last: index };
        let sharers = sharing.entry(file.key.clone()).or_insert_with(alone);
        sharers.count += 1;
        sharers.last = index;
    }
    if sharing.len() == plan.files.len() {
        return;
    }
    let paths: Vec<String> = plan.files.iter().map(|file| file.relative.clone()).collect();
    for (index, file) in std::mem::take(&mut plan.files).into_iter().enumerate() {
        match sharing.get(&file.key) {
            Some(&Sharers { count, first, last }) if count > 1 => {
                let other = &paths[if index == first { last } else { first }];
                let message = format!(
                    "{count} files of this run map to the key {:?}, {other:?} among them; none of them is delivered. Make \
                     KEY_TEMPLATE tell them apart, for example with {{path}}",
                    file.key.as_str()
                );
                plan.failed.push((file.remote, Failure::new(FailureCode::KeyCollision, message)));
                plan.contested.insert(file.key);
            }
            _ => plan.files.push(file),
        }
    }
}

/// Marks the files that may share a key with an entry of an archive, and those that may be that archive. Any file may be
/// one. The keys of its entries begin with what the templates make of its name, which as a rule no other file's do.
pub fn mark_possible(plan: &mut Plan, keys: &KeyTemplate, unpack: &UnpackTemplate, run: RunContext<'_>) {
    /// In the order of the text: what begins with a prefix comes right after it.
    #[derive(PartialEq, Eq, PartialOrd, Ord)]
    struct Claim<'a> {
        text: &'a str,
        is_key: bool,
        file: usize,
    }
    let prefix = |file: &PlannedFile| keys.prefix(&unpack.prefix(&file.relative), run.start, run.id);
    let prefixes: Vec<Option<String>> =
        plan.files.iter().map(|file| (file.size >= SMALLEST_ARCHIVE).then(|| prefix(file))).collect();
    let mut claims = Vec::with_capacity(2 * prefixes.len());
    for (index, (file, prefix)) in plan.files.iter().zip(&prefixes).enumerate() {
        claims.push(Claim { text: file.key.as_str(), is_key: true, file: index });
        claims.extend(prefix.as_deref().map(|text| Claim { text, is_key: false, file: index }));
    }
    claims.sort_unstable();
    let mut shared = vec![false; plan.files.len()];
    // Prefixes that the next text may begin with, each of them a prefix of the one after it.
    let mut open: Vec<&Claim<'_>> = Vec::new();
    for claim in &claims {
        while open.last().is_some_and(|prefix| !claim.text.starts_with(prefix.text)) {
            open.pop();
        }
        // Prefixes further down were marked when the last one was met.
        if let Some(prefix) = open.last() {
            shared[prefix.file] = true;
            shared[claim.file] = true;
        }
        if !claim.is_key {
            open.push(claim);
        }
    }
    drop(claims);
    for (file, shared) in plan.files.iter_mut().zip(shared) {
        file.may_share_key = shared;
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::planned;
    use super::{KeyTemplate, UnpackTemplate};
    use proptest::prelude::*;

    fn marked(paths: &[&[u8]], keys: &str, unpack: &str) -> Vec<String> {
        let plan = planned(paths, keys, Some(unpack));
        plan.files.into_iter().filter(|file| file.may_share_key).map(|file| file.relative).collect()
    }

    #[test]
    fn files_of_a_directory_are_apart_from_each_other_s_entries() {
        let paths: [&[u8]; 5] = [b"a.zip", b"b.zip", b"ab.csv", b"c/d.zip", b"c/e.csv"];
        for keys in ["{path}", "in/{run_start:%Y}/{run_id}/{path}", "{run_id}-{path}"] {
            assert_eq!(marked(&paths, keys, "{archive}/{entry}"), [""; 0], "{keys}");
        }
    }

    #[test]
    fn what_may_meet_is_marked() {
        let both = ["a.zip", "a.dat"];
        assert_eq!(marked(&[b"a.zip", b"a.dat", b"b.csv"], "{path}", "{archive}/{entry}"), both);
        assert_eq!(marked(&[b"a.zip", b"a/x.csv", b"b/x.csv"], "{path}", "{archive}/{entry}"), ["a.zip", "a/x.csv"]);
        assert_eq!(marked(&[b"a.zip", b"a/b.zip", b"a/c"], "{path}", "{archive}/{entry}"), ["a.zip", "a/b.zip", "a/c"]);
        assert_eq!(marked(&[b"a.zip", b"b.csv"], "{name}", "{archive}/{entry}"), ["a.zip", "b.csv"]);
        assert_eq!(marked(&[b"a.zip", b"b.csv"], "{path}", "all/{entry}"), ["a.zip", "b.csv"]);
        assert_eq!(marked(&[b"a.zip", b"b.csv"], "{path}", "{entry}"), ["a.zip", "b.csv"]);
    }

    proptest! {
        /// Held against the definition: of every pair, does one's prefix begin the other's key or prefix?
        #[test]
        fn marking_finds_every_pair_and_nothing_else(
            paths in proptest::collection::hash_set("[ab]{1,2}(/[ab]{1,2}){0,2}(\\.z)?", 1..12),
            template in 0..5_usize,
        ) {
            let (keys, unpack) = [
                ("{path}", "{archive}/{entry}"),
                ("{dir}/{name}", "{archive}/{entry}"),
                ("x/{dir}{name}", "{archive}{entry}"),
                ("{path}", "a/{entry}"),
                ("{run_id}/{path}", "{entry}"),
            ][template];
            let paths: Vec<Vec<u8>> = paths.into_iter().map(String::into_bytes).collect();
            let paths: Vec<&[u8]> = paths.iter().map(Vec::as_slice).collect();
            let plan = planned(&paths, keys, Some(unpack));
            let run = super::super::tests::run();
            let keys: KeyTemplate = keys.parse().unwrap();
            let unpack: UnpackTemplate = unpack.parse().unwrap();
            let prefixes: Vec<String> =
                plan.files.iter().map(|file| keys.prefix(&unpack.prefix(&file.relative), run.start, run.id)).collect();
            for (i, file) in plan.files.iter().enumerate() {
                let meets = (0..plan.files.len()).any(|j| {
                    let (one, other) = (&prefixes[i], &prefixes[j]);
                    file.key.as_str().starts_with(other) || plan.files[j].key.as_str().starts_with(one)
                        || (i != j && (one.starts_with(other) || other.starts_with(one)))
                });
                prop_assert_eq!(file.may_share_key, meets, "{:?}", file);
            }
        }
    }
}
