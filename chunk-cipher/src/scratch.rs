//! Scratch memory that a thread keeps from one batch to the next, so that no batch allocates or faults in pages.

use std::cell::Cell;
use std::mem;
use std::ops::{Deref, DerefMut};
use std::thread::LocalKey;

use zeroize::Zeroize;

/// What a thread keeps of a buffer, in bytes: the longest chunk of any format here.
const KEEP: usize = 16 << 20;

thread_local! {
    static CIPHERTEXT: Cell<Wiped> = const { Cell::new(Wiped(Vec::new())) };
    static PLAINTEXT: Cell<Wiped> = const { Cell::new(Wiped(Vec::new())) };
    static NONCES: Cell<Wiped> = const { Cell::new(Wiped(Vec::new())) };
    static TAGS: Cell<Wiped> = const { Cell::new(Wiped(Vec::new())) };
}

/// A buffer for stored bytes.
pub(crate) fn ciphertext(len: usize) -> Scratch {
    Scratch::borrow(&CIPHERTEXT, len)
}

/// A buffer for plaintext.
pub(crate) fn plaintext(len: usize) -> Scratch {
    Scratch::borrow(&PLAINTEXT, len)
}

/// A buffer for nonces.
pub(crate) fn nonces(len: usize) -> Scratch {
    Scratch::borrow(&NONCES, len)
}

/// A buffer for tags.
pub(crate) fn tags(len: usize) -> Scratch {
    Scratch::borrow(&TAGS, len)
}

/// A buffer borrowed from its thread, with whatever was in it before.
pub(crate) struct Scratch {
    home: &'static LocalKey<Cell<Wiped>>,
    buf: Wiped,
    len: usize,
}

impl Scratch {
    /// Another borrower on the same thread, if there is one, gets a buffer of its own.
    fn borrow(home: &'static LocalKey<Cell<Wiped>>, len: usize) -> Self {
        let mut buf = home.try_with(Cell::take).unwrap_or_default();
        if buf.0.len() < len {
            buf = Wiped(vec![0; len]);
        }
        Self { home, buf, len }
    }
}

impl Deref for Scratch {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.buf.0[..self.len]
    }
}

impl DerefMut for Scratch {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.buf.0[..self.len]
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let buf = mem::take(&mut self.buf);
        if buf.0.len() <= KEEP {
            let _ = self.home.try_with(|home| home.set(buf));
        }
    }
}

/// A buffer that is wiped when it is dropped, at the latest when its thread ends.
#[derive(Default)]
struct Wiped(Vec<u8>);

impl Drop for Wiped {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}
