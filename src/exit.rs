//! The one table from outcome to exit code.

/// How a run ended. The README's table is checked against this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Exit {
    Ok,
    Internal,
    Config,
    Partial,
    Secret,
    Auth,
    HostKey,
    Unreachable,
    Directory,
    Destination,
    /// SIGINT.
    Interrupted,
    /// SIGTERM.
    Terminated,
}

impl Exit {
    pub const ALL: [Exit; 12] = [
        Exit::Ok,
        Exit::Internal,
        Exit::Config,
        Exit::Partial,
        Exit::Secret,
        Exit::Auth,
        Exit::HostKey,
        Exit::Unreachable,
        Exit::Directory,
        Exit::Destination,
        Exit::Interrupted,
        Exit::Terminated,
    ];

    /// What the process exits with.
    pub fn code(self) -> u8 {
        match self {
            Exit::Ok => 0,
            Exit::Internal => 1,
            Exit::Config => 2,
            Exit::Partial => 3,
            Exit::Secret => 4,
            Exit::Auth => 5,
            Exit::HostKey => 6,
            Exit::Unreachable => 7,
            Exit::Directory => 8,
            Exit::Destination => 9,
            Exit::Interrupted => 130,
            Exit::Terminated => 143,
        }
    }

    /// `exit-name` of the last record.
    pub fn name(self) -> &'static str {
        match self {
            Exit::Ok => "OK",
            Exit::Internal => "INTERNAL",
            Exit::Config => "CONFIG",
            Exit::Partial => "PARTIAL",
            Exit::Secret => "SECRET",
            Exit::Auth => "AUTH",
            Exit::HostKey => "HOST_KEY",
            Exit::Unreachable => "UNREACHABLE",
            Exit::Directory => "DIRECTORY",
            Exit::Destination => "DESTINATION",
            Exit::Interrupted | Exit::Terminated => "INTERRUPTED",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_exits_share_a_code() {
        let mut codes: Vec<u8> = Exit::ALL.iter().map(|exit| exit.code()).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), Exit::ALL.len());
    }
}
