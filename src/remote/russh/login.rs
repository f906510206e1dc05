//! Logging in: the methods that the server asks for, as far as the credentials go.
//!
//! A key is offered first, then the password, then the password to each question of keyboard-interactive; where one was
//! accepted and the server wants more, what it wants next. No method that was refused is tried again, for a server
//! may lock the account. No message shows a credential.

use std::sync::Arc;
use std::time::Duration;

use russh::client::{AuthResult, KeyboardInteractiveAuthResponse};
use russh::keys::{HashAlg, PrivateKey, PrivateKeyWithHashAlg};
use russh::{Disconnect, MethodKind, MethodSet};
use secrecy::{ExposeSecret, SecretString};

use super::Stage;
use super::connect::{End, Handle, Watcher};
use crate::remote::{Endpoint, Error, Kind, credentials};

/// Questions that a server may ask in one go at keyboard-interactive.
const ROUNDS: usize = 10;

/// Methods in the order in which they are tried, where the server leaves the choice.
const ORDER: [MethodKind; 3] = [MethodKind::PublicKey, MethodKind::Password, MethodKind::KeyboardInteractive];

/// How long to wait for what an RSA key may be signed with, if the server has not said so by the time that it has
/// answered a request: it will not say so any more (RFC 8308 §2.4).
const SIGNATURES_TOLD_WITHIN: Duration = Duration::from_millis(100);

/// Logs in, and returns the method that succeeded last. `stage` is told while the password waits for its answer.
pub async fn login(
    handle: &mut Handle,
    watcher: &Watcher,
    endpoint: &Endpoint,
    key: Option<&Arc<PrivateKey>>,
    stage: &Stage,
) -> Result<&'static str, Error> {
    let login = Login { handle, watcher, endpoint, key, stage, tried: Vec::new(), accepted: Vec::new() };
    login.run().await
}

struct Login<'a> {
    handle: &'a mut Handle,
    watcher: &'a Watcher,
    endpoint: &'a Endpoint,
    key: Option<&'a Arc<PrivateKey>>,
    stage: &'a Stage,
    tried: Vec<MethodKind>,
    accepted: Vec<MethodKind>,
}

impl Login<'_> {
    async fn run(mut self) -> Result<&'static str, Error> {
        let user = self.endpoint.credentials.username.clone();
        // Learns what is offered without trying anything (RFC 4252 §5.2).
        let answer = self.handle.authenticate_none(user).await;
        let mut answer = self.answer(answer).await?;
        let mut last = MethodKind::None;
        loop {
            let offered = match answer {
                AuthResult::Success => return Ok((&last).into()),
                AuthResult::Failure { remaining_methods, partial_success } => {
                    if partial_success {
                        self.accepted.push(last);
                    }
                    remaining_methods
                }
            };
            let Some(method) = self.next(&offered) else { return Err(self.refused(Some(&offered))) };
            self.tried.push(method);
            last = method;
            answer = self.attempt(method).await?;
        }
    }

    fn next(&self, offered: &MethodSet) -> Option<MethodKind> {
        let credentials = &self.endpoint.credentials;
        ORDER.into_iter().find(|method| {
            let have = match method {
                MethodKind::PublicKey => self.key.is_some(),
                _ => credentials.password.is_some(),
            };
            have && offered.contains(method) && !self.tried.contains(method)
        })
    }

    async fn attempt(&mut self, method: MethodKind) -> Result<AuthResult, Error> {
        let credentials = &self.endpoint.credentials;
        match (method, self.key, &credentials.password) {
            (MethodKind::PublicKey, Some(key), _) => self.with_key(key).await,
            (MethodKind::Password, _, Some(password)) => {
                let (user, password) = (credentials.username.as_str(), password.expose_secret());
                self.stage.set(Stage::PASSWORD);
                let answer = self.handle.authenticate_password(user, password).await;
                self.stage.set(Stage::LOGIN);
                self.answer(answer).await
            }
            (_, _, Some(password)) => self.with_answers(password).await,
            _ => Err(self.refused(None)),
        }
    }

    async fn with_key(&mut self, key: &Arc<PrivateKey>) -> Result<AuthResult, Error> {
        let mut answer = None;
        for hash in self.hashes(key).await {
            let key = PrivateKeyWithHashAlg::new(Arc::clone(key), hash);
            let answered = self.handle.authenticate_publickey(&self.endpoint.credentials.username, key).await;
            let answered = self.answer(answered).await?;
            let refused = matches!(
                &answered,
                AuthResult::Failure { partial_success: false, remaining_methods } if remaining_methods.contains(&MethodKind::PublicKey)
            );
            answer = Some(answered);
            if !refused {
                break;
            }
        }
        answer.ok_or_else(|| self.refused(None))
    }

    /// What to sign with, best first. A server that does not say what it takes is old, and knows only SHA-1, or wrong,
    /// and knows all: so those two are tried first.
    async fn hashes(&self, key: &PrivateKey) -> Vec<Option<HashAlg>> {
        if !key.algorithm().is_rsa() {
            return vec![None];
        }
        match tokio::time::timeout(SIGNATURES_TOLD_WITHIN, self.handle.best_supported_rsa_hash()).await {
            Ok(Ok(Some(hash))) => vec![hash],
            _ => vec![Some(HashAlg::Sha512), None, Some(HashAlg::Sha256)],
        }
    }

    async fn with_answers(&mut self, password: &SecretString) -> Result<AuthResult, Error> {
        let user = self.endpoint.credentials.username.clone();
        let mut answer = self.handle.authenticate_keyboard_interactive_start(user, None::<String>).await;
        for _ in 0..ROUNDS {
            match answer {
                Ok(KeyboardInteractiveAuthResponse::Success) => return Ok(AuthResult::Success),
                Ok(KeyboardInteractiveAuthResponse::Failure { remaining_methods, partial_success }) => {
                    return self.answer(Ok(AuthResult::Failure { remaining_methods, partial_success })).await;
                }
                Ok(KeyboardInteractiveAuthResponse::InfoRequest { prompts, .. }) => {
                    let shown = prompts.iter().map(|prompt| prompt.echo);
                    let answers = credentials::answers(shown, password.expose_secret());
                    answer = self.handle.authenticate_keyboard_interactive_respond(answers).await;
                }
                Err(_) => return Err(self.ended().await),
            }
        }
        let Endpoint { host, port, .. } = self.endpoint;
        let message = format!("{host} port {port} asks more than {ROUNDS} times at keyboard-interactive; giving up");
        Err(Error::new(Kind::Auth, message))
    }

    /// A refusal that names no method comes also from the crate when the connection has ended.
    async fn answer(&mut self, answer: Result<AuthResult, russh::Error>) -> Result<AuthResult, Error> {
        match answer {
            Ok(AuthResult::Failure { remaining_methods, .. }) if remaining_methods.is_empty() => {
                Err(self.ended().await)
            }
            Ok(answer) => Ok(answer),
            Err(_) => Err(self.ended().await),
        }
    }

    /// What became of a connection that ended before the login did.
    async fn ended(&mut self) -> Error {
        // Returns when all is told; a result there is none.
        let _ = (&mut *self.handle).await;
        let Endpoint { host, port, .. } = self.endpoint;
        let end = self.watcher.take_end();
        let refused = match &end {
            Some(End::Failed(russh::Error::NoAuthMethod)) => return self.refused(None),
            Some(End::Disconnected { reason, .. }) => self.is_refusal(reason),
            _ => false,
        };
        let why = end.map_or_else(|| "the server closed the connection".to_owned(), |end| end.to_string());
        if refused {
            return Error::new(Kind::Auth, format!("{}: {why}", self.refused(None)));
        }
        Error::new(Kind::Lost, format!("the connection to {host} port {port} was lost during login: {why}"))
    }

    /// Whether a server that disconnects for this reason means the login. OpenSSH calls too many failures a protocol
    /// error, others call them otherwise; what is left says that the server is busy.
    fn is_refusal(&self, reason: &Disconnect) -> bool {
        match reason {
            Disconnect::AuthCancelledByUser | Disconnect::NoMoreAuthMethodsAvailable | Disconnect::IllegalUserName => {
                true
            }
            Disconnect::ConnectionLost | Disconnect::ServiceNotAvailable | Disconnect::TooManyConnections => false,
            _ => !self.tried.is_empty(),
        }
    }

    fn refused(&self, offered: Option<&MethodSet>) -> Error {
        let Endpoint { host, port, credentials, .. } = self.endpoint;
        let mut message = format!(
            "{host} port {port} refused the login of {:?}: tried {}",
            credentials.username,
            names(&self.tried, "nothing")
        );
        if !self.accepted.is_empty() {
            message.push_str(&format!(", of which it accepted {}", names(&self.accepted, "none")));
        }
        if let Some(offered) = offered {
            message.push_str(&format!("; it offers {}", names(offered, "nothing that is known here")));
        }
        let lacks = match (self.key, &credentials.password) {
            (None, Some(_)) => ". The secret has a Password and no PrivateKey",
            (Some(_), None) => ". The secret has a PrivateKey and no Password",
            (None, None) => ". The secret has neither a Password nor a PrivateKey",
            (Some(_), Some(_)) => "",
        };
        message.push_str(lacks);
        message.push_str(". Check Username, Password and PrivateKey in the secret, and that the server knows the key");
        Error::new(Kind::Auth, message)
    }
}

fn names(methods: &[MethodKind], none: &str) -> String {
    if methods.is_empty() {
        return none.to_owned();
    }
    let names: Vec<&str> = methods.iter().map(Into::into).collect();
    names.join(", ")
}
