//! The Rust half of the Python package `modelseal`: thin classes over the facade, for what is written in Python beside it.
//!
//! Every call that reads, decrypts or reaches out lets go of the interpreter while it works; the classes are frozen and can
//! be shared by any number of threads, with or without a global interpreter lock.

mod arena;
mod attest;
mod buffer;
#[cfg(feature = "dev-kbs")]
mod dev_kbs;
mod error;
mod key;
mod license;
mod model;
mod seal;
mod shared;
mod tensors;
mod wait;

/// The module, whose parts `modelseal` offers to programs.
#[pyo3::pymodule(gil_used = false)]
mod _modelseal {
    use std::ffi::OsString;

    use pyo3::prelude::*;

    #[pymodule_export]
    use super::arena::prefer_huge_pages;
    #[pymodule_export]
    use super::attest::{evidence, get_resource};
    #[pymodule_export]
    use super::buffer::Memory;
    #[cfg(feature = "dev-kbs")]
    #[pymodule_export]
    use super::dev_kbs::DevKbs;
    #[pymodule_export]
    use super::error::{
        AttestationError, AuthenticationError, FormatError, LicenseError, ModelsealError, ModelsealWarning,
    };
    #[pymodule_export]
    use super::license::{
        add_license_file, check_license, generate_issuer_key, issue_license, machine, show_licenses,
    };
    #[pymodule_export]
    use super::model::{Entry, File, Model, change_password, inspect, locate, open, verify_without_key};
    #[pymodule_export]
    use super::seal::{reseal, seal, sign_manifest, unseal};
    #[pymodule_export]
    use super::shared::{SealMember, SharedSeal};
    #[pymodule_export]
    use super::tensors::{Stream, Tensors};

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }

    /// Runs the `modelseal` command in this process, which it takes as its own. Returns what that is to end with.
    #[pyfunction]
    fn command(args: Vec<OsString>) -> u8 {
        // Without letting go of the interpreter: no other thread may run.
        modelseal::command::run(args)
    }
}
