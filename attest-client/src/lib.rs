#![doc = include_str!("../README.md")]

mod aael;
mod admin;
pub mod canonical;
mod clock;
#[cfg(feature = "dev-kbs")]
pub mod dev_kbs;
pub mod error;
pub mod event_log;
pub mod evidence;
mod guest;
mod http;
mod jwe;
mod kbs;
mod lock;
pub mod messages;
pub mod quote;
mod reader;
mod resource;
pub mod runtime_measurement;
mod shown;
mod tee_key;

pub use aael::{AaelEvent, AaelFormat};
pub use admin::{Admin, AdminBuilder};
pub use clock::{Clock, SystemClock};
pub use error::{Error, Result};
pub use evidence::{EvidenceProvider, EvidenceRequest, SampleEvidence, TdxEvidence};
pub use guest::GuestClient;
pub use kbs::{KbsClient, KbsClientBuilder};
pub use messages::ProtocolVersion;
pub use quote::{Measurements, Quote};
pub use resource::ResourceUri;
pub use runtime_measurement::{MeasurementLog, RuntimeMeasurement};
pub use tee_key::{TeeKey, TeeKeyKind};
