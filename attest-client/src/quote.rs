//! TDX quotes, versions 4 and 5 (Intel TDX DCAP Quoting Library API, appendix A.3), into named fields.
//!
//! Parsing says what a quote claims. Whether Intel's hardware stands behind the claim is for a verifier that has the
//! collateral: nothing here checks a signature.

use std::fmt;

use crate::error::{Error, Result};
use crate::reader::Reader;

/// Length of a TDREPORT in bytes.
pub const TD_REPORT_LEN: usize = 1024;

/// Length of a quote's header in bytes.
const HEADER_LEN: usize = 48;
/// The header's TEE type of TDX.
const TEE_TDX: u32 = 0x81;
/// Attestation key type ECDSA-256 with curve P-256.
const KEY_ECDSA_P256: u16 = 2;
/// Certification data that holds the quoting enclave's report and the inner certification data.
const QE_REPORT_CERTIFICATION: u16 = 6;
/// Lengths of the bodies by their type.
const TD10_LEN: usize = 584;
const TD15_LEN: usize = 648;
const TD15_EX_LEN: usize = 885;

/// A quote.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Quote {
    /// Which format, keys and quoting enclave.
    pub header: Header,
    /// The kind of the body: from the quote in version 5, TDX 1.0 in version 4.
    pub body_kind: BodyKind,
    /// What the quote says about the machine.
    pub body: TdReportBody,
    /// What signs it; none where the key is of a kind other than ECDSA on P-256.
    pub signature: Option<SignatureData>,
    /// Length without what follows the signature, in bytes.
    pub len: usize,
}

/// The header, 48 bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Header {
    /// 4 or 5.
    pub version: u16,
    /// Kind of the key that signs the quote: 2 is ECDSA on P-256, 3 on P-384.
    pub attestation_key_type: u16,
    /// 0x81: TDX.
    pub tee_type: u32,
    /// Security version of the quoting enclave; later versions keep this field zero.
    pub qe_svn: u16,
    /// Security version of the provisioning certification enclave; later versions keep this field zero.
    pub pce_svn: u16,
    /// Who made the quoting enclave.
    pub qe_vendor_id: [u8; 16],
    /// Data of the quoting enclave; the first 16 bytes identify the platform.
    pub user_data: [u8; 20],
}

/// What kind of body a quote has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BodyKind {
    /// TDX 1.0, 584 bytes.
    Td10,
    /// TDX 1.5, 648 bytes.
    Td15,
    /// TDX 1.5 with the extension for service TDs, 885 bytes.
    Td15Ex,
}

/// What a quote says about the machine that asked for it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TdReportBody {
    /// Security versions of the TDX module and what lies beneath it.
    pub tee_tcb_svn: [u8; 16],
    /// Measurement of the TDX module.
    pub mrseam: [u8; 48],
    /// Signer of the TDX module; zero where it is Intel's.
    pub mrsignerseam: [u8; 48],
    /// Attributes of the TDX module.
    pub seam_attributes: u64,
    /// What the machine is and has been through.
    pub measurements: Measurements,
    /// What the machine put in to be signed.
    pub report_data: [u8; 64],
    /// TDX 1.5: the security versions now, where the module was updated under the running machine.
    pub tee_tcb_svn_2: Option<[u8; 16]>,
    /// TDX 1.5: measurement of the service TDs bound to the machine.
    pub mrservicetd: Option<[u8; 48]>,
    /// TDX 1.5 with the extension: the fields behind, undivided.
    pub extension: Option<Box<[u8; TD15_EX_LEN - TD15_LEN]>>,
}

/// What a trust domain is and has been through.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Measurements {
    /// Attributes of the trust domain.
    pub attributes: TdAttributes,
    /// Extended features that it may use, as in XCR0.
    pub xfam: u64,
    /// Measurement of what it was built from: its firmware.
    pub mrtd: [u8; 48],
    /// Given by who started it: the digest of the init data, for one.
    pub mrconfigid: [u8; 48],
    /// Its owner, given by who started it.
    pub mrowner: [u8; 48],
    /// The owner's configuration, given by who started it.
    pub mrownerconfig: [u8; 48],
    /// RTMR0 to RTMR3, extended while it ran: firmware configuration, boot loader and kernel, kernel's command line
    /// and initrd, and what the running system measures.
    pub rtmr: [[u8; 48]; 4],
}

/// Attributes of a trust domain (Intel TDX Module ABI Specification, TD_ATTRIBUTES).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct TdAttributes(u64);

/// The signature of a quote and what certifies its key.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SignatureData {
    /// Signature over header and body: r and s, big endian.
    pub signature: [u8; 64],
    /// The key that made it: x and y, big endian.
    pub attestation_key: [u8; 64],
    /// Type of the outer certification data; 6 holds a report of the quoting enclave and the inner data.
    pub certification_type: u16,
    /// The report of the quoting enclave, where the outer data is of type 6.
    pub qe_report: Option<QeReport>,
    /// What certifies the platform's key.
    pub certification: CertificationData,
}

/// The quoting enclave's own report, which vouches for the attestation key.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct QeReport {
    /// The report, an SGX REPORT body.
    pub report: Box<[u8; 384]>,
    /// Signature over it by the platform's certification key: r and s, big endian.
    pub signature: [u8; 64],
    /// Data that is bound by the report together with the attestation key.
    pub authentication_data: Vec<u8>,
}

/// What certifies a key: an identifier, a certificate or a chain of them.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CertificationData {
    /// 1 to 3: identifier of the platform; 4: its certificate; 5: the chain of certificates in PEM; 7: the platform's
    /// manifest.
    pub kind: u16,
    /// The data.
    pub data: Vec<u8>,
}

impl Quote {
    /// The longest quote that is read, in bytes. Those of today have 5000 to 8000.
    pub const MAX_LEN: usize = 128 << 10;

    /// Reads a quote. Bytes behind its end are taken for padding.
    ///
    /// # Errors
    /// [`Error::Quote`] where this is no TDX quote of version 4 or 5.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(bytes);
        if bytes.len() > Self::MAX_LEN {
            return Err(refused(&reader, "is longer than 128 KiB"));
        }
        let header = Header::parse(&mut reader)?;
        let body_kind = match header.version {
            4 => BodyKind::Td10,
            _ => BodyKind::parse(&mut reader)?,
        };
        let body = TdReportBody::parse(&mut reader, body_kind).ok_or_else(|| cut(&reader))?;
        let section = reader.sized().ok_or_else(|| cut(&reader))?;
        let signature =
            match header.attestation_key_type {
                KEY_ECDSA_P256 => Some(SignatureData::parse(section).ok_or_else(|| {
                    refused(&section, "has a signature section that its parts do not fit in")
                })?),
                _ => None,
            };
        Ok(Self {
            header,
            body_kind,
            body,
            signature,
            len: reader.offset(),
        })
    }
}

impl Header {
    fn parse(reader: &mut Reader<'_>) -> Result<Self> {
        let start = *reader;
        let mut read = || {
            Some(Self {
                version: reader.u16()?,
                attestation_key_type: reader.u16()?,
                tee_type: reader.u32()?,
                qe_svn: reader.u16()?,
                pce_svn: reader.u16()?,
                qe_vendor_id: reader.array()?,
                user_data: reader.array()?,
            })
        };
        let header = read().ok_or_else(|| cut(&start))?;
        if !matches!(header.version, 4 | 5) {
            return Err(refused(&start, "is of a version other than 4 and 5"));
        }
        if header.tee_type != TEE_TDX {
            return Err(refused(&start, "is of a TEE other than TDX"));
        }
        debug_assert_eq!(reader.offset(), HEADER_LEN);
        Ok(header)
    }
}

impl BodyKind {
    /// The body's type and length, ahead of it in version 5.
    fn parse(reader: &mut Reader<'_>) -> Result<Self> {
        let start = *reader;
        let (Some(kind), Some(len)) = (reader.u16(), reader.u32()) else {
            return Err(cut(&start));
        };
        let kind = match kind {
            2 => Self::Td10,
            3 => Self::Td15,
            4 => Self::Td15Ex,
            _ => return Err(refused(&start, "has a body of a type other than TDX 1.0 and 1.5")),
        };
        if usize::try_from(len) != Ok(kind.len()) {
            return Err(refused(
                &start,
                "has a body of a length that its type does not have",
            ));
        }
        Ok(kind)
    }

    const fn len(self) -> usize {
        match self {
            Self::Td10 => TD10_LEN,
            Self::Td15 => TD15_LEN,
            Self::Td15Ex => TD15_EX_LEN,
        }
    }
}

impl TdReportBody {
    fn parse(reader: &mut Reader<'_>, kind: BodyKind) -> Option<Self> {
        // Taken at once, so that the error of a cut body tells where the body begins.
        let mut body = Reader::new(reader.take(kind.len())?);
        Some(Self {
            tee_tcb_svn: body.array()?,
            mrseam: body.array()?,
            mrsignerseam: body.array()?,
            seam_attributes: body.u64()?,
            measurements: Measurements::parse(&mut body)?,
            report_data: body.array()?,
            tee_tcb_svn_2: (kind != BodyKind::Td10).then(|| body.array()).flatten(),
            mrservicetd: (kind != BodyKind::Td10).then(|| body.array()).flatten(),
            extension: (kind == BodyKind::Td15Ex)
                .then(|| body.array().map(Box::new))
                .flatten(),
        })
    }
}

impl Measurements {
    /// Reads a TDREPORT (TDREPORT_STRUCT of the Intel TDX Module ABI Specification), as the machine's own module
    /// gives it. Returns its REPORTDATA too.
    ///
    /// # Errors
    /// [`Error::Quote`] where it is no TDREPORT.
    pub fn from_td_report(report: &[u8; TD_REPORT_LEN]) -> Result<(Self, [u8; 64])> {
        const REPORT_DATA: usize = 128;
        const TD_INFO: usize = 512;
        let mut reader = Reader::new(report);
        // The first byte is the TEE type.
        if u32::from(report[0]) != TEE_TDX {
            return Err(refused(&reader, "is no report of TDX"));
        }
        let mut read = || {
            reader.take(REPORT_DATA)?;
            let report_data = reader.array()?;
            reader.take(TD_INFO.checked_sub(reader.offset())?)?;
            Some((Self::parse(&mut reader)?, report_data))
        };
        read().ok_or_else(|| cut(&reader))
    }

    /// The order of the fields is the same in quotes and in TDREPORTs.
    fn parse(reader: &mut Reader<'_>) -> Option<Self> {
        Some(Self {
            attributes: TdAttributes(reader.u64()?),
            xfam: reader.u64()?,
            mrtd: reader.array()?,
            mrconfigid: reader.array()?,
            mrowner: reader.array()?,
            mrownerconfig: reader.array()?,
            rtmr: [reader.array()?, reader.array()?, reader.array()?, reader.array()?],
        })
    }
}

impl TdAttributes {
    /// The host may read and write the machine's memory and registers.
    pub const DEBUG: Self = Self(1);
    /// Linear address space separation.
    pub const LASS: Self = Self(1 << 27);
    /// No virtualisation exception for pages that the machine has not accepted.
    pub const SEPT_VE_DISABLE: Self = Self(1 << 28);
    /// The machine may be migrated by a service TD.
    pub const MIGRATABLE: Self = Self(1 << 29);
    /// Protection keys for supervisor pages.
    pub const PKS: Self = Self(1 << 30);
    /// Key Locker.
    pub const KEY_LOCKER: Self = Self(1 << 31);
    /// The machine is a provisioning agent of TDX Connect.
    pub const TPA: Self = Self(1 << 62);
    /// Performance monitoring.
    pub const PERFMON: Self = Self(1 << 63);

    /// Bits that make the machine untrusted, as a group.
    const UNDER_DEBUG: u64 = 0xff;
    /// Names of the bits.
    const NAMES: [(u64, &'static str); 13] = [
        (Self::DEBUG.0, "DEBUG"),
        (1 << 4, "HGS_PLUS_PROF"),
        (1 << 5, "PERF_PROF"),
        (1 << 6, "PMT_PROF"),
        (1 << 16, "ICSSD"),
        (1 << 17, "SERVTD_EXT"),
        (Self::LASS.0, "LASS"),
        (Self::SEPT_VE_DISABLE.0, "SEPT_VE_DISABLE"),
        (Self::MIGRATABLE.0, "MIGRATABLE"),
        (Self::PKS.0, "PKS"),
        (Self::KEY_LOCKER.0, "KEY_LOCKER"),
        (Self::TPA.0, "TPA"),
        (Self::PERFMON.0, "PERFMON"),
    ];

    /// The attributes with these bits.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The bits.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Whether all attributes of `other` are set.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether any attribute of debugging is set: then nothing in the machine is secret from its host.
    #[must_use]
    pub const fn is_debug(self) -> bool {
        self.0 & Self::UNDER_DEBUG != 0
    }
}

impl SignatureData {
    fn parse(mut reader: Reader<'_>) -> Option<Self> {
        let signature = reader.array()?;
        let attestation_key = reader.array()?;
        let certification_type = reader.u16()?;
        let mut data = reader.sized()?;
        let (qe_report, certification) = if certification_type == QE_REPORT_CERTIFICATION {
            let report = QeReport {
                report: Box::new(data.array()?),
                signature: data.array()?,
                authentication_data: {
                    let len = usize::from(data.u16()?);
                    data.take(len)?.to_vec()
                },
            };
            let kind = data.u16()?;
            (Some(report), CertificationData::new(kind, data.sized()?))
        } else {
            (None, CertificationData::new(certification_type, data))
        };
        Some(Self {
            signature,
            attestation_key,
            certification_type,
            qe_report,
            certification,
        })
    }
}

impl CertificationData {
    fn new(kind: u16, data: Reader<'_>) -> Self {
        Self {
            kind,
            data: data.rest().to_vec(),
        }
    }

    /// What the kind means.
    #[must_use]
    pub const fn meaning(&self) -> &'static str {
        match self.kind {
            1 => "PPID in plain text",
            2 => "PPID encrypted with RSA-2048",
            3 => "PPID encrypted with RSA-3072",
            4 => "PCK certificate",
            5 => "chain of PCK certificates",
            7 => "platform manifest",
            _ => "of an unknown kind",
        }
    }
}

/// What a person wants to see, a line each; numbers in hexadecimal as other tools print them.
impl fmt::Display for Quote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { header, body, .. } = self;
        let kind = match self.body_kind {
            BodyKind::Td10 => "TDX 1.0",
            BodyKind::Td15 => "TDX 1.5",
            BodyKind::Td15Ex => "TDX 1.5 with service TDs",
        };
        line(
            f,
            "quote",
            format_args!("version {}, {kind}, {} bytes", header.version, self.len),
        )?;
        line(f, "QE vendor", Hex(&header.qe_vendor_id))?;
        line(f, "user data", Hex(&header.user_data))?;
        line(f, "TEE TCB SVN", Hex(&body.tee_tcb_svn))?;
        if let Some(svn) = &body.tee_tcb_svn_2 {
            line(f, "TEE TCB SVN 2", Hex(svn))?;
        }
        line(f, "MRSEAM", Hex(&body.mrseam))?;
        line(f, "MRSIGNERSEAM", Hex(&body.mrsignerseam))?;
        write!(f, "{}", body.measurements)?;
        if let Some(mrservicetd) = &body.mrservicetd {
            line(f, "MRSERVICETD", Hex(mrservicetd))?;
        }
        line(f, "REPORTDATA", Hex(&body.report_data))?;
        match &self.signature {
            Some(signature) => {
                let data = &signature.certification;
                let (kind, meaning, len) = (data.kind, data.meaning(), data.data.len());
                line(
                    f,
                    "certification",
                    format_args!("type {kind}, {meaning}, {len} bytes"),
                )
            }
            None => line(
                f,
                "signature",
                format_args!("by a key of kind {}", header.attestation_key_type),
            ),
        }
    }
}

impl fmt::Display for Measurements {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        line(f, "TD attributes", self.attributes)?;
        line(f, "XFAM", format_args!("{:#018x}", self.xfam))?;
        line(f, "MRTD", Hex(&self.mrtd))?;
        line(f, "MRCONFIGID", Hex(&self.mrconfigid))?;
        line(f, "MROWNER", Hex(&self.mrowner))?;
        line(f, "MROWNERCONFIG", Hex(&self.mrownerconfig))?;
        for (name, rtmr) in ["RTMR0", "RTMR1", "RTMR2", "RTMR3"].into_iter().zip(&self.rtmr) {
            line(f, name, Hex(rtmr))?;
        }
        Ok(())
    }
}

impl fmt::Display for TdAttributes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#018x}", self.0)?;
        for (bit, name) in Self::NAMES {
            if self.0 & bit != 0 {
                write!(f, " {name}")?;
            }
        }
        Ok(())
    }
}

fn line(f: &mut fmt::Formatter<'_>, name: &str, value: impl fmt::Display) -> fmt::Result {
    writeln!(f, "{name:<14} {value}")
}

/// Bytes, printed as lower-case hexadecimal digits.
pub(crate) struct Hex<'a>(pub(crate) &'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

fn cut(reader: &Reader<'_>) -> Error {
    refused(reader, "ends too early")
}

const fn refused(reader: &Reader<'_>, what: &'static str) -> Error {
    Error::Quote {
        offset: reader.offset(),
        what,
    }
}
