//! Clients of the services: what the options say, else the environment and the files that each service's own tools read.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey};
use object_store::http::HttpBuilder;
use object_store::multipart::MultipartStore;
use object_store::path::Path as Key;
use object_store::{BackoffConfig, Certificate, ClientConfigKey, ClientOptions, ObjectStore, RetryConfig};

use super::bounded::Bounded;
use super::error::io_error;
use super::profile::Profile;
use super::url::{ObjectUrl, Scheme};
use crate::storage::ObjectOptions;

/// Longest wait for a connection, and for all of one answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(300);

/// How long what may pass is tried again.
const RETRIES: usize = 8;
const RETRY_TIMEOUT: Duration = Duration::from_secs(120);

/// How a location is reached.
pub(super) struct Connected {
    pub(super) client: Arc<dyn ObjectStore>,
    /// Where parts are uploaded to, if the service takes any.
    pub(super) multipart: Option<Arc<dyn MultipartStore>>,
    /// What the keys of its objects begin with.
    pub(super) prefix: Key,
}

impl Connected {
    /// A service that objects are written to as well.
    fn writable(client: impl ObjectStore + MultipartStore, url: &ObjectUrl) -> io::Result<Self> {
        let client = Arc::new(client);
        let prefix =
            Key::parse(&url.path).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        Ok(Self {
            client: client.clone(),
            multipart: Some(client),
            prefix,
        })
    }
}

/// A client by a builder that knows where; the builders have no trait in common.
#[cfg(any(feature = "gcs", feature = "azure"))]
macro_rules! built {
    ($builder:expr, $options:expr) => {
        $builder
            .with_client_options(client_options($options.ca.as_deref(), false)?)
            .with_retry(retry())
            .with_http_connector(Bounded)
            .build()
            .map_err(io_error)?
    };
}

/// A client for the location.
pub(super) fn connect(url: &ObjectUrl, options: &ObjectOptions) -> io::Result<Connected> {
    match url.scheme {
        Scheme::Http | Scheme::Https => {
            let plain = url.scheme == Scheme::Http;
            let scheme = if plain { "http" } else { "https" };
            let client = HttpBuilder::new()
                .with_url(format!("{scheme}://{}/{}", url.host, url.path))
                .with_client_options(client_options(options.ca.as_deref(), plain)?)
                .with_retry(retry())
                .with_http_connector(Bounded)
                .build()
                .map_err(io_error)?;
            Ok(Connected {
                client: Arc::new(client),
                multipart: None,
                prefix: Key::default(),
            })
        }
        Scheme::S3 => Connected::writable(s3(url, options)?, url),
        #[cfg(feature = "gcs")]
        Scheme::Gs => {
            let builder =
                object_store::gcp::GoogleCloudStorageBuilder::from_env().with_bucket_name(&url.host);
            Connected::writable(built!(builder, options), url)
        }
        #[cfg(feature = "azure")]
        Scheme::Az => {
            let builder =
                object_store::azure::MicrosoftAzureBuilder::from_env().with_container_name(&url.host);
            Connected::writable(built!(builder, options), url)
        }
    }
}

fn retry() -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig::default(),
        max_retries: RETRIES,
        retry_timeout: RETRY_TIMEOUT,
    }
}

/// A client for S3: what the options say, else the environment, else the profile.
fn s3(url: &ObjectUrl, options: &ObjectOptions) -> io::Result<AmazonS3> {
    use AmazonS3ConfigKey as Setting;
    let mut builder = AmazonS3Builder::from_env()
        .with_bucket_name(&url.host)
        .with_retry(retry())
        .with_http_connector(Bounded);
    let profile = Profile::from_files()?;
    let is_set = |builder: &AmazonS3Builder, key| {
        builder
            .get_config_value(&key)
            .is_some_and(|value| !value.is_empty())
    };
    let has_credentials = [
        Setting::AccessKeyId,
        Setting::WebIdentityTokenFile,
        Setting::ContainerCredentialsRelativeUri,
        Setting::ContainerCredentialsFullUri,
    ]
    .into_iter()
    .any(|key| is_set(&builder, key));
    if !has_credentials
        && let (Some(id), Some(secret)) = (
            profile.get("aws_access_key_id"),
            profile.get("aws_secret_access_key"),
        )
    {
        builder = builder.with_access_key_id(id).with_secret_access_key(secret);
        if let Some(token) = profile.get("aws_session_token") {
            builder = builder.with_token(token);
        }
    }
    if let Some(region) = &options.region {
        builder = builder.with_region(region);
    } else if !is_set(&builder, Setting::Region)
        && !is_set(&builder, Setting::DefaultRegion)
        && let Some(region) = profile.get("region")
    {
        builder = builder.with_region(region);
    }
    if let Some(hosted) = options.virtual_hosted {
        builder = builder.with_virtual_hosted_style_request(hosted);
    }
    let given = |key| builder.get_config_value(&key).filter(|value| !value.is_empty());
    let endpoint = options
        .endpoint
        .clone()
        .or_else(|| given(Setting::S3Endpoint))
        .or_else(|| given(Setting::Endpoint))
        .or_else(|| profile.get("endpoint_url").map(str::to_owned));
    let mut plain = given(Setting::Client(ClientConfigKey::AllowHttp)).is_some_and(|value| value == "true");
    if let Some(endpoint) = endpoint {
        let endpoint = endpoint.trim_end_matches('/');
        plain |= endpoint.starts_with("http://");
        let hosted = given(Setting::VirtualHostedStyleRequest).is_some_and(|value| value == "true");
        // With the bucket in the host's name, the client wants it there.
        let bucket = format!("://{}.", url.host);
        let endpoint = if hosted && !endpoint.contains(&bucket) {
            endpoint.replacen("://", &bucket, 1)
        } else {
            endpoint.to_owned()
        };
        builder = builder
            .with_config(Setting::S3Endpoint, endpoint.clone())
            .with_endpoint(endpoint);
    }
    let bundle = std::env::var_os("AWS_CA_BUNDLE").filter(|path| !path.is_empty());
    let ca = options.ca.clone().or_else(|| bundle.map(PathBuf::from));
    builder = builder.with_client_options(client_options(ca.as_deref(), plain)?);
    builder.build().map_err(io_error)
}

fn client_options(ca: Option<&Path>, plain: bool) -> io::Result<ClientOptions> {
    let mut client = ClientOptions::new()
        .with_allow_http(plain)
        .with_connect_timeout(CONNECT_TIMEOUT)
        .with_timeout(ANSWER_TIMEOUT)
        .with_pool_max_idle_per_host(1024);
    if let Some(path) = ca {
        let failed = |what: &dyn fmt::Display| {
            io::Error::new(io::ErrorKind::InvalidInput, format!("{}: {what}", path.display()))
        };
        let pem = fs::read(path).map_err(|error| failed(&error))?;
        let certificates = Certificate::from_pem_bundle(&pem).map_err(|error| failed(&error))?;
        if certificates.is_empty() {
            return Err(failed(&"there is no PEM certificate in it"));
        }
        for certificate in certificates {
            client = client.with_root_certificate(certificate);
        }
    }
    Ok(client)
}
