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

    /// Nothing answers at the broker's address.
    #[error("{url} cannot be reached: {what}")]
    Unreachable {
        /// The address.
        url: String,
        /// What happened, and what to look at.
        what: String,
        /// The system's reason, if it gave one.
        #[source]
        source: Option<std::io::Error>,
    },

    /// No TLS connection, or none to who should be there.
    #[error("no TLS connection to {url}: {what}")]
    Tls {
        /// The address.
        url: String,
        /// What to do.
        what: String,
        /// The reason that TLS gave.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },

    /// The time given was over before there was an answer.
    #[error("no answer in time: {what}")]
    Deadline {
        /// What was waited for.
        what: String,
    },

    /// An answer is longer than what is read.
    #[error("{what} is longer than {max} bytes")]
    TooLarge {
        /// Which one.
        what: &'static str,
        /// Most bytes that are read.
        max: usize,
    },

    /// An answer that the protocol does not have.
    #[error("{what}; is {url} the address of a key broker?")]
    Malformed {
        /// The address.
        url: String,
        /// Which answer, and what is wrong with it.
        what: String,
    },

    /// A status from something between here and the broker, or from something else altogether.
    #[error("{url} answered with status {status}, which is no verdict of a key broker: {what}")]
    Status {
        /// The address.
        url: String,
        /// The HTTP status.
        status: u16,
        /// What to look at.
        what: String,
    },

    /// Broker and client have no version of the protocol in common.
    #[error("the broker speaks version {theirs} of the KBS protocol, and this client {ours} ({detail})")]
    Version {
        /// The broker's, or `another`.
        theirs: String,
        /// Those that this client speaks, or was told to.
        ours: String,
        /// The broker's own words.
        detail: String,
    },

    /// The broker does not take the evidence, or does not begin a handshake.
    #[error("the broker refused to attest ({name}, status {status}: {detail}); likely causes: {causes}")]
    AttestationRefused {
        /// The HTTP status.
        status: u16,
        /// The name of the broker's error.
        name: String,
        /// The broker's own words.
        detail: String,
        /// What mostly is behind it.
        causes: &'static str,
    },

    /// The session or the token is not good for anything, fresh as it is.
    #[error(
        "the broker does not know the session that it has just attested ({name}: {detail}); is it behind a load \
         balancer without stickiness, or a proxy that drops cookies?"
    )]
    SessionLost {
        /// The name of the broker's error.
        name: String,
        /// The broker's own words.
        detail: String,
    },

    /// The attestation token that was given does not serve, and there is no evidence to get another with.
    #[error("the broker does not take the attestation token ({name}: {detail}); it may have expired")]
    TokenRefused {
        /// The name of the broker's error.
        name: String,
        /// The broker's own words.
        detail: String,
    },

    /// The broker's policy does not let this machine have the resource.
    #[error(
        "the broker's policy denies {resource} ({detail}); the evidence was taken, but is not what the resource's \
         policy asks for. Evidence of the kind sample is denied by default"
    )]
    PolicyDenied {
        /// The resource.
        resource: String,
        /// The broker's own words.
        detail: String,
    },

    /// The broker has no such resource.
    #[error("the broker has no {resource}, or its storage failed ({name}: {detail})")]
    ResourceNotFound {
        /// The resource.
        resource: String,
        /// The name of the broker's error.
        name: String,
        /// The broker's own words.
        detail: String,
    },

    /// Another error of the broker's.
    #[error("the broker answered {name} (status {status}: {detail}){hint}")]
    Broker {
        /// The HTTP status.
        status: u16,
        /// The error's name.
        name: String,
        /// The broker's own words.
        detail: String,
        /// What to look at.
        hint: &'static str,
    },

    /// What an owner does would go over the network unprotected.
    #[error("an admin's credentials and resources go over https alone, or to this machine: {url} is neither")]
    PlainHttp {
        /// The address.
        url: String,
    },

    /// The broker does not take the admin's credentials.
    #[error(
        "the broker refused the admin's credentials ({name}: {detail}); it must know the key's public half, and may \
         want another role, issuer or audience in the token"
    )]
    AdminRefused {
        /// The name of the broker's error.
        name: String,
        /// The broker's own words.
        detail: String,
    },

    /// The broker did not store or delete.
    #[error(
        "the broker did not {action} ({detail}); where it keeps resources in a key management service (KMS) it can \
         only read them: make the secret there instead"
    )]
    NotStored {
        /// What it was to do.
        action: String,
        /// What came back, if anything.
        detail: String,
    },

    /// A service in this guest failed.
    #[error("the guest's {service} answered with status {status}: {detail}")]
    Guest {
        /// Which service.
        service: &'static str,
        /// The HTTP status.
        status: u16,
        /// Its own words, and what to look at.
        detail: String,
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

    /// The broker for development cannot run.
    #[cfg(feature = "dev-kbs")]
    #[error("dev-kbs: {what}")]
    DevKbs {
        /// What is wrong.
        what: String,
        /// The system's reason, if it gave one.
        #[source]
        source: Option<std::io::Error>,
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
