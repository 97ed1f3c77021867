//! What all documents have in common: their format, its version, and members that a reader must know.

use serde::Deserialize;

use crate::canonical::{Member, Reader};
use crate::error::{Error, Result};

/// A kind of document.
pub(crate) struct Document {
    /// What it is called in errors.
    pub(crate) name: &'static str,
    /// Value of the member `format`.
    pub(crate) format: &'static str,
    /// Value of the member `version`.
    pub(crate) version: u64,
    /// All members, of the document and of what is in it.
    pub(crate) known: &'static [&'static str],
    /// The longest one that is read, in bytes.
    pub(crate) max_len: usize,
    /// Most members that are kept though this version does not know them.
    pub(crate) kept_max: usize,
}

/// What tells a document of another version, whatever else that has changed.
#[derive(Deserialize)]
struct Head {
    format: String,
    version: u64,
}

impl Document {
    /// Reads a document. `member` reads the value of a member that it knows, and returns whether it does. Returns the
    /// document, and the members to be kept: those that nothing knows, and `critical`.
    pub(crate) fn read<'a>(
        &self,
        content: &'a [u8],
        member: impl FnMut(&mut Reader<'a>, &str) -> Result<bool>,
    ) -> Result<(&'a str, Vec<Member>)> {
        self.read_members(content, member)
            .map_err(|error| self.other_version(content).unwrap_or(error))
    }

    /// An error about a document that lacks the member called `name`.
    pub(crate) fn missing(&self, name: &str) -> Error {
        self.error(format!("{name:?} is missing"))
    }

    /// An error about the document as a whole.
    pub(crate) const fn error(&self, what: String) -> Error {
        Error::Document {
            document: self.name,
            offset: 0,
            what,
        }
    }

    fn read_members<'a>(
        &self,
        content: &'a [u8],
        mut member: impl FnMut(&mut Reader<'a>, &str) -> Result<bool>,
    ) -> Result<(&'a str, Vec<Member>)> {
        let mut reader = Reader::new(self.name, content, self.max_len)?;
        let (mut format, mut version) = (None, None);
        let mut kept = Vec::new();
        reader.object(|reader, name| {
            match name {
                "format" => format = Some(reader.literal(self.format)?),
                "version" => version = Some(reader.integer_of(self.version)?),
                "critical" => {
                    let start = reader.here();
                    reader.critical(self.known)?;
                    kept.push(reader.member_from(name, start));
                }
                _ if member(reader, name)? => {}
                _ => reader.keep(&mut kept, name, self.kept_max)?,
            }
            Ok(())
        })?;
        let text = reader.end()?;
        format.ok_or_else(|| self.missing("format"))?;
        version.ok_or_else(|| self.missing("version"))?;
        Ok((text, kept))
    }

    /// The error that `content` is of another version, where it is: another version may differ in anything, and is to be
    /// told by its number, not by the first thing that differs.
    fn other_version(&self, content: &[u8]) -> Option<Error> {
        let content = content.get(..self.max_len.min(content.len()))?;
        let head: Head = serde_json::from_slice(content).ok()?;
        (head.format == self.format && head.version != self.version).then_some(Error::Version {
            document: self.name,
            version: head.version,
            known: self.version,
        })
    }
}

impl Reader<'_> {
    /// Refuses the entry that begins at `start` where it has a member of another kind of entry.
    pub(crate) fn refuse_other(&self, start: usize, there: bool) -> Result<()> {
        if there {
            Err(self.error_at(start, "an entry with a member of another kind of entry"))
        } else {
            Ok(())
        }
    }

    /// An error about the entry that begins at `start`, whose kind is none that is known.
    pub(crate) fn no_kind(&self, start: usize, kind: Option<&str>) -> Error {
        match kind {
            Some(kind) => {
                let what = format!("{kind:?} is no known kind of entry; a newer version may know it");
                self.error_at(start, what)
            }
            None => self.missing(start, "kind"),
        }
    }

    /// Reads an array of entries.
    pub(crate) fn entries<T>(&mut self, entry: impl Fn(&mut Self) -> Result<T>) -> Result<Vec<T>> {
        let mut entries = Vec::new();
        self.array(|reader| {
            entries.push(entry(reader)?);
            Ok(())
        })?;
        Ok(entries)
    }
}
