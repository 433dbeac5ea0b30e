//! Panics that tests cause on purpose. Without the feature `injection`, none.

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

#[cfg(feature = "injection")]
pub use on::{panic_at, point};

#[cfg(feature = "injection")]
mod on {
    #![allow(clippy::panic, reason = "its purpose")]
    use std::cell::Cell;

    use super::Point;

    thread_local! {
        static NEXT: Cell<Option<Point>> = const { Cell::new(None) };
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
