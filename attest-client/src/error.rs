//! What can go wrong.

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong while attesting and fetching keys.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The machine gave no evidence.
    #[error("no {tee} evidence: {what}")]
    Evidence {
        /// The kind of evidence that was asked for.
        tee: &'static str,
        /// What went wrong where, and what to do.
        what: String,
        /// The system's reason, if it gave one.
        #[source]
        source: Option<std::io::Error>,
    },

    /// A setting cannot be used.
    #[error("{what}")]
    Config {
        /// Which one, and what it has to be.
        what: &'static str,
    },

    /// The text names no resource.
    #[error("this is not the name of a resource: {what}")]
    ResourceUri {
        /// What is wrong with it.
        what: &'static str,
    },

    /// A TEE key could not be made or read.
    #[error("the TEE key cannot be used: {what}")]
    TeeKey {
        /// What is wrong with it.
        what: &'static str,
    },

    /// What the broker sealed does not open. One error for whatever is wrong with it.
    #[error(
        "what the broker sent does not open with this session's key: it is damaged, or sealed to another key"
    )]
    Jwe,

    /// Bytes that are no TDX quote.
    #[error("the quote {what} (at offset {offset})")]
    Quote {
        /// Where in the quote, in bytes.
        offset: usize,
        /// What is wrong.
        what: &'static str,
    },

    /// Bytes that are no event log.
    #[error("the event log {what} (at offset {offset})")]
    EventLog {
        /// Where in the log, in bytes.
        offset: usize,
        /// What is wrong.
        what: &'static str,
    },

    /// What is about to run could not be measured.
    #[error("nothing was measured: {what}")]
    Measurement {
        /// What went wrong where, and what to do.
        what: String,
        /// The system's reason, if it gave one.
        #[source]
        source: Option<std::io::Error>,
    },
}
