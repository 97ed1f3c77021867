//! Exceptions.

use std::ffi::OsString;
use std::io;

use modelseal::{Error, ErrorKind, with_causes};
use pyo3::create_exception;
use pyo3::exceptions::{PyException, PyKeyboardInterrupt, PyOSError, PyUserWarning, PyValueError};
use pyo3::prelude::*;
use rustix::io::Errno;

create_exception!(
    modelseal,
    ModelsealError,
    PyException,
    "A sealed model cannot be sealed or opened."
);
create_exception!(
    modelseal,
    AuthenticationError,
    ModelsealError,
    "The key is wrong or cannot be had, or what is stored is not what was sealed."
);
create_exception!(
    modelseal,
    FormatError,
    ModelsealError,
    "What lies there is no sealed model, is incomplete, or is of a kind that is not supported."
);
create_exception!(
    modelseal,
    LicenseError,
    ModelsealError,
    "A license or a signed manifest does not allow it, or is not as it must be."
);
create_exception!(
    modelseal,
    AttestationError,
    ModelsealError,
    "A key broker, the guest's own services or this machine's evidence stand in the way."
);
create_exception!(
    modelseal,
    ModelsealWarning,
    PyUserWarning,
    "Something deserves a person's attention, but is no reason to stop."
);

/// For `map_err`: the exception that an error becomes. Its message has all causes.
pub(crate) fn raise(error: Error) -> PyErr {
    let text = with_causes(&error);
    match error.kind() {
        ErrorKind::Cancelled => PyKeyboardInterrupt::new_err(()),
        ErrorKind::Argument => PyValueError::new_err(text),
        ErrorKind::Key => match (&error, error.io_source()) {
            (Error::Key { reference, .. }, Some(source)) => {
                let name = reference.strip_prefix("file:").unwrap_or(reference);
                os_error(errno(source), text, Some(name.into()))
            }
            (_, Some(source)) => os_error(errno(source), text, None),
            _ => AuthenticationError::new_err(text),
        },
        ErrorKind::Attestation => AttestationError::new_err(text),
        ErrorKind::License => LicenseError::new_err(text),
        ErrorKind::Damaged if matches!(error, Error::Tensors { .. }) => FormatError::new_err(text),
        ErrorKind::Damaged => AuthenticationError::new_err(text),
        ErrorKind::Io | ErrorKind::Occupied => {
            let errno = match (&error, error.io_source()) {
                (Error::NotEmpty { .. }, _) => Errno::NOTEMPTY,
                (Error::Busy { .. }, _) => Errno::BUSY,
                (Error::Resume { .. }, _) => Errno::EXIST,
                (Error::Memory { .. }, _) => Errno::NOMEM,
                (_, Some(source)) => errno(source),
                (_, None) => return ModelsealError::new_err(text),
            };
            // Python adds the path behind.
            let what = match &error {
                Error::Vault { source, .. } => with_causes(source),
                Error::Package { source, .. } => with_causes(source),
                Error::File { source, .. } => with_causes(source),
                _ => text,
            };
            os_error(errno, what, error.path().map(|path| path.as_os_str().to_owned()))
        }
        _ => FormatError::new_err(text),
    }
}

/// For `map_err`: the exception of an error of a package's parts at `path`.
pub(crate) fn raise_package(path: &str) -> impl Fn(modelseal::sam::Error) -> PyErr + use<'_> {
    |source| {
        raise(Error::Package {
            path: path.into(),
            source,
        })
    }
}

/// For `map_err`: the exception of an error of attestation.
pub(crate) fn raise_attest(error: modelseal::attest::Error) -> PyErr {
    AttestationError::new_err(with_causes(&error))
}

/// Python picks the subclass by the number.
fn os_error(errno: Errno, text: String, path: Option<OsString>) -> PyErr {
    let errno = errno.raw_os_error();
    match path {
        Some(path) => PyOSError::new_err((errno, text, path)),
        None => PyOSError::new_err((errno, text)),
    }
}

fn errno(error: &io::Error) -> Errno {
    if let Some(errno) = Errno::from_io_error(error) {
        return errno;
    }
    match error.kind() {
        io::ErrorKind::NotFound => Errno::NOENT,
        io::ErrorKind::PermissionDenied => Errno::ACCESS,
        io::ErrorKind::NotADirectory => Errno::NOTDIR,
        io::ErrorKind::IsADirectory => Errno::ISDIR,
        io::ErrorKind::AlreadyExists => Errno::EXIST,
        io::ErrorKind::InvalidInput => Errno::INVAL,
        io::ErrorKind::TimedOut => Errno::TIMEDOUT,
        io::ErrorKind::ConnectionRefused => Errno::CONNREFUSED,
        io::ErrorKind::ConnectionReset => Errno::CONNRESET,
        io::ErrorKind::OutOfMemory => Errno::NOMEM,
        _ => Errno::IO,
    }
}

/// Warns as `warnings.warn` does. An exception where warnings are errors.
pub(crate) fn warn(py: Python<'_>, texts: impl IntoIterator<Item = String>) -> PyResult<()> {
    let warnings = py.import("warnings")?;
    for text in texts {
        let text = text.trim_start_matches("warning: ");
        // As if it came from the line that called the package.
        warnings.call_method1("warn", (text, py.get_type::<ModelsealWarning>(), 2))?;
    }
    Ok(())
}
