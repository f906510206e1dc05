//! sftp-s3-connector: an SFTP directory into S3, once, with a status.

pub mod checksum;
pub mod config;
pub mod exit;
pub mod failure;
pub mod list;
pub mod logging;
pub mod plan;
pub mod remote;
pub mod report;
pub mod retry;
pub mod secret;
pub mod select;
pub mod shutdown;
pub mod store;
pub mod template;
pub mod transfer;
pub mod units;
