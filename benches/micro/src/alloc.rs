//! An allocator that counts.
//!
//! Each thread counts its own, so that counting costs some additions and threads do not meet. What
//! runs on a current-thread runtime is therefore counted exactly, and by itself even where other
//! tests run beside it.

// The one place that needs it: `GlobalAlloc` cannot be implemented without.
#![allow(unsafe_code)]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

thread_local! {
    // Without destructor and made at compile time: reading it never allocates.
    static COUNTED: Cell<Allocations> = const {
        Cell::new(Allocations {
            calls: 0,
            bytes: 0,
            freed: 0,
        })
    };
}

/// What a thread has allocated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allocations {
    /// Calls that allocated or grew something.
    pub calls: u64,
    /// Bytes asked for by them.
    pub bytes: u64,
    /// Bytes given back.
    pub freed: u64,
}

impl Allocations {
    /// All of this thread so far. Zero unless [`Counting`] is the program's allocator.
    pub fn so_far() -> Self {
        COUNTED.get()
    }

    /// Those since `before`.
    pub fn since(before: Self) -> Self {
        let now = Self::so_far();
        Self {
            calls: now.calls - before.calls,
            bytes: now.bytes - before.bytes,
            freed: now.freed - before.freed,
        }
    }
}

/// The system's allocator, counted. To be made a program's with `#[global_allocator]`.
#[derive(Debug)]
pub struct Counting;

fn count(call: u64, bytes: usize, freed: usize) {
    // A thread that is just ending has no place to count any more.
    let _ = COUNTED.try_with(|counted| {
        let before = counted.get();
        counted.set(Allocations {
            calls: before.calls + call,
            bytes: before.bytes + bytes as u64,
            freed: before.freed + freed as u64,
        });
    });
}

// SAFETY: every call is handed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(1, layout.size(), 0);
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(1, layout.size(), 0);
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(1, size, layout.size());
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(0, 0, layout.size());
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}
