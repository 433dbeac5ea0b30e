//! Panics and times that tests choose. Without the feature `injection`, none.
use authn::time::Now;

/// The calls of the driver that can be made to panic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// It reads the clocks: at the begin of most work.
    Now,
    /// It sends a callout: the request has joined those that wait.
    Call,
    /// It counts: the answer to an introspection was taken, and no request was told.
    Add,
}

#[cfg(not(feature = "injection"))]
#[inline(always)]
pub fn point(_: Point) {}

#[cfg(not(feature = "injection"))]
#[inline(always)]
pub fn now() -> Option<Now> {
    None
}

#[cfg(feature = "injection")]
pub use on::{now, panic_at, point, set_now};

#[cfg(feature = "injection")]
mod on {
    #![allow(clippy::panic, reason = "its purpose")]
    use std::cell::Cell;

    use super::{Now, Point};

    thread_local! {
        static NOW: Cell<Option<Now>> = const { Cell::new(None) };
        static NEXT: Cell<Option<Point>> = const { Cell::new(None) };
    }

    /// The clocks stand at `now` for this thread, until they are set again.
    pub fn set_now(now: Now) {
        NOW.set(Some(now));
    }

    pub fn now() -> Option<Now> {
        NOW.get()
    }

    /// The next time that this thread comes to `point`, it panics.
    pub fn panic_at(point: Point) {
        NEXT.set(Some(point));
    }

    pub fn point(point: Point) {
        if NEXT.get() == Some(point) {
            NEXT.set(None);
            panic!("a test causes this panic");
        }
    }
}
