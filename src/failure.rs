//! Why a file was not delivered: the record's code and message, and the exit code where the cause has one.

use crate::exit::Exit;

/// `failure-code` of a record. Those that an AWS Transfer Family SFTP connector logs keep its spelling.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FailureCode {
    ConnectionError,
    /// No answer in time.
    TimeoutError,
    ReadFileError,
    WriteFileError,
    ListDirectoryError,
    DirectoryNotFound,
    RetrieveFileNotFound,
    InternalError,
    SourceChanged,
    KeyCollision,
    KeyInvalid,
    ArchiveInvalid,
    ArchivePassword,
    ArchiveLimit,
    /// An entry whose name could lead outside its prefix.
    EntryRefused,
    /// The run was stopped before the file was done.
    Interrupted,
}

impl FailureCode {
    pub const ALL: [FailureCode; 16] = [
        FailureCode::ConnectionError,
        FailureCode::TimeoutError,
        FailureCode::ReadFileError,
        FailureCode::WriteFileError,
        FailureCode::ListDirectoryError,
        FailureCode::DirectoryNotFound,
        FailureCode::RetrieveFileNotFound,
        FailureCode::InternalError,
        FailureCode::SourceChanged,
        FailureCode::KeyCollision,
        FailureCode::KeyInvalid,
        FailureCode::ArchiveInvalid,
        FailureCode::ArchivePassword,
        FailureCode::ArchiveLimit,
        FailureCode::EntryRefused,
        FailureCode::Interrupted,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            FailureCode::ConnectionError => "CONNECTION_ERROR",
            FailureCode::TimeoutError => "TIMEOUT_ERROR",
            FailureCode::ReadFileError => "READ_FILE_ERROR",
            FailureCode::WriteFileError => "WRITE_FILE_ERROR",
            FailureCode::ListDirectoryError => "LIST_DIRECTORY_ERROR",
            FailureCode::DirectoryNotFound => "DIRECTORY_NOT_FOUND",
            FailureCode::RetrieveFileNotFound => "RETRIEVE_FILE_NOT_FOUND",
            FailureCode::InternalError => "INTERNAL_ERROR",
            FailureCode::SourceChanged => "SOURCE_CHANGED",
            FailureCode::KeyCollision => "KEY_COLLISION",
            FailureCode::KeyInvalid => "KEY_INVALID",
            FailureCode::ArchiveInvalid => "ARCHIVE_INVALID",
            FailureCode::ArchivePassword => "ARCHIVE_PASSWORD",
            FailureCode::ArchiveLimit => "ARCHIVE_LIMIT",
            FailureCode::EntryRefused => "ENTRY_REFUSED",
            FailureCode::Interrupted => "INTERRUPTED",
        }
    }
}

/// One file's failure.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    pub code: FailureCode,
    pub message: String,
    /// The run's exit code if every file fails so; `None` where the cause has none of its own.
    pub exit: Option<Exit>,
    /// Whether the same step may succeed when it is tried again.
    pub may_pass: bool,
}

impl Failure {
    /// A failure that trying again does not mend.
    pub fn new(code: FailureCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), exit: None, may_pass: false }
    }

    pub fn interrupted() -> Self {
        Self::new(FailureCode::Interrupted, "the run was stopped before this file was delivered")
    }

    /// The run stopped while the store had a request: nobody knows whether it was done.
    pub fn unanswered() -> Self {
        Self::new(
            FailureCode::Interrupted,
            "the run was stopped before the store had answered; the object may be there, and whole",
        )
    }
}
