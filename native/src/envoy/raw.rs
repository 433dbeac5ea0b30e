//! Bytes across the border, both ways.
use std::slice;

use crate::abi::{EnvoyBuffer, EnvoyHeader, ModuleBuffer, ModuleHeader};

/// Lends our bytes. An empty slice keeps a pointer that is not null: to some callbacks null means "absent".
pub fn buffer(bytes: &[u8]) -> ModuleBuffer {
    ModuleBuffer { ptr: bytes.as_ptr(), length: bytes.len() }
}

pub const ABSENT: ModuleBuffer = ModuleBuffer { ptr: std::ptr::null(), length: 0 };

pub fn header(name: &[u8], value: &[u8]) -> ModuleHeader {
    ModuleHeader { name: name.as_ptr(), name_length: name.len(), value: value.as_ptr(), value_length: value.len() }
}

/// # Safety
/// Envoy gave `buffer`, and its bytes stay as they are for `'b`.
pub unsafe fn bytes<'b>(buffer: EnvoyBuffer) -> &'b [u8] {
    // SAFETY: the caller's promise.
    unsafe { part(buffer.ptr, buffer.length) }
}

/// # Safety
/// `ptr` and `length` are of Envoy's, and the bytes stay as they are for `'b`.
unsafe fn part<'b>(ptr: *const u8, length: usize) -> &'b [u8] {
    // An empty string may come as null, which no slice may be.
    if ptr.is_null() || length == 0 {
        return &[];
    }
    // SAFETY: Envoy says that there are `length` bytes, and the caller that they stay.
    unsafe { slice::from_raw_parts(ptr, length) }
}

/// # Safety
/// As for [`bytes`], of both parts.
pub unsafe fn pair<'b>(header: &EnvoyHeader) -> (&'b [u8], &'b [u8]) {
    // SAFETY: the caller's promise, twice.
    unsafe { (part(header.name, header.name_length), part(header.value, header.value_length)) }
}

/// The headers of a callout's answer.
///
/// # Safety
/// Envoy gave `first` and `count` to the hook that runs, and `'b` ends with that hook. `first` may be null where there is
/// none.
pub unsafe fn headers<'b>(first: *const EnvoyHeader, count: usize) -> Vec<(&'b [u8], &'b [u8])> {
    if first.is_null() {
        return Vec::new();
    }
    // SAFETY: the caller's promise.
    unsafe { slice::from_raw_parts(first, count).iter().map(|header| pair(header)).collect() }
}

/// The body of a callout's answer, in as many pieces as Envoy has it.
///
/// # Safety
/// As for [`headers`].
pub unsafe fn chunks<'b>(first: *const EnvoyBuffer, count: usize) -> Vec<&'b [u8]> {
    if first.is_null() {
        return Vec::new();
    }
    // SAFETY: the caller's promise.
    unsafe { slice::from_raw_parts(first, count).iter().map(|chunk| bytes(*chunk)).collect() }
}
