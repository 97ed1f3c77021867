//! `partial.json`: the wrapped content key of a package that is being written, so that an interrupted run can go on
//! (FORMAT.md, section 7).

use crate::canonical::{object, string, without};
use crate::document::Document;
use crate::encoding::{base64, hex};
use crate::error::{Error, Result};
use crate::header::ChunkLen;
use crate::keys::{ContentKey, KEY_LEN};
use crate::manifest::{ContentId, read_chunk_length};
use crate::wrap::{Kek, Scrypt, WRAPPED_LEN, read_scrypt};

/// The name of the file.
pub const PARTIAL_NAME: &str = "partial.json";

const DOCUMENT: Document = Document {
    name: PARTIAL_NAME,
    format: "sam-partial",
    version: 1,
    known: &[],
    max_len: Partial::MAX_LEN,
    kept_max: 0,
};
/// Domain of the AAD: what is wrapped here opens in no license, and the other way round.
const LABEL_AAD: &str = "sam/1 partial";

/// What an interrupted run leaves of the package's keys. It is no license: it says nothing of what the package holds,
/// and nobody signed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partial {
    text: String,
    content_id: ContentId,
    chunk_len: ChunkLen,
    scrypt: Scrypt,
    kek_commitment: [u8; KEY_LEN],
    wrapped_key: [u8; WRAPPED_LEN],
}

impl Partial {
    /// The longest one that is read, in bytes.
    pub const MAX_LEN: usize = 4 << 10;

    /// Wraps the content key of a new package under the owner's key.
    ///
    /// # Errors
    /// [`Error::KeyLength`], [`Error::ScryptCost`], [`Error::Cipher`].
    pub fn new(
        key: &[u8],
        content_key: &ContentKey,
        content_id: ContentId,
        chunk_len: ChunkLen,
        scrypt_log_n: u8,
    ) -> Result<Self> {
        let scrypt = Scrypt::generate(scrypt_log_n)?;
        // The caller chose the cost.
        let kek = Kek::derive(key, &scrypt, u64::MAX)?;
        let mut members = vec![
            ("format", string(DOCUMENT.format)),
            ("version", DOCUMENT.version.to_string()),
            ("content_id", string(&content_id.to_string())),
            ("chunk_length", chunk_len.get().to_string()),
            ("scrypt", scrypt.to_json()),
            ("kek_commitment", string(&hex(kek.commitment()))),
        ];
        let aad = [LABEL_AAD, &object(members.clone())].concat();
        let wrapped = kek.wrap_key(aad.as_bytes(), content_key)?;
        members.push(("wrapped_key", string(&base64(&wrapped))));
        Self::parse(object(members).as_bytes())
    }

    /// Reads the content of a `partial.json`.
    ///
    /// # Errors
    /// [`Error::Document`].
    pub fn parse(content: &[u8]) -> Result<Self> {
        let (mut content_id, mut chunk_len) = (None, None);
        let (mut scrypt, mut kek_commitment, mut wrapped_key) = (None, None, None);
        let (text, kept) = DOCUMENT.read(content, |reader, name| {
            match name {
                "content_id" => content_id = Some(ContentId::from_bytes(reader.hex()?)),
                "chunk_length" => chunk_len = Some(read_chunk_length(reader)?),
                "scrypt" => scrypt = Some(read_scrypt(reader)?),
                "kek_commitment" => kek_commitment = Some(reader.hex()?),
                "wrapped_key" => wrapped_key = Some(reader.base64_array()?),
                // Only the program that wrote it goes on with it.
                _ => return Err(reader.unknown(name)),
            }
            Ok(true)
        })?;
        if let Some(member) = kept.first() {
            return Err(DOCUMENT.error(format!("{:?} is not known here", member.name)));
        }
        let missing = |name| DOCUMENT.missing(name);
        Ok(Self {
            content_id: content_id.ok_or_else(|| missing("content_id"))?,
            chunk_len: chunk_len.ok_or_else(|| missing("chunk_length"))?,
            scrypt: scrypt.ok_or_else(|| missing("scrypt"))?,
            kek_commitment: kek_commitment.ok_or_else(|| missing("kek_commitment"))?,
            wrapped_key: wrapped_key.ok_or_else(|| missing("wrapped_key"))?,
            text: text.to_owned(),
        })
    }

    /// Unwraps the content key.
    ///
    /// # Errors
    /// [`Error::KeyLength`], [`Error::WrongKey`], and [`Error::Cipher`] where scrypt would take more than `scrypt_memory`
    /// bytes.
    pub fn unlock(&self, key: &[u8], scrypt_memory: u64) -> Result<ContentKey> {
        let kek = Kek::derive(key, &self.scrypt, scrypt_memory)?;
        if !kek.is_committed_by(&self.kek_commitment) {
            return Err(Error::WrongKey);
        }
        let bound = without(PARTIAL_NAME, &self.text, &["wrapped_key"])?;
        kek.unwrap_key([LABEL_AAD, &bound].concat().as_bytes(), &self.wrapped_key)
    }

    /// The document.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The identity of the content.
    #[must_use]
    pub const fn content_id(&self) -> ContentId {
        self.content_id
    }

    /// Length of the chunks of the files that are there.
    #[must_use]
    pub const fn chunk_len(&self) -> ChunkLen {
        self.chunk_len
    }
}
