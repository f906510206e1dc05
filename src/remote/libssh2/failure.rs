//! What libssh2's codes mean to the rest of the program. Chosen by code alone; the text is libssh2's.

use libssh2_sys as raw;
use ssh2::ErrorCode;

use crate::remote::{Error, Kind};

pub const NO_ANSWER: &str = "no answer within CONNECT_TIMEOUT";

/// The kind of a request's failure on a connection that was good before.
pub fn kind(error: &ssh2::Error) -> Kind {
    match error.code() {
        ErrorCode::SFTP(raw::LIBSSH2_FX_NO_SUCH_FILE | raw::LIBSSH2_FX_NO_SUCH_PATH) => Kind::NotFound,
        ErrorCode::SFTP(raw::LIBSSH2_FX_PERMISSION_DENIED) => Kind::Denied,
        // A reply that is not as it must be leaves libssh2 without a status; what follows it cannot be relied on.
        ErrorCode::SFTP(raw::LIBSSH2_FX_NO_CONNECTION | raw::LIBSSH2_FX_CONNECTION_LOST | 0) => Kind::Lost,
        ErrorCode::SFTP(_) => Kind::Failed,
        ErrorCode::Session(_) => Kind::Lost,
    }
}

/// `what` is what was tried, `reading the directory` or the like.
pub fn of(what: &str, error: &ssh2::Error) -> Error {
    timely(error, Error::new(kind(error), format!("{what}: {}", error.message())))
}

/// `error`, said to be for want of time where libssh2 says so.
pub fn timely(libssh2: &ssh2::Error, error: Error) -> Error {
    let timed_out = libssh2.code() == ErrorCode::Session(raw::LIBSSH2_ERROR_TIMEOUT);
    if timed_out { error.for_want_of_time() } else { error }
}

/// Words for a failed read, of what `ssh2` and what the session say of it.
pub fn of_read(error: &std::io::Error, session: Option<&ssh2::Error>) -> String {
    // What `ssh2` says where there is no status that the server could have sent.
    const NO_STATUS: &str = "unknown error";
    let words = error.to_string();
    match session {
        Some(session) if words == NO_STATUS => format!(
            "reading the file: libssh2 cannot go on ({}). It takes no reply with less data than was asked for, as some \
             servers send: set SFTP_ENGINE=russh, which does",
            session.message()
        ),
        _ => format!("reading the file: {words}"),
    }
}

/// A failed key exchange: the server closed or timed out, has no algorithm in common with us, or is not who it claims.
pub fn of_handshake(url: &str, error: &ssh2::Error) -> Error {
    let (kind, why) = match error.code() {
        ErrorCode::Session(raw::LIBSSH2_ERROR_TIMEOUT) => (Kind::Unreachable, NO_ANSWER),
        ErrorCode::Session(
            raw::LIBSSH2_ERROR_KEX_FAILURE
            | raw::LIBSSH2_ERROR_METHOD_NONE
            | raw::LIBSSH2_ERROR_METHOD_NOT_SUPPORTED
            | raw::LIBSSH2_ERROR_ALGO_UNSUPPORTED,
        ) => (Kind::Unreachable, "no algorithm in common with the server"),
        ErrorCode::Session(raw::LIBSSH2_ERROR_HOSTKEY_INIT | raw::LIBSSH2_ERROR_HOSTKEY_SIGN) => {
            (Kind::HostKey, "the server did not prove that it has the host key it presented")
        }
        _ => (Kind::Lost, "the server ended the connection before the keys were exchanged"),
    };
    timely(error, Error::new(kind, format!("cannot connect to {url}: {why} (libssh2: {})", error.message())))
}

/// Whether the server refused a login method, rather than failed.
pub fn is_refusal(error: &ssh2::Error) -> bool {
    matches!(
        error.code(),
        ErrorCode::Session(
            raw::LIBSSH2_ERROR_AUTHENTICATION_FAILED
                | raw::LIBSSH2_ERROR_PUBLICKEY_UNVERIFIED
                | raw::LIBSSH2_ERROR_PASSWORD_EXPIRED
                // It has no use for the key's type.
                | raw::LIBSSH2_ERROR_METHOD_NOT_SUPPORTED
                | raw::LIBSSH2_ERROR_ALGO_UNSUPPORTED
        )
    )
}

/// Whether the connection ended, by a message of the server or without.
pub fn is_hang_up(error: &ssh2::Error) -> bool {
    matches!(
        error.code(),
        ErrorCode::Session(
            raw::LIBSSH2_ERROR_SOCKET_DISCONNECT | raw::LIBSSH2_ERROR_SOCKET_RECV | raw::LIBSSH2_ERROR_SOCKET_SEND
        )
    )
}

/// The end of a directory, which libssh2's binding reports as an error of its own.
pub fn is_end_of_directory(error: &ssh2::Error) -> bool {
    error.code() == ErrorCode::Session(raw::LIBSSH2_ERROR_FILE)
}
