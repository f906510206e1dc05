//! From a socket to an SFTP session: key exchange, host key, login, in that order and within the deadline.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use secrecy::{ExposeSecret, SecretString};
use ssh2::{KeyboardInteractivePrompt, MethodType, Prompt};

use super::failure;
use super::session::Session;
use crate::remote::host_key::Order;
use crate::remote::{Endpoint, Error, HostKey, Kind, ServerInfo, credentials};

/// AES is done by the processor; libssh2's ChaCha20, which it would ask for first, is not.
const CIPHERS: [&str; 5] =
    ["aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "aes128-ctr", "aes192-ctr", "aes256-ctr"];

const KEY: &str = "publickey";
const PASSWORD: &str = "password";
const KEYBOARD: &str = "keyboard-interactive";

/// Why there is no session, and the host key that was not trusted, where that is why.
pub struct Failed {
    pub error: Error,
    pub presented: Option<HostKey>,
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self { error, presented: None }
    }
}

/// Blocks until the session is ready for requests. `key` is the endpoint's, decoded: OpenSSH text.
pub fn open(
    endpoint: &Endpoint,
    key: Option<&SecretString>,
    host_keys: &Order,
    socket: TcpStream,
    deadline: Instant,
) -> Result<(Session, ServerInfo), Failed> {
    let login = Login { endpoint, key, host_keys, deadline, url: endpoint.url() };
    let hang_up = socket.try_clone().map_err(|error| login.lost(&error))?;
    let mut ssh = ssh2::Session::new().map_err(|error| login.lost(&error))?;
    ssh.set_tcp_stream(socket);
    login.prefer(&ssh)?;

    login.limit(&ssh)?;
    ssh.handshake().map_err(|error| failure::of_handshake(&login.url, &error))?;
    let host_key = login.check_host_key(&ssh)?;
    let login_method = login.authenticate(&ssh)?;

    login.limit(&ssh)?;
    let sftp = ssh.sftp().map_err(|error| {
        Error::new(Kind::Lost, format!("logged in to {}, which then offered no SFTP: {}", login.url, error.message()))
    })?;
    ssh.set_timeout(millis(endpoint.idle_timeout));

    let server = ServerInfo {
        identification: String::from_utf8_lossy(ssh.banner_bytes().unwrap_or_default()).into_owned(),
        banner: ssh.userauth_banner().ok().flatten().map(str::to_owned),
        host_key: Some(host_key),
        algorithms: algorithms(&ssh),
        login_method,
        // The only one that libssh2 speaks; it does not tell the extensions.
        sftp_version: 3,
        extensions: Vec::new(),
    };
    Ok((Session::new(ssh, sftp, hang_up), server))
}

struct Login<'a> {
    endpoint: &'a Endpoint,
    key: Option<&'a SecretString>,
    host_keys: &'a Order,
    deadline: Instant,
    url: String,
}

impl Login<'_> {
    fn lost(&self, why: &dyn std::fmt::Display) -> Error {
        Error::new(Kind::Lost, format!("the connection to {} ended while logging in: {why}", self.url))
    }

    /// Gives the next call the time that is left.
    fn limit(&self, ssh: &ssh2::Session) -> Result<(), Error> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(self.lost(&failure::NO_ANSWER));
        }
        ssh.set_timeout(millis(left));
        Ok(())
    }

    fn prefer(&self, ssh: &ssh2::Session) -> Result<(), Error> {
        let unheard = |error: ssh2::Error| self.lost(&error);
        for direction in [MethodType::CryptCs, MethodType::CryptSc] {
            let ciphers = first(&CIPHERS, &ssh.supported_algs(direction).map_err(unheard)?);
            ssh.method_pref(direction, &ciphers).map_err(unheard)?;
        }
        let mut keys = ssh.supported_algs(MethodType::HostKey).map_err(unheard)?;
        // A certificate is not what is pinned.
        keys.retain(|name| !name.contains("-cert-"));
        keys.sort_by_key(|name| self.host_keys.rank(name));
        ssh.method_pref(MethodType::HostKey, &keys.join(",")).map_err(unheard)
    }

    fn check_host_key(&self, ssh: &ssh2::Session) -> Result<HostKey, Failed> {
        let (blob, _) = ssh.host_key().ok_or_else(|| self.lost(&"the server showed no host key"))?;
        let key = HostKey::from_blob(blob)
            .map_err(|error| Error::new(Kind::HostKey, format!("the host key of {}: {error}", self.url)))?;
        match self.endpoint.host_keys.check(&key, &self.endpoint.host, self.endpoint.port) {
            Ok(()) => Ok(key),
            Err(error) => Err(Failed { error, presented: Some(key) }),
        }
    }

    /// Tries what the server offers and the secret has, each once: key, password, keyboard-interactive. A server that
    /// wants two of them says so by offering the other after the first.
    fn authenticate(&self, ssh: &ssh2::Session) -> Result<&'static str, Error> {
        let mut untried = self.methods();
        let mut tried = Vec::new();
        loop {
            let Some(offered) = self.offered(ssh, &tried)? else { return Ok("none") };
            let before = untried.len();
            // Down the list that was offered before it is asked for again: OpenSSH counts the question as a failed login.
            while let Some(next) = untried.iter().position(|method| offered.split(',').any(|name| name == *method)) {
                let method = untried.remove(next);
                self.limit(ssh)?;
                tried.push(method);
                match self.attempt(ssh, method) {
                    Ok(()) => return Ok(method),
                    Err(error) if failure::is_refusal(&error) => {}
                    Err(error) => return Err(self.ended(&error, &tried)),
                }
            }
            if untried.is_empty() || untried.len() == before {
                // libssh2 calls some calls refused that ran out of time.
                self.limit(ssh)?;
                return Err(self.refused(&tried, &format!("The server {} {offered}", takes(&tried))));
            }
        }
    }

    /// What the secret allows to try, in this order.
    fn methods(&self) -> Vec<&'static str> {
        let mut methods = Vec::new();
        if self.key.is_some() {
            methods.push(KEY);
        }
        if self.endpoint.credentials.password.is_some() {
            methods.extend([PASSWORD, KEYBOARD]);
        }
        methods
    }

    /// Comma-separated; `None` if the server lets everybody in. libssh2 keeps to itself whether a refusal was a partial
    /// success (RFC 4252 §5.1), so this is asked again when what was offered is used up.
    fn offered(&self, ssh: &ssh2::Session, tried: &[&str]) -> Result<Option<String>, Error> {
        self.limit(ssh)?;
        let offered = ssh.auth_methods(&self.endpoint.credentials.username).map(str::to_owned);
        if ssh.authenticated() {
            return Ok(None);
        }
        offered.map(Some).map_err(|error| self.ended(&error, tried))
    }

    /// What a login that ended without an answer is: OpenSSH hangs up on too many failures, so after a try it is refused.
    fn ended(&self, error: &ssh2::Error, tried: &[&str]) -> Error {
        if !tried.is_empty() && failure::is_hang_up(error) {
            return self.refused(tried, "Then the server closed the connection, as after too many failures");
        }
        self.lost(&error.message())
    }

    fn attempt(&self, ssh: &ssh2::Session, method: &str) -> Result<(), ssh2::Error> {
        let username = &self.endpoint.credentials.username;
        let password = self.endpoint.credentials.password.as_ref().map_or("", |password| password.expose_secret());
        match method {
            KEY => {
                let key = self.key.map_or("", |key| key.expose_secret());
                ssh.userauth_pubkey_memory(username, None, key, None)
            }
            PASSWORD => ssh.userauth_password(username, password),
            _ => ssh.userauth_keyboard_interactive(username, &mut Answer(password)),
        }
    }

    /// `then` says what the server did after that.
    fn refused(&self, tried: &[&str], then: &str) -> Error {
        let username = &self.endpoint.credentials.username;
        let tried = if tried.is_empty() { "nothing, as none of it was asked for".into() } else { tried.join(", ") };
        Error::new(
            Kind::Auth,
            format!(
                "{} refused the login of {username:?}. Tried: {tried}. {then}. Check Username, Password and PrivateKey in \
                 the secret, and that the server knows the key.",
                self.url,
            ),
        )
    }
}

fn takes(tried: &[&str]) -> &'static str {
    if tried.is_empty() { "takes" } else { "still takes" }
}

/// Types the password where it is asked for.
struct Answer<'a>(&'a str);

impl KeyboardInteractivePrompt for Answer<'_> {
    fn prompt<'a>(&mut self, _username: &str, _instructions: &str, prompts: &[Prompt<'a>]) -> Vec<String> {
        credentials::answers(prompts.iter().map(|prompt| prompt.echo), self.0)
    }
}

/// `all`, with those of `wanted` that are among them in front.
fn first(wanted: &[&str], all: &[&str]) -> String {
    let front = wanted.iter().filter(|name| all.contains(name));
    let rest = all.iter().filter(|name| !wanted.contains(name));
    front.chain(rest).copied().collect::<Vec<_>>().join(",")
}

fn algorithms(ssh: &ssh2::Session) -> Vec<(&'static str, String)> {
    [
        ("kex", MethodType::Kex),
        ("host-key", MethodType::HostKey),
        ("cipher", MethodType::CryptSc),
        ("mac", MethodType::MacSc),
        ("compression", MethodType::CompSc),
    ]
    .into_iter()
    .filter_map(|(name, method)| Some((name, ssh.methods(method)?.to_owned())))
    // libssh2's word for a cipher that authenticates by itself.
    .filter(|(_, algorithm)| !algorithm.starts_with("INTEGRATED-"))
    .collect()
}

/// For `set_timeout`, to which zero is forever.
fn millis(time: Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX).max(1)
}
