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
}
