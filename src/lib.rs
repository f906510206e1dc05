//! sftp-s3-connector: an SFTP directory into S3, once, with a status.

pub mod config;
pub mod exit;
pub mod remote;
pub mod secret;
pub mod select;
pub mod template;
pub mod units;
