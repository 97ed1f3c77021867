//! Everything below a directory, one entry after another.

use std::path::PathBuf;

use chunk_cipher::store::{Kind, Store};

use super::{Dir, Entry, Vault};
use crate::error::Error;

/// The entries below a directory. Goes on behind whatever cannot be read.
#[derive(Debug)]
pub struct Walk<'a, S> {
    vault: &'a Vault<S>,
    todo: Vec<Step>,
}

#[derive(Debug)]
enum Step {
    List(Dir),
    Visit(Entry),
    Stray(PathBuf, Error),
}

/// What a walk comes upon.
#[derive(Debug)]
pub enum Found {
    /// An entry.
    Entry(Entry),
    /// Something whose name does not decrypt: its stored path, and why.
    Stray(PathBuf, Error),
    /// A directory that cannot be read: its path, and why.
    Unreadable(PathBuf, Error),
}

impl<'a, S> Walk<'a, S> {
    pub(super) fn new(vault: &'a Vault<S>, dir: Dir) -> Self {
        Self {
            vault,
            todo: vec![Step::List(dir)],
        }
    }
}

impl<S: Store> Iterator for Walk<'_, S> {
    type Item = Found;

    fn next(&mut self) -> Option<Found> {
        loop {
            match self.todo.pop()? {
                Step::List(dir) => match self.vault.list(&dir) {
                    Ok(listing) => {
                        let strays = listing.strays.into_iter().rev();
                        self.todo
                            .extend(strays.map(|(path, error)| Step::Stray(path, error)));
                        self.todo
                            .extend(listing.entries.into_iter().rev().map(Step::Visit));
                    }
                    Err(error) => return Some(Found::Unreadable(dir.path, error)),
                },
                Step::Visit(entry) => {
                    if entry.kind == Kind::Dir {
                        match self.vault.dir(&entry) {
                            Ok(dir) => self.todo.push(Step::List(dir)),
                            Err(error) => return Some(Found::Unreadable(entry.path, error)),
                        }
                    }
                    return Some(Found::Entry(entry));
                }
                Step::Stray(path, error) => return Some(Found::Stray(path, error)),
            }
        }
    }
}
