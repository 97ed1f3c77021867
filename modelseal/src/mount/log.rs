//! What a mount says of what it cannot read.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};

use crate::error::Error;

use super::Listener;

/// Lines that are remembered, so as not to be said again.
const REMEMBERED: usize = 4096;

/// Says each thing once: programs and the kernel try a damaged chunk again and again.
pub(super) struct Log {
    listener: Option<Listener>,
    said: Mutex<HashSet<String>>,
}

impl Log {
    pub(super) fn new(listener: Option<Listener>) -> Self {
        Self {
            listener,
            said: Mutex::default(),
        }
    }

    /// Says what is wrong in the model.
    pub(super) fn error(&self, error: &Error) {
        let Some(listener) = &self.listener else {
            return;
        };
        let within = error.within_model();
        let mut line = within.to_string();
        let mut cause = within.source();
        while let Some(error) = cause {
            let _ = write!(line, ": {error}");
            cause = error.source();
        }
        let said = {
            let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
            if said.contains(&line) || said.len() > REMEMBERED {
                return;
            }
            said.insert(line.clone());
            said.len()
        };
        if said > REMEMBERED {
            "there is more that cannot be read; it is not listed any more".clone_into(&mut line);
        }
        listener(&line);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    fn chunk(chunk: u64) -> Error {
        Error::Engine(chunk_cipher::Error::Chunk { chunk })
    }

    #[test]
    fn every_chunk_is_named_once_and_there_is_an_end_to_it() {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&lines);
        let log = Log::new(Some(Arc::new(move |line: &str| {
            heard.lock().unwrap().push(line.to_owned());
        })));
        for _ in 0..3 {
            log.error(&chunk(1));
            log.error(&chunk(2));
        }
        assert_eq!(lines.lock().unwrap().len(), 2);
        assert!(lines.lock().unwrap()[1].contains("chunk 2"), "{lines:?}");
        for number in 0..2 * REMEMBERED as u64 {
            log.error(&chunk(number));
        }
        let lines = lines.lock().unwrap();
        assert_eq!(lines.len(), REMEMBERED + 1);
        assert!(lines[REMEMBERED].contains("not listed any more"));
    }
}
