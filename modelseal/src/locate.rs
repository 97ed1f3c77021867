//! Locations of files within sealed models.

use std::io;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::model::{Model, OpenOptions};

/// Parts of a path that are gone up at most.
const MAX_PARTS: usize = 64;

impl Model {
    /// Splits `location`, that of a model or of something in one such as `vault/model.safetensors`, into where the model
    /// lies and the path in it, which is empty for the model itself. Nothing is opened.
    ///
    /// # Errors
    /// [`Error::NotSealed`] where neither it nor what it lies in is a model, and where that cannot be told.
    pub fn locate(location: &Path, options: &OpenOptions) -> Result<(PathBuf, PathBuf)> {
        for (part, place) in location.ancestors().take(MAX_PARTS).enumerate() {
            // Of `a/b` the last one is the empty path, of a URL all from its scheme on are none.
            let place = match place.as_os_str().len() {
                0 if part == 0 => continue,
                0 => Path::new("."),
                _ => place,
            };
            if part > 0 && crate::is_url(location) && !crate::is_url(place) {
                break;
            }
            match Self::is_at(place, options) {
                Ok(true) => {
                    let inner = location.strip_prefix(place).unwrap_or(location);
                    return Ok((place.to_path_buf(), inner.to_path_buf()));
                }
                Ok(false) => {}
                // Its parent may tell more than that it cannot be read.
                Err(error) if is_missing(&error) => {}
                // Of a URL there may be too little left to be one.
                Err(Error::Location { .. }) if part > 0 => {}
                Err(error) => return Err(error),
            }
        }
        Err(Error::NotSealed {
            path: location.to_path_buf(),
        })
    }
}

/// Whether there is no directory.
fn is_missing(error: &Error) -> bool {
    let kind = error.io_source().map(io::Error::kind);
    matches!(kind, Some(io::ErrorKind::NotFound | io::ErrorKind::NotADirectory))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_location_is_split_where_the_model_ends() {
        let dir = tempfile::tempdir().unwrap();
        let vault = dir.path().join("vault");
        fs::create_dir_all(vault.join("stored")).unwrap();
        fs::write(vault.join("gocryptfs.conf"), "{}").unwrap();
        let options = OpenOptions::default();
        for inner in ["", "model.safetensors", "a/b/c", "stored/x"] {
            let found = Model::locate(&vault.join(inner), &options).unwrap();
            assert_eq!(found, (vault.clone(), inner.into()), "{inner}");
        }
        for location in [dir.path().join("x"), dir.path().to_path_buf(), "".into()] {
            let error = Model::locate(&location, &options).unwrap_err();
            assert!(matches!(error, Error::NotSealed { .. }), "{error}");
        }
        #[cfg(feature = "object-store")]
        for (location, shown) in [
            ("https://me:se?cret@host/x", "https://...: credentials"),
            (
                "https://host/x?sig=secret",
                "https://host/x...: it names one object",
            ),
            ("ftp://me:secret@host/x", "ftp://...: its scheme"),
        ] {
            let error = Model::locate(location.as_ref(), &options)
                .unwrap_err()
                .to_string();
            assert!(error.starts_with(shown) && !error.contains("secret"), "{error}");
        }
    }
}
