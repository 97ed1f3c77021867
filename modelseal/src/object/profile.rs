//! Credentials and settings of S3 from the files that other tools keep them in.

use std::collections::HashMap;
use std::env;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::PathBuf;

use zeroize::Zeroizing;

/// What a profile says.
#[derive(Default)]
pub(super) struct Profile {
    values: HashMap<String, Zeroizing<String>>,
}

impl Profile {
    /// The profile `AWS_PROFILE`, else `default`, of the files `~/.aws/credentials` and `~/.aws/config`, or those that
    /// `AWS_SHARED_CREDENTIALS_FILE` and `AWS_CONFIG_FILE` name. Empty where there are none.
    ///
    /// # Errors
    /// Where a file is there and cannot be read, or the profile that is asked for is in none.
    pub(super) fn from_files() -> io::Result<Self> {
        let asked = env::var("AWS_PROFILE").ok().filter(|name| !name.is_empty());
        let name = asked.as_deref().unwrap_or("default");
        let mut profile = Self::default();
        let mut found = profile.read(file("AWS_CONFIG_FILE", "config"), &|section| {
            // Only there do profiles have a prefix.
            section == "default" && name == "default"
                || section.strip_prefix("profile ").map(str::trim) == Some(name)
        })?;
        found |= profile.read(file("AWS_SHARED_CREDENTIALS_FILE", "credentials"), &|section| {
            section == name
        })?;
        match asked {
            Some(name) if !found => {
                let what = format!(
                    "there is no profile {name:?} (AWS_PROFILE) in the files of credentials and settings"
                );
                Err(io::Error::new(io::ErrorKind::NotFound, what))
            }
            _ => Ok(profile),
        }
    }

    /// Takes the values of the sections that `is_meant`. Returns whether there are any.
    fn read(&mut self, path: Option<PathBuf>, is_meant: &dyn Fn(&str) -> bool) -> io::Result<bool> {
        let Some(path) = path else { return Ok(false) };
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            read => Zeroizing::new(read.map_err(|error| {
                io::Error::new(error.kind(), format!("reading {}: {error}", path.display()))
            })?),
        };
        Ok(self.parse(&text, is_meant))
    }

    fn parse(&mut self, text: &str, is_meant: &dyn Fn(&str) -> bool) -> bool {
        let (mut meant, mut found) = (false, false);
        for line in text.lines() {
            if line.trim_start().starts_with(['#', ';']) {
                continue;
            }
            if let Some(section) = line
                .trim()
                .strip_prefix('[')
                .and_then(|line| line.strip_suffix(']'))
            {
                meant = is_meant(section.trim());
                found |= meant;
            } else if meant
                && !line.starts_with([' ', '\t'])
                && let Some((key, value)) = line.split_once('=')
            {
                let value = Zeroizing::new(value.trim().to_owned());
                self.values.insert(key.trim().to_ascii_lowercase(), value);
            }
        }
        found
    }

    pub(super) fn get(&self, key: &str) -> Option<&str> {
        self.values
            .get(key)
            .map(|value| value.as_str())
            .filter(|value| !value.is_empty())
    }
}

/// The file that the variable names, or the one of that name where it usually is.
fn file(variable: &str, name: &str) -> Option<PathBuf> {
    let given = env::var_os(variable).filter(|path| !path.is_empty());
    let usual = || {
        let home: OsString = env::var_os("HOME").filter(|home| !home.is_empty())?;
        Some(PathBuf::from(home).join(".aws").join(name))
    };
    given.map(PathBuf::from).or_else(usual)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_is_its_section_alone() {
        let text = "region = nowhere\n[default]\naws_access_key_id=one\n# aws_access_key_id=two\n\n[ other ]\n\
                    aws_access_key_id = three = 3 \nRegion=here\ns3 =\n  region = deeper\n[x]\nregion=y\n";
        let mut profile = Profile::default();
        assert!(profile.parse(text, &|section| section == "other"));
        assert_eq!(profile.get("aws_access_key_id"), Some("three = 3"));
        assert_eq!(profile.get("region"), Some("here"));
        assert_eq!(profile.get("s3"), None);
        assert!(!profile.parse(text, &|section| section == "absent"));
    }
}
