//! A key broker in this process, for development and tests.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use modelseal::attest::dev_kbs::{self, Family, Policy};
use modelseal::attest::{Admin, ResourceUri};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::buffer::read_bytes;
use crate::error::raise_attest;

/// A key broker on loopback, until it is closed.
#[pyclass(frozen, module = "modelseal._modelseal")]
pub(crate) struct DevKbs {
    url: String,
    ca: Option<String>,
    admin: Admin,
    /// Until it is closed.
    broker: Mutex<Option<dev_kbs::DevKbs>>,
}

#[pymethods]
impl DevKbs {
    /// Starts one. What it has to say goes to standard error with `verbose`.
    #[new]
    #[pyo3(signature = (*, policy="allow", family="trustee", tls=false, directory=None, verbose=false))]
    fn new(
        py: Python<'_>,
        policy: &str,
        family: &str,
        tls: bool,
        directory: Option<PathBuf>,
        verbose: bool,
    ) -> PyResult<Self> {
        let policy = match policy {
            "allow" => Policy::Allow,
            "deny-sample" => Policy::DenySample,
            "deny" => Policy::Deny,
            _ => {
                return Err(PyValueError::new_err(
                    "policy is none of allow, deny-sample and deny",
                ));
            }
        };
        let family = match family {
            "trustee" => Family::Trustee,
            "openanolis" => Family::Openanolis,
            _ => return Err(PyValueError::new_err("family is neither trustee nor openanolis")),
        };
        py.detach(|| Self::start(policy, family, tls, directory, verbose))
            .map_err(raise_attest)
    }

    /// The broker's URL.
    #[getter]
    fn url(&self) -> &str {
        &self.url
    }

    /// PEM of the authority that signed its certificate, with TLS.
    #[getter]
    fn ca_pem(&self) -> Option<&str> {
        self.ca.as_deref()
    }

    /// Stores a resource, named `repository/type/tag` or `kbs:///repository/type/tag`.
    fn put(&self, py: Python<'_>, name: &str, content: &Bound<'_, PyAny>) -> PyResult<()> {
        let uri = uri(name)?;
        let content = read_bytes(content, |bytes| zeroize::Zeroizing::new(bytes.to_vec()))?;
        py.detach(|| self.admin.set_resource(&uri, &content))
            .map_err(raise_attest)
    }

    /// Deletes a resource.
    fn delete(&self, py: Python<'_>, name: &str) -> PyResult<()> {
        let uri = uri(name)?;
        py.detach(|| self.admin.delete_resource(&uri))
            .map_err(raise_attest)
    }

    /// Ends it, and all that it knew is gone.
    fn close(&self, py: Python<'_>) {
        py.detach(|| {
            let mut broker = self.broker.lock().unwrap_or_else(PoisonError::into_inner);
            drop(broker.take());
        });
    }

    fn __enter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    #[pyo3(signature = (*_exception))]
    fn __exit__(&self, py: Python<'_>, _exception: &Bound<'_, pyo3::types::PyTuple>) {
        self.close(py);
    }

    fn __repr__(&self) -> String {
        format!("DevKbs({:?})", self.url)
    }
}

impl DevKbs {
    fn start(
        policy: Policy,
        family: Family,
        tls: bool,
        directory: Option<PathBuf>,
        verbose: bool,
    ) -> modelseal::attest::Result<Self> {
        let (private, public) = dev_kbs::new_admin_key()?;
        let mut builder = dev_kbs::DevKbs::builder()
            .policy(policy)
            .family(family)
            .admin_key(&public);
        if !verbose {
            builder = builder.notes(|_| ());
        }
        if tls {
            builder = builder.self_signed();
        }
        if let Some(directory) = directory {
            builder = builder.directory(directory);
        }
        let broker = builder.start()?;
        let ca = broker.ca_pem().map(str::to_owned);
        let mut admin = Admin::builder(broker.url()).key_pem(&private);
        if let Some(pem) = &ca {
            admin = admin.add_ca(pem);
        }
        Ok(Self {
            url: broker.url().to_owned(),
            ca,
            admin: admin.build()?,
            broker: Mutex::new(Some(broker)),
        })
    }
}

/// With or without the scheme.
fn uri(name: &str) -> PyResult<ResourceUri> {
    let path = name.strip_prefix("kbs:///").unwrap_or(name);
    ResourceUri::from_path(path).map_err(raise_attest)
}
