//! Handles: numbers that look like pointers to C, and the objects behind them.
//!
//! A handle is no address and is never dereferenced. It names a place in a table and how often that place had been
//! used before, so that a handle that was freed, made up or is of another kind is told for certain, also while other
//! threads free it. An object is dropped when it was freed and the last call that uses it has returned.
#![allow(unsafe_code)]

use std::any::Any;
use std::cell::UnsafeCell;
use std::ops::Deref;
use std::ptr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use crate::error::Failure;
use crate::status;

/// What a handle can stand for.
pub(crate) trait Object: Any + Send + Sync {
    /// What it is called in messages.
    const NAME: &'static str;
}

/// Bits of a handle that say which place.
const PLACE_BITS: u32 = 24;
/// Bits that say how often it had been used before.
const TURN_BITS: u32 = 24;
/// What is above: no address of a process has it, so that whatever dereferences a handle is stopped at once.
const MARK: u64 = 0x6d73;

/// Places of the first block; each further one is twice as long.
const FIRST_BLOCK: usize = 64;
/// Blocks that all places take.
const BLOCKS: usize = 19;

/// Of a place's state: the object may be used.
const ALIVE: u64 = 1 << 32;
/// Of a place's state: how many calls are using the object.
const USERS: u64 = ALIVE - 1;
/// Of a place's state: the turn begins here.
const TURN_AT: u32 = 33;

static TABLE: Table = Table::new();

/// Takes an object in, and returns its handle.
pub(crate) fn insert<T: Object>(object: T) -> Result<*mut T, Failure> {
    let handle = TABLE.insert(Box::new(object)).ok_or_else(|| {
        Failure::new(
            status::MODELSEAL_LENGTH,
            "there are too many handles; free some".to_owned(),
        )
    })?;
    Ok(ptr::without_provenance_mut(handle))
}

/// The object of a handle, for as long as what is returned lives.
pub(crate) fn get<T: Object>(handle: *const T) -> Result<Use<T>, Failure> {
    let failed = |what: &str| {
        let text = format!("the handle of a {} {what}", T::NAME);
        Failure::new(status::MODELSEAL_HANDLE, text)
    };
    if handle.is_null() {
        let text = format!("the handle of a {} is NULL", T::NAME);
        return Err(Failure::new(status::MODELSEAL_NULL_POINTER, text));
    }
    let place = TABLE.acquire(handle.addr());
    let place = place.ok_or_else(|| failed("is none, or was freed"))?;
    // SAFETY: the place was acquired, so that its object stays.
    match unsafe { place.object() }.and_then(|object| object.downcast_ref::<T>()) {
        Some(object) => Ok(Use {
            object: ptr::from_ref(object),
            place,
        }),
        None => {
            drop(TABLE.release(place));
            Err(failed("is one of something else"))
        }
    }
}

/// Drops the object of a handle, once nobody uses it any more. NULL is nothing, and so is what is no handle.
pub(crate) fn free<T: Object>(handle: *mut T) {
    if let Ok(found) = get(handle) {
        TABLE.kill(handle.addr());
        drop(found);
    }
}

/// How many objects there are.
pub(crate) fn count() -> usize {
    TABLE.alive.load(Ordering::Relaxed)
}

/// An object that is being used.
pub(crate) struct Use<T: Object> {
    object: *const T,
    place: &'static Place,
}

impl<T: Object> Deref for Use<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the place is acquired until this is dropped, so the object stays where it is.
        unsafe { &*self.object }
    }
}

impl<T: Object> Drop for Use<T> {
    fn drop(&mut self) {
        drop(TABLE.release(self.place));
    }
}

type Boxed = Box<dyn Any + Send + Sync>;

/// All places, in blocks that are never moved.
struct Table {
    blocks: [OnceLock<Box<[Place]>>; BLOCKS],
    free: Mutex<Free>,
    alive: AtomicUsize,
}

/// Places that are not in use.
struct Free {
    /// Those that were.
    used: Vec<usize>,
    /// The first that never was.
    next: usize,
}

struct Place {
    index: AtomicUsize,
    /// The turn, whether the object may be used, and how many are using it.
    state: AtomicU64,
    object: UnsafeCell<Option<Boxed>>,
}

// SAFETY: an object is shared only while it is alive or in use, which the state says, and changed by one thread alone:
// the one that took the place from the list of free ones, or the one that brought the state to dead and unused.
unsafe impl Sync for Place {}

impl Table {
    const fn new() -> Self {
        Self {
            blocks: [const { OnceLock::new() }; BLOCKS],
            free: Mutex::new(Free {
                used: Vec::new(),
                next: 0,
            }),
            alive: AtomicUsize::new(0),
        }
    }

    /// The handle of a new object, unless all places are taken.
    fn insert(&self, object: Boxed) -> Option<usize> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let index = match free.used.pop() {
            Some(index) => index,
            None if free.next < 1 << PLACE_BITS => {
                free.next += 1;
                free.next - 1
            }
            None => return None,
        };
        drop(free);
        let (block, at) = find(index);
        let block = self.blocks.get(block)?;
        let block = block.get_or_init(|| {
            (0..FIRST_BLOCK << block_number(index))
                .map(|_| Place::new())
                .collect()
        });
        let place = block.get(at)?;
        place.index.store(index, Ordering::Relaxed);
        // SAFETY: the place was taken from the free ones, so that it is this thread's alone.
        unsafe { *place.object.get() = Some(object) };
        self.alive.fetch_add(1, Ordering::Relaxed);
        let state = place.state.fetch_or(ALIVE, Ordering::Release);
        let handle = MARK << (PLACE_BITS + TURN_BITS) | (state >> TURN_AT) << PLACE_BITS | index as u64;
        usize::try_from(handle).ok()
    }

    /// The place of a handle whose object is alive, until it is released.
    fn acquire(&self, handle: usize) -> Option<&Place> {
        let (place, turn) = self.place(handle)?;
        let mut state = place.state.load(Ordering::Relaxed);
        loop {
            if state >> TURN_AT != turn || state & ALIVE == 0 || state & USERS == USERS {
                return None;
            }
            match place
                .state
                .compare_exchange_weak(state, state + 1, Ordering::Acquire, Ordering::Relaxed)
            {
                Ok(_) => return Some(place),
                Err(now) => state = now,
            }
        }
    }

    /// The object, where it was dead and nobody else uses it: to be dropped.
    #[must_use]
    fn release(&self, place: &Place) -> Option<Boxed> {
        let before = place.state.fetch_sub(1, Ordering::AcqRel);
        (before & (ALIVE | USERS) == 1).then(|| self.reclaim(place))?
    }

    /// Lets nobody else use the object of a handle that is acquired.
    fn kill(&self, handle: usize) {
        if let Some((place, _)) = self.place(handle) {
            place.state.fetch_and(!ALIVE, Ordering::AcqRel);
        }
    }

    /// Takes the object out of a place that is dead and unused, and offers the place anew.
    fn reclaim(&self, place: &Place) -> Option<Boxed> {
        // SAFETY: only one thread brings a place to dead and unused, and nobody acquires it from there.
        let object = unsafe { (*place.object.get()).take() };
        self.alive.fetch_sub(1, Ordering::Relaxed);
        let turn = (place.state.load(Ordering::Relaxed) >> TURN_AT) + 1;
        place.state.store(turn << TURN_AT, Ordering::Release);
        // A place whose turns are used up is left alone, so that no handle ever comes again.
        if turn < 1 << TURN_BITS {
            let index = place.index.load(Ordering::Relaxed);
            let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
            free.used.push(index);
        }
        object
    }

    fn place(&self, handle: usize) -> Option<(&Place, u64)> {
        let handle = handle as u64;
        if handle >> (PLACE_BITS + TURN_BITS) != MARK {
            return None;
        }
        let index = usize::try_from(handle & ((1 << PLACE_BITS) - 1)).ok()?;
        let (block, at) = find(index);
        let place = self.blocks.get(block)?.get()?.get(at)?;
        Some((place, handle >> PLACE_BITS & ((1 << TURN_BITS) - 1)))
    }
}

impl Place {
    const fn new() -> Self {
        Self {
            index: AtomicUsize::new(0),
            state: AtomicU64::new(0),
            object: UnsafeCell::new(None),
        }
    }

    /// # Safety
    /// The place must be acquired for as long as the object is used.
    unsafe fn object(&self) -> Option<&(dyn Any + Send + Sync)> {
        // SAFETY: nobody changes the object while the place is acquired.
        unsafe { (*self.object.get()).as_deref() }
    }
}

/// The block that a place is in, from 0.
const fn block_number(index: usize) -> usize {
    (index / FIRST_BLOCK + 1).ilog2() as usize
}

/// The block that a place is in, and where in it.
const fn find(index: usize) -> (usize, usize) {
    let block = block_number(index);
    (block, index - FIRST_BLOCK * ((1 << block) - 1))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread;

    use super::*;

    struct Apple(u32);
    struct Pear(Arc<()>);

    impl Object for Apple {
        const NAME: &'static str = "apple";
    }

    impl Object for Pear {
        const NAME: &'static str = "pear";
    }

    fn code<T: Object>(handle: *const T) -> i32 {
        get(handle).err().expect("no object").code()
    }

    #[test]
    fn every_place_is_in_a_block_of_its_own() {
        let mut last = (0, usize::MAX);
        for index in 0..100_000 {
            let (block, at) = find(index);
            let next = if at == 0 {
                (last.0 + usize::from(index > 0), 0)
            } else {
                (last.0, last.1 + 1)
            };
            assert_eq!((block, at), next);
            assert!(at < FIRST_BLOCK << block);
            last = (block, at);
        }
        assert!(find((1 << PLACE_BITS) - 1).0 < BLOCKS);
    }

    #[test]
    fn what_is_freed_made_up_or_of_another_kind_is_told() {
        let apple = insert(Apple(7)).unwrap();
        assert_eq!(get(apple).unwrap().0, 7);
        assert_eq!(code(apple.cast::<Pear>()), status::MODELSEAL_HANDLE);
        free(apple.cast::<Pear>());
        assert_eq!(get(apple).unwrap().0, 7);
        free(apple);
        assert_eq!(code(apple), status::MODELSEAL_HANDLE);
        free(apple);
        let next = insert(Apple(8)).unwrap();
        assert_ne!(next, apple);
        assert_eq!(code(apple), status::MODELSEAL_HANDLE);
        free(next);
        assert_eq!(code(ptr::null::<Apple>()), status::MODELSEAL_NULL_POINTER);
        for made_up in [
            1,
            4096,
            usize::MAX,
            apple.addr() ^ 1 << 20,
            apple.addr() & !(0xffff << 48),
        ] {
            let made_up = ptr::without_provenance::<Apple>(made_up);
            assert_eq!(code(made_up), status::MODELSEAL_HANDLE);
        }
    }

    #[test]
    fn what_is_in_use_is_dropped_behind_its_last_user() {
        let shared = Arc::new(());
        let pear = insert(Pear(Arc::clone(&shared))).unwrap();
        let used = get(pear).unwrap();
        free(pear);
        assert_eq!(code(pear), status::MODELSEAL_HANDLE);
        assert_eq!(Arc::strong_count(&used.0), 2);
        drop(used);
        assert_eq!(Arc::strong_count(&shared), 1);
    }

    #[test]
    fn threads_that_use_and_free_drop_each_object_once() {
        let shared = Arc::new(());
        for _ in 0..200 {
            let pear = insert(Pear(Arc::clone(&shared))).unwrap().addr();
            thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        let pear = ptr::without_provenance_mut::<Pear>(pear);
                        while get(pear).is_ok() {
                            free(pear);
                        }
                    });
                }
            });
        }
        assert_eq!(Arc::strong_count(&shared), 1);
    }
}
