//! Who may log in and how (RFC 4252, RFC 4256), and what a logged-in client may ask SSH for: the `sftp` subsystem.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use russh::keys::PublicKey;
use russh::server::{Auth, ChannelOpenHandle, Handler, Msg, PublicKeyOffer, Response, Session, VerifiedPublicKey};
use russh::{Channel, ChannelId, MethodKind, MethodSet};

use super::stats::Attempt;
use super::{Shared, session};

/// A login method that the server can ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Asking which methods there are.
    None,
    Password,
    PublicKey,
    KeyboardInteractive,
}

impl Method {
    fn kind(self) -> MethodKind {
        match self {
            Self::None => MethodKind::None,
            Self::Password => MethodKind::Password,
            Self::PublicKey => MethodKind::PublicKey,
            Self::KeyboardInteractive => MethodKind::KeyboardInteractive,
        }
    }
}

/// The one user of a server.
#[derive(Clone)]
pub struct Account {
    pub user: String,
    pub password: String,
    pub key: Option<PublicKey>,
    /// As OpenSSH's `AuthenticationMethods`: any one of these lists, all of it, in its order.
    pub ways: Vec<Vec<Method>>,
}

impl Account {
    /// Logs in by password alone.
    pub fn password(user: &str, password: &str) -> Self {
        Self { user: user.into(), password: password.into(), key: None, ways: vec![vec![Method::Password]] }
    }

    pub fn ways(mut self, ways: &[&[Method]]) -> Self {
        self.ways = ways.iter().map(|way| way.to_vec()).collect();
        self
    }

    pub fn key(mut self, key: PublicKey) -> Self {
        self.key = Some(key);
        self
    }

    pub(super) fn first_methods(&self) -> MethodSet {
        self.next_methods(&[])
    }

    /// What may follow `done`.
    fn next_methods(&self, done: &[Method]) -> MethodSet {
        let mut methods = MethodSet::empty();
        for way in self.ways.iter().filter(|way| way.starts_with(done)) {
            if let Some(next) = way.get(done.len()) {
                methods.push(next.kind());
            }
        }
        methods
    }
}

/// One connection before and after login.
pub(super) struct Login {
    connection: u64,
    shared: Arc<Shared>,
    /// Methods that succeeded so far.
    done: Vec<Method>,
    channels: HashMap<ChannelId, Channel<Msg>>,
}

impl Login {
    pub(super) fn new(connection: u64, shared: Arc<Shared>) -> Self {
        Self { connection, shared, done: Vec::new(), channels: HashMap::new() }
    }

    /// The verdict on one credential, `right` or not, by one method.
    fn judge(&mut self, user: &str, method: Method, right: bool) -> Auth {
        let account = &self.shared.account;
        let mut then = self.done.clone();
        then.push(method);
        let right = right && user == account.user && account.ways.iter().any(|way| way.starts_with(&then));
        self.shared.stats.attempted(Attempt { user: user.to_owned(), method, right });
        if right {
            self.done = then;
            if account.ways.contains(&self.done) {
                return Auth::Accept;
            }
        }
        Auth::Reject { proceed_with_methods: Some(account.next_methods(&self.done)), partial_success: right }
    }
}

impl Handler for Login {
    type Error = russh::Error;

    async fn authentication_banner(&mut self) -> Result<Option<String>, Self::Error> {
        Ok(self.shared.banner.clone())
    }

    async fn auth_none(&mut self, user: &str) -> Result<Auth, Self::Error> {
        Ok(self.judge(user, Method::None, true))
    }

    async fn auth_password(&mut self, user: &str, password: &str) -> Result<Auth, Self::Error> {
        let right = password == self.shared.account.password;
        Ok(self.judge(user, Method::Password, right))
    }

    async fn auth_publickey_offered(&mut self, user: &str, offer: PublicKeyOffer<'_>) -> Result<Auth, Self::Error> {
        let known = self.shared.account.key.as_ref().is_some_and(|key| key.key_data() == offer.public_key.key_data());
        if known { Ok(Auth::Accept) } else { Ok(self.judge(user, Method::PublicKey, false)) }
    }

    async fn auth_publickey(&mut self, user: &str, key: VerifiedPublicKey<'_>) -> Result<Auth, Self::Error> {
        let known = self.shared.account.key.as_ref().is_some_and(|known| known.key_data() == key.public_key.key_data());
        Ok(self.judge(user, Method::PublicKey, known))
    }

    async fn auth_keyboard_interactive<'a>(
        &'a mut self,
        user: &str,
        _submethods: &str,
        response: Option<Response<'a>>,
    ) -> Result<Auth, Self::Error> {
        let Some(mut response) = response else {
            return Ok(Auth::Partial {
                name: Cow::Borrowed("Login"),
                instructions: Cow::Borrowed(""),
                prompts: Cow::Borrowed(&[(Cow::Borrowed("Password: "), false)]),
            });
        };
        let right = response.next().is_some_and(|answer| answer == self.shared.account.password.as_bytes());
        Ok(self.judge(user, Method::KeyboardInteractive, right))
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.channels.insert(channel.id(), channel);
        reply.accept().await;
        Ok(())
    }

    async fn subsystem_request(&mut self, id: ChannelId, name: &str, session: &mut Session) -> Result<(), Self::Error> {
        match self.channels.remove(&id) {
            Some(channel) if name == "sftp" => {
                session.channel_success(id)?;
                self.shared.stats.sessions.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(session::serve(channel.into_stream(), self.connection, self.shared.clone()));
            }
            _ => {
                self.shared.stats.other_requests.fetch_add(1, Ordering::SeqCst);
                session.channel_failure(id)?;
            }
        }
        Ok(())
    }

    async fn shell_request(&mut self, id: ChannelId, session: &mut Session) -> Result<(), Self::Error> {
        self.shared.stats.other_requests.fetch_add(1, Ordering::SeqCst);
        session.channel_failure(id)
    }

    async fn exec_request(&mut self, id: ChannelId, _: &[u8], session: &mut Session) -> Result<(), Self::Error> {
        self.shared.stats.other_requests.fetch_add(1, Ordering::SeqCst);
        session.channel_failure(id)
    }
}
