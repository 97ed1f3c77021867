//! Options for models in object storage.

use std::path::PathBuf;

use crate::ObjectOptions;
use clap::{Args as ClapArgs, ValueHint};

#[derive(Debug, ClapArgs)]
#[command(next_help_heading = "Options for object storage")]
pub(crate) struct Objects {
    /// Where an S3-compatible service is, http(s)://HOST[:PORT]; else AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL
    #[arg(long, global = true, value_name = "URL", env = "MODELSEAL_S3_ENDPOINT", value_hint = ValueHint::Url)]
    s3_endpoint: Option<String>,
    /// The region of s3:// locations; else AWS_REGION, AWS_DEFAULT_REGION or that of the profile
    #[arg(long, global = true, value_name = "REGION", env = "MODELSEAL_S3_REGION")]
    s3_region: Option<String>,
    /// Whether the bucket is part of the host's name, as some S3-compatible services want it
    #[arg(
        long,
        global = true,
        value_name = "BOOL",
        num_args = 0..=1,
        default_missing_value = "true",
        require_equals = true,
        env = "MODELSEAL_S3_VIRTUAL_HOSTED"
    )]
    s3_virtual_hosted: Option<bool>,
    /// PEM file of the CA that signed the certificate of the object storage; else AWS_CA_BUNDLE for s3://
    #[arg(long, global = true, value_name = "FILE", env = "MODELSEAL_STORAGE_CA", value_hint = ValueHint::FilePath)]
    storage_ca: Option<PathBuf>,
    /// What one request to object storage is for, in MiB
    #[arg(
        long,
        global = true,
        value_name = "MIB",
        default_value_t = 8,
        env = "MODELSEAL_PART_SIZE",
        value_parser = clap::value_parser!(u16).range(1..=1024)
    )]
    part_size: u16,
    /// Requests to object storage that are under way at once
    #[arg(
        long,
        global = true,
        value_name = "N",
        default_value_t = 64,
        env = "MODELSEAL_CONNECTIONS",
        value_parser = clap::value_parser!(u16).range(1..=1024)
    )]
    connections: u16,
}

impl Objects {
    /// How object storage is reached.
    pub(super) fn options(&self) -> ObjectOptions {
        let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        ObjectOptions {
            endpoint: given(&self.s3_endpoint),
            region: given(&self.s3_region),
            virtual_hosted: self.s3_virtual_hosted,
            ca: self
                .storage_ca
                .clone()
                .filter(|path| !path.as_os_str().is_empty()),
            part_len: u64::from(self.part_size) << 20,
            connections: usize::from(self.connections),
        }
    }
}
