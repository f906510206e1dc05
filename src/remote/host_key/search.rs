//! Which of a server's several host keys to have it present.
//!
//! A server shows one key for each connection, of the first type it is asked for that it has (RFC 4253 §7.1). A pinned key
//! says its type, a pinned fingerprint does not; so where one is pinned, a connection whose key is not trusted is made again
//! and asks for that type last. A type that comes a second time says that there is no other. Each connection ends at its
//! host key, before anything was sent to the server.

use std::sync::{Mutex, PoisonError};

use super::{HostKey, HostKeyPolicy, TrustedHostKey};
use crate::remote::{Endpoint, Error, Kind};

/// What an engine remembers of its endpoint, so that only its first connection has to search.
#[derive(Debug, Default)]
pub struct KnownType(Mutex<Option<String>>);

/// The search of one connection, try by try.
pub struct Search<'a> {
    endpoint: &'a Endpoint,
    known: &'a KnownType,
    /// What earlier tries were shown, none of it trusted.
    presented: Vec<HostKey>,
}

/// The order in which to ask for host key algorithms, by the names of RFC 4253 §6.6 and RFC 8332.
#[derive(Debug, Clone, Default)]
pub struct Order {
    first: Vec<String>,
    last: Vec<String>,
}

impl KnownType {
    pub fn search<'a>(&'a self, endpoint: &'a Endpoint) -> Search<'a> {
        Search { endpoint, known: self, presented: Vec::new() }
    }
}

impl Search<'_> {
    /// What to ask for in the next try.
    pub fn order(&self) -> Order {
        let known = self.known.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let names = |key_type: &str| signed_as(key_type).into_iter().map(str::to_owned).collect::<Vec<_>>();
        let pinned = self.endpoint.host_keys.preferred_algorithms().into_iter().map(str::to_owned);
        Order {
            first: known.iter().flat_map(|key_type| names(key_type)).chain(pinned).collect(),
            last: self.presented.iter().flat_map(|key| names(&key.algorithm)).collect(),
        }
    }

    /// A try ended with `error`, after the server had `presented` a key or not. Returns where another try may help,
    /// else with the error that says all.
    pub fn failed(&mut self, error: Error, presented: Option<HostKey>) -> Result<(), Error> {
        let Endpoint { host, port, host_keys, .. } = self.endpoint;
        match (error.kind, presented) {
            (Kind::HostKey, Some(key)) => {
                let is_new_type = self.presented.iter().all(|seen| seen.algorithm != key.algorithm);
                if !self.presented.contains(&key) {
                    self.presented.push(key);
                }
                if is_new_type && host_keys.has_fingerprint() {
                    return Ok(());
                }
                Err(host_keys.refusal(&self.presented, host, *port))
            }
            _ => Err(error),
        }
    }

    /// The try was shown this key, which is trusted.
    pub fn succeeded(self, presented: &HostKey) {
        *self.known.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(presented.algorithm.clone());
    }
}

impl Order {
    /// Where an algorithm comes, the least first; those that are equal as they were.
    pub fn rank(&self, algorithm: &str) -> usize {
        if self.last.iter().any(|name| name == algorithm) {
            return usize::MAX;
        }
        self.first.iter().position(|name| name == algorithm).unwrap_or(self.first.len())
    }
}

/// What signatures of a type of key are called: an RSA key has three names (RFC 8332 §3).
pub(super) fn signed_as(key_type: &str) -> Vec<&str> {
    match key_type {
        "ssh-rsa" => vec!["rsa-sha2-512", "rsa-sha2-256", "ssh-rsa"],
        other => vec![other],
    }
}

impl HostKeyPolicy {
    fn has_fingerprint(&self) -> bool {
        matches!(self, Self::Strict(trusted) if trusted.iter().any(|key| matches!(key, TrustedHostKey::Fingerprint(_))))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::remote::Credentials;

    fn key(algorithm: &str) -> HostKey {
        HostKey { algorithm: algorithm.to_owned(), blob: algorithm.into() }
    }

    fn endpoint(trusted: TrustedHostKey) -> Endpoint {
        Endpoint {
            host: "h".into(),
            port: 22,
            credentials: Credentials { username: "u".into(), password: None, private_key: None },
            host_keys: HostKeyPolicy::Strict(vec![trusted]),
            connect_timeout: Duration::from_secs(1),
            idle_timeout: Duration::from_secs(1),
        }
    }

    fn not_trusted() -> Error {
        Error::new(Kind::HostKey, "not trusted")
    }

    #[test]
    fn each_type_comes_last_once_its_key_was_not_the_pinned_one_and_all_are_told_at_the_end() {
        let endpoint = endpoint(TrustedHostKey::Fingerprint([7; 32]));
        let known = KnownType::default();
        let mut search = known.search(&endpoint);
        assert_eq!(search.order().rank("ssh-ed25519"), search.order().rank("ecdsa-sha2-nistp256"));
        for key_type in ["ssh-ed25519", "ssh-rsa"] {
            search.failed(not_trusted(), Some(key(key_type))).expect("another try");
        }
        let order = search.order();
        for last in ["ssh-ed25519", "ssh-rsa", "rsa-sha2-256", "rsa-sha2-512"] {
            assert!(order.rank("ecdsa-sha2-nistp256") < order.rank(last), "{last}");
        }

        let error = search.failed(not_trusted(), Some(key("ssh-rsa"))).expect_err("the end");
        assert_eq!(error.kind, Kind::HostKey);
        for key_type in ["ssh-ed25519", "ssh-rsa"] {
            assert_eq!(error.to_string().matches(&key(key_type).fingerprint()).count(), 1, "{error}");
        }
    }

    #[test]
    fn a_pinned_key_leaves_nothing_to_search_for_and_other_errors_stay_what_they_are() {
        let by_key = endpoint(TrustedHostKey::Key(key("ssh-rsa")));
        let known = KnownType::default();
        assert!(known.search(&by_key).failed(not_trusted(), Some(key("ssh-ed25519"))).is_err());

        let by_fingerprint = endpoint(TrustedHostKey::Fingerprint([7; 32]));
        for kind in [Kind::Unreachable, Kind::Lost, Kind::Auth, Kind::HostKey] {
            for presented in [false, true] {
                let mut search = known.search(&by_fingerprint);
                if presented {
                    search.failed(not_trusted(), Some(key("ssh-ed25519"))).expect("another try");
                }
                let error = search.failed(Error::new(kind, "so it is"), None).expect_err("no key was shown");
                assert_eq!((error.kind, error.to_string().as_str()), (kind, "so it is"));
            }
        }
    }

    #[test]
    fn the_type_that_was_trusted_comes_first_the_next_time() {
        let endpoint = endpoint(TrustedHostKey::Fingerprint([7; 32]));
        let known = KnownType::default();
        known.search(&endpoint).succeeded(&key("ssh-rsa"));
        let order = known.search(&endpoint).order();
        assert_eq!(order.rank("rsa-sha2-512"), 0);
        assert!(order.rank("ssh-ed25519") > order.rank("ssh-rsa"));
    }
}
