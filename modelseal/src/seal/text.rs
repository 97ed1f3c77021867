//! What processes that seal together tell each other: JSON, of which nothing is secret.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sam_format::Modified;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{Error, Result};
use crate::plan::{Origin, PlanFile};
use crate::writer::Format;

/// The longest text that is read, in bytes.
const MAX_LEN: usize = 64 << 10;

/// A file that some process is to seal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealTask {
    /// Its length in bytes.
    pub len: u64,
    /// What [`SealMember::seal`](super::shared::SealMember::seal) takes.
    pub text: String,
}

/// What lets a process join in.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Ticket {
    /// Tells this sealing from any other.
    pub(super) job: String,
    pub(super) format: Format,
    /// The document that holds the wrapped key.
    pub(super) partial: String,
}

/// A file to be sealed, as it was found.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Task {
    pub(super) job: String,
    path: RelativePath,
    len: u64,
    /// Seconds and nanoseconds since 1970.
    modified: (i64, u32),
    from: From,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "lowercase")]
enum From {
    Local { followed: bool },
    Stored { etag: Option<String> },
}

/// A file that was sealed.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Record {
    pub(super) job: String,
    path: RelativePath,
    /// Whether it was there already.
    pub(super) kept: bool,
    /// What its format says of it.
    pub(super) entry: Option<String>,
}

impl Task {
    pub(super) fn new(job: &str, path: &Path, plan: &PlanFile) -> Result<Self> {
        let modified = Modified::from(plan.modified);
        Ok(Self {
            job: job.to_owned(),
            path: RelativePath(path.to_path_buf()),
            len: plan.len,
            modified: (modified.seconds, modified.nanoseconds),
            from: match &plan.origin {
                Origin::Local { followed, .. } => From::Local { followed: *followed },
                Origin::Stored { etag } => From::Stored { etag: etag.clone() },
                Origin::Sealed(_) => {
                    return Err(Error::shared(path, "only one process can seal a model anew"));
                }
            },
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path.0
    }

    /// The file, below `source`.
    pub(super) fn plan(&self, source: &Path) -> PlanFile {
        let (seconds, nanoseconds) = self.modified;
        let modified = Modified { seconds, nanoseconds };
        PlanFile {
            source: source.join(&self.path.0),
            len: self.len,
            modified: modified.to_system_time(),
            origin: match &self.from {
                From::Local { followed } => Origin::Local {
                    followed: *followed,
                    id: None,
                },
                From::Stored { etag } => Origin::Stored { etag: etag.clone() },
            },
        }
    }
}

impl Record {
    pub(super) fn new(task: &Task, kept: bool, entry: Option<String>) -> Self {
        Self {
            job: task.job.clone(),
            path: task.path.clone(),
            kept,
            entry,
        }
    }

    pub(super) fn path(&self) -> PathBuf {
        self.path.0.clone()
    }
}

/// What is told as text.
pub(super) trait Text: Serialize + DeserializeOwned {
    fn to_text(&self) -> String {
        serde_json::to_string(self).expect("strings and numbers only")
    }

    /// # Errors
    /// [`Error::Shared`], of `destination`, where it is none.
    fn from_text(text: &str, destination: &Path) -> Result<Self> {
        let wrong = |what| {
            Error::shared(
                destination,
                format!("what another process tells is not understood: {what}"),
            )
        };
        if text.len() > MAX_LEN {
            return Err(wrong("it is too long".to_owned()));
        }
        serde_json::from_str(text).map_err(|error| wrong(error.to_string()))
    }
}

impl Text for Ticket {}
impl Text for Task {}
impl Text for Record {}

/// A path that stays below where it begins: names alone. As text it is base64, since a name need not be UTF-8.
#[derive(Clone, Debug)]
struct RelativePath(PathBuf);

impl Serialize for RelativePath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(self.0.as_os_str().as_bytes()))
    }
}

impl<'de> Deserialize<'de> for RelativePath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = STANDARD.decode(text).map_err(D::Error::custom)?;
        let path = PathBuf::from(OsString::from_vec(bytes));
        let mut names = path.components().peekable();
        let stays = names.peek().is_some() && names.all(|part| matches!(part, Component::Normal(_)));
        // What is written in another way than it is meant could be taken for another path.
        let exact = path.components().collect::<PathBuf>().as_os_str() == path.as_os_str();
        if stays && exact {
            Ok(Self(path))
        } else {
            Err(D::Error::custom("a path that leads elsewhere"))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    fn task(path: &[u8]) -> Task {
        let plan = PlanFile {
            source: PathBuf::from("source"),
            len: 7,
            modified: SystemTime::UNIX_EPOCH - Duration::from_nanos(1),
            origin: Origin::Local {
                followed: true,
                id: Some((1, 2)),
            },
        };
        Task::new("job", Path::new(&OsString::from_vec(path.to_vec())), &plan).expect("a file")
    }

    #[test]
    fn tasks_are_read_as_they_were_written() {
        let path = b"layers/\xff\xfe";
        let read = Task::from_text(&task(path).to_text(), Path::new("there")).expect("a task");
        assert_eq!(read.path().as_os_str().as_bytes(), path);
        let plan = read.plan(Path::new("/elsewhere"));
        assert_eq!(plan.source.as_os_str().as_bytes(), b"/elsewhere/layers/\xff\xfe");
        assert_eq!(
            (plan.len, plan.modified),
            (7, SystemTime::UNIX_EPOCH - Duration::from_nanos(1))
        );
        // On another machine it may have another number.
        assert!(matches!(
            plan.origin,
            Origin::Local {
                followed: true,
                id: None
            }
        ));
    }

    #[test]
    fn paths_stay_below_the_source() {
        for path in [&b"../x"[..], b"/etc/passwd", b"a/../b", b"", b".", b"a//b", b"a/"] {
            let error = Task::from_text(&task(path).to_text(), Path::new("there")).expect_err("a path");
            assert!(error.to_string().contains("leads elsewhere"), "{error}");
        }
    }

    #[test]
    fn what_is_not_known_is_refused() {
        let text = task(b"x").to_text();
        for wrong in [
            text.replace("\"len\"", "\"length\""),
            text.replacen('{', "{\"more\":1,", 1),
            text.replace("local", "remote"),
            text.clone() + " {}",
            text.replace("job", &"j".repeat(MAX_LEN)),
        ] {
            assert!(
                Task::from_text(&wrong, Path::new("there")).is_err(),
                "{wrong:.80}"
            );
        }
    }
}
