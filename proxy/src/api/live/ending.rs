//! Why the gateway ends a session, and how it says so.

/// Why the gateway ends a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The gateway stops.
    Draining,
    /// Nothing came for long.
    Idle,
    /// It lasted as long as a session may.
    TooLong,
    /// The session cannot go on.
    Broken,
    /// The caller's quota is used up.
    Quota,
}

impl Ending {
    /// What is said to clients.
    pub fn message(self) -> &'static str {
        match self {
            Self::Draining => "the server is stopping; connect again",
            Self::Idle => "the session was idle for too long",
            Self::TooLong => "the session has reached its maximum length",
            Self::Broken => "the session failed",
            Self::Quota => "the quota of audio a day is used up",
        }
    }

    /// The close code where a dialect has none of its own.
    pub fn code(self) -> u16 {
        match self {
            Self::Draining => 1012,
            Self::Idle | Self::TooLong => 1000,
            Self::Broken => 1011,
            Self::Quota => 1008,
        }
    }
}
