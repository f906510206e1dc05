//! Which keys are claimed, and which more than once. Keys are kept as hashes: millions of them are to fit.

use std::collections::HashSet;
use std::hash::{BuildHasher as _, RandomState};

use crate::template::ObjectKey;

/// What all claims of a run are hashed with: 128 bits, so that two keys do not meet by chance.
#[derive(Debug, Clone, Default)]
pub struct KeyHasher([RandomState; 2]);

impl KeyHasher {
    fn hash(&self, key: &ObjectKey) -> u128 {
        let [high, low] = self.0.each_ref().map(|hasher| u128::from(hasher.hash_one(key)));
        high << 64 | low
    }
}

/// Keys that sources claim.
#[derive(Debug)]
pub struct Claims {
    hasher: KeyHasher,
    claimed: HashSet<u128>,
    contested: HashSet<u128>,
}

impl Claims {
    pub fn new(hasher: &KeyHasher) -> Self {
        Self { hasher: hasher.clone(), claimed: HashSet::new(), contested: HashSet::new() }
    }

    pub fn claim(&mut self, key: &ObjectKey) {
        let hash = self.hasher.hash(key);
        if !self.claimed.insert(hash) {
            self.contested.insert(hash);
        }
    }

    /// Nothing may be stored at this key, however often it is claimed.
    pub fn contest(&mut self, key: &ObjectKey) {
        self.contested.insert(self.hasher.hash(key));
    }

    /// Takes in what another source claims. Both have the same hasher.
    pub fn take_in(&mut self, other: Self) {
        let met: Vec<u128> = other.claimed.into_iter().filter(|hash| !self.claimed.insert(*hash)).collect();
        self.contested.extend(met.into_iter().chain(other.contested));
    }

    /// Forgets the keys that are claimed once.
    pub fn only_contested(self) -> Self {
        Self { claimed: HashSet::new(), ..self }
    }

    pub fn is_contested(&self, key: &ObjectKey) -> bool {
        !self.contested.is_empty() && self.contested.contains(&self.hasher.hash(key))
    }
}
