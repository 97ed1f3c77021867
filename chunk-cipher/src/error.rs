//! What can go wrong.

use std::io;

use crate::kdf::ScryptParams;

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What can go wrong while sealing and opening chunks.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A tag did not verify.
    #[error("authentication failed: the data was altered, or the key is another one")]
    Authentication,
    /// A chunk did not verify.
    #[error("chunk {chunk} is damaged: authentication failed")]
    Chunk {
        /// Index of the chunk in its file, from 0.
        chunk: u64,
    },
    /// A key, nonce or buffer has the wrong length.
    #[error("{what} is {actual} bytes long, must be {expected}")]
    Length {
        /// What has the wrong length.
        what: &'static str,
        /// The length that it must have, in bytes.
        expected: usize,
        /// The length that it has, in bytes.
        actual: usize,
    },
    /// More data than one key or one call may take.
    #[error("input or output is longer than the algorithm allows")]
    TooLong,
    /// A plaintext length or range that does not fit its file.
    #[error("range of {len} bytes at offset {offset} is outside of the file of {file_len} bytes")]
    Range {
        /// First byte asked for.
        offset: u64,
        /// Number of bytes asked for.
        len: u64,
        /// Length of the file's plaintext in bytes.
        file_len: u64,
    },
    /// scrypt parameters take more memory than the limit.
    #[error(
        "scrypt with N = 2^{}, r = {}, p = {} takes {} MiB of memory, the limit is {} MiB; \
         raise the limit if you trust where the parameters come from",
        params.log_n, params.r, params.p, memory >> 20, max_memory >> 20
    )]
    ScryptLimit {
        /// The parameters.
        params: ScryptParams,
        /// Memory that they take, in bytes.
        memory: u64,
        /// The limit, in bytes.
        max_memory: u64,
    },
    /// scrypt parameters take more time than the limit.
    #[error(
        "scrypt with N = 2^{}, r = {}, p = {} takes too much time for the memory limit; \
         raise the limit if you trust where the parameters come from",
        params.log_n, params.r, params.p
    )]
    ScryptWork {
        /// The parameters.
        params: ScryptParams,
    },
    /// scrypt parameters that RFC 7914 does not allow.
    #[error("scrypt parameters N = 2^{}, r = {}, p = {} are not valid", params.log_n, params.r, params.p)]
    ScryptParams {
        /// The parameters.
        params: ScryptParams,
    },
    /// Memory ran out.
    #[error("out of memory")]
    OutOfMemory,
    /// The operating system gave no random bytes.
    #[error("the operating system gave no random bytes")]
    Random {
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The source ended early or changed while it was read.
    #[error("the file changed while it was read")]
    Changed,
    /// The caller called it off.
    #[error("cancelled")]
    Cancelled,
    /// Reading failed.
    #[error("reading {len} bytes at offset {offset} failed")]
    Read {
        /// First stored byte of the read that failed.
        offset: u64,
        /// Its length in bytes.
        len: usize,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Writing failed.
    #[error("writing {len} bytes at offset {offset} failed")]
    Write {
        /// First stored byte of the write that failed.
        offset: u64,
        /// Its length in bytes.
        len: usize,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The threads could not be started.
    #[error("the worker threads could not be started")]
    Threads {
        /// Why.
        #[source]
        source: io::Error,
    },
}
