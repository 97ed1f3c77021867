//! Ctrl-C ends a run between two rounds, so that mounts and temporary files are removed on the way out.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::error::Result;

static RAISED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// Takes note of signals from now on instead of dying of them.
pub(crate) fn listen() -> Result<()> {
    let raised = RAISED.get_or_init(Arc::default);
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(raised))?;
    }
    Ok(())
}

/// Whether the run is to end.
pub(crate) fn is_raised() -> bool {
    RAISED.get().is_some_and(|raised| raised.load(Ordering::Relaxed))
}

/// Fails where the run is to end.
pub(crate) fn check() -> Result<()> {
    if is_raised() {
        Err("interrupted".into())
    } else {
        Ok(())
    }
}
