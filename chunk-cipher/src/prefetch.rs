//! Telling the processor what comes next.
#![allow(unsafe_code)]

/// How much of the next chunk's destination is fetched ahead, in bytes. The processor's own prefetchers stop at the
/// end of a page and take several lines to notice that the next one is written to; fetching more than this holds up
/// the reads of the chunk at hand.
#[cfg(target_arch = "x86_64")]
const AHEAD: usize = 512;

/// Starts to fetch the beginning of `destination`, to be written soon.
#[inline]
pub(crate) fn for_write(destination: &mut [u8]) {
    #[cfg(target_arch = "x86_64")]
    for line in destination[..destination.len().min(AHEAD)].chunks(64) {
        use std::arch::x86_64::{_MM_HINT_ET0, _mm_prefetch};
        // SAFETY: a hint without effect on memory; processors that do not know it ignore it.
        unsafe { _mm_prefetch::<_MM_HINT_ET0>(line.as_ptr().cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = destination;
}
