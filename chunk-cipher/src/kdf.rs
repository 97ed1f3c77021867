//! Key derivation that the formats share: scrypt with limits (RFC 7914) and HKDF-SHA256 (RFC 5869).

use hkdf::Hkdf;
use sha2::Sha256;

use crate::error::{Error, Result};

/// Cost parameters of scrypt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScryptParams {
    /// Base-2 logarithm of the CPU and memory cost N.
    pub log_n: u8,
    /// Block size.
    pub r: u32,
    /// Parallelisation.
    pub p: u32,
}

/// Memory that scrypt parameters read from a file may ask for unless the caller says otherwise: 1 GiB, which is
/// N = 2^20 and r = 8, the largest in RFC 7914.
pub const DEFAULT_SCRYPT_MEMORY: u64 = 1 << 30;

/// What parameters may take beyond a limit, so that a limit of 128 r N bytes allows just that N and r.
const SLACK: u64 = 1 << 20;

impl ScryptParams {
    /// Memory that deriving with these parameters takes, in bytes: 128 r (N + p + 2), at most `u64::MAX`.
    #[must_use]
    pub const fn memory(&self) -> u64 {
        if self.log_n > 63 {
            return u64::MAX;
        }
        let blocks = (1_u64 << self.log_n)
            .saturating_add(self.p as u64)
            .saturating_add(2);
        blocks.saturating_mul(128).saturating_mul(self.r as u64)
    }

    /// Work of deriving with these parameters, in units of one N = 1, r = 1, p = 1: N r p.
    const fn work(&self) -> u64 {
        if self.log_n > 63 {
            return u64::MAX;
        }
        (1_u64 << self.log_n)
            .saturating_mul(self.r as u64)
            .saturating_mul(self.p as u64)
    }

    /// Refuses parameters that take more than `max_memory` bytes (and 1 MiB for what is not the large table), or more time than filling that memory
    /// sixteen times would, or that RFC 7914 (section 2) does not allow.
    ///
    /// # Errors
    /// [`Error::ScryptLimit`], [`Error::ScryptWork`] and [`Error::ScryptParams`], in this order.
    pub fn check(&self, max_memory: u64) -> Result<()> {
        let memory = self.memory();
        if memory > max_memory.saturating_add(SLACK) {
            return Err(Error::ScryptLimit {
                params: *self,
                memory,
                max_memory,
            });
        }
        // p repeats the work without taking memory, so it is bounded against the same limit.
        if self.work() / 16 > max_memory / 128 {
            return Err(Error::ScryptWork { params: *self });
        }
        // The backends are not equally strict.
        let blocks = u64::from(self.r) * u64::from(self.p);
        let n_fits = self.log_n > 0 && u32::from(self.log_n) < self.r.saturating_mul(16);
        if n_fits && blocks > 0 && blocks < 1 << 30 {
            Ok(())
        } else {
            Err(Error::ScryptParams { params: *self })
        }
    }
}

/// Fills `out` with scrypt of `password` and `salt`, by AWS-LC where that is built in.
///
/// # Errors
/// [`Error::ScryptLimit`] and [`Error::ScryptWork`] where the parameters cost more than `max_memory` bytes
/// allow, [`Error::ScryptParams`] where they are not valid at all, [`Error::OutOfMemory`].
pub fn scrypt(
    password: &[u8],
    salt: &[u8],
    params: ScryptParams,
    max_memory: u64,
    out: &mut [u8],
) -> Result<()> {
    params.check(max_memory)?;
    #[cfg(feature = "aws-lc")]
    return aws_lc::scrypt(password, salt, params, out);
    #[cfg(not(feature = "aws-lc"))]
    scrypt_portable(password, salt, params, out)
}

/// scrypt by RustCrypto.
#[cfg(any(test, not(feature = "aws-lc")))]
fn scrypt_portable(password: &[u8], salt: &[u8], params: ScryptParams, out: &mut [u8]) -> Result<()> {
    let invalid = Error::ScryptParams { params };
    let Ok(checked) = scrypt::Params::new(params.log_n, params.r, params.p) else {
        return Err(invalid);
    };
    scrypt::scrypt(password, salt, &checked, out).map_err(|_| invalid)
}

#[cfg(feature = "aws-lc")]
#[allow(unsafe_code)]
mod aws_lc {
    use super::{Error, Result, ScryptParams};

    pub(super) fn scrypt(password: &[u8], salt: &[u8], params: ScryptParams, out: &mut [u8]) -> Result<()> {
        // The caller has bounded the memory already; AWS-LC's own bound only has to be no lower.
        let max_memory = usize::try_from(params.memory())
            .unwrap_or(usize::MAX)
            .saturating_mul(2);
        // SAFETY: every pointer is that of a live slice, with its length.
        let ok = unsafe {
            aws_lc_sys::EVP_PBE_scrypt(
                password.as_ptr().cast(),
                password.len(),
                salt.as_ptr(),
                salt.len(),
                1_u64.checked_shl(u32::from(params.log_n)).unwrap_or(0),
                u64::from(params.r),
                u64::from(params.p),
                max_memory,
                out.as_mut_ptr(),
                out.len(),
            )
        };
        if ok == 1 {
            return Ok(());
        }
        // SAFETY: no arguments; touches thread-local state only.
        unsafe { aws_lc_sys::ERR_clear_error() };
        // The parameters were checked; what is left to fail is the allocation.
        Err(Error::OutOfMemory)
    }
}

/// Fills `okm` with HKDF-SHA256 of `ikm`.
///
/// # Errors
/// [`Error::TooLong`] where `okm` is longer than 8160 bytes.
pub fn hkdf_sha256(salt: Option<&[u8]>, ikm: &[u8], info: &[u8], okm: &mut [u8]) -> Result<()> {
    Hkdf::<Sha256>::new(salt, ikm)
        .expand(info, okm)
        .map_err(|_| Error::TooLong)
}

#[cfg(all(test, feature = "aws-lc"))]
mod tests {
    use super::*;

    #[test]
    fn scrypt_backends_agree() {
        for (log_n, r, p) in [
            (1, 1, 1),
            (2, 1, 3),
            (10, 8, 1),
            (8, 3, 5),
            (4, 32, 2),
            (15, 1, 1),
        ] {
            let params = ScryptParams { log_n, r, p };
            for len in [1, 16, 32, 33, 100] {
                let (mut ours, mut portable) = (vec![0; len], vec![1; len]);
                scrypt(b"password", b"salt", params, DEFAULT_SCRYPT_MEMORY, &mut ours).unwrap();
                scrypt_portable(b"password", b"salt", params, &mut portable).unwrap();
                assert_eq!(ours, portable, "{params:?}");
            }
        }
    }
}
