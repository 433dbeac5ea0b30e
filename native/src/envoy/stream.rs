//! One request and its response, while a hook about it runs.
use std::marker::PhantomData;

use super::raw::{self, ABSENT, buffer};
use super::{Meter, StreamScheduler};
use crate::abi::{self, Attribute, EnvoyBuffer, EnvoyHeader, HeaderMap, ResetReason, StreamPtr};

/// Not to be sent or shared: it belongs to one worker, and to one hook.
pub struct Stream<'hook> {
    stream: StreamPtr,
    hook: PhantomData<&'hook mut ()>,
}

/// Name and value.
type Header<'h> = (&'h [u8], &'h [u8]);

const FEW_HEADERS: usize = 32;

/// A local reply.
pub struct Reply<'r> {
    pub status: u16,
    pub headers: &'r [(&'r [u8], &'r [u8])],
    pub body: &'r [u8],
    /// `%RESPONSE_CODE_DETAILS%` in access logs.
    pub details: &'r [u8],
}

impl<'hook> Stream<'hook> {
    /// # Safety
    /// Envoy gave `stream` to the hook that runs, and the handle does not outlive that hook.
    pub(crate) unsafe fn from_hook(stream: StreamPtr) -> Self {
        Self { stream, hook: PhantomData }
    }

    /// Reads every header in order. `None` if there is no such map.
    pub fn with_headers<T>(&self, map: HeaderMap, read: impl FnOnce(&[Header<'_>]) -> T) -> Option<T> {
        // SAFETY: the stream is alive; it takes no other pointer.
        let count = unsafe { abi::get_headers_size(self.stream, map) };
        let none = EnvoyHeader { name: std::ptr::null(), name_length: 0, value: std::ptr::null(), value_length: 0 };
        // Most requests have few headers, and then nothing is allocated.
        let (mut few, mut many) = ([none; FEW_HEADERS], Vec::new());
        let found = match few.get_mut(..count) {
            Some(found) => found,
            None => {
                many.resize(count, none);
                many.as_mut_slice()
            }
        };
        // SAFETY: the array has room for as many as Envoy has just counted, and nothing was set since.
        let is_there = unsafe { abi::get_headers(self.stream, map, found.as_mut_ptr()) };
        if !is_there {
            return None;
        }
        // SAFETY: the bytes stay until something is set, which needs `&mut self`, or the hook ends, which ends `self`.
        let pairs = found.iter().map(|header| unsafe { raw::pair(header) });
        let mut few: [Header<'_>; FEW_HEADERS] = [(&[], &[]); FEW_HEADERS];
        match few.get_mut(..count) {
            Some(few) => {
                few.iter_mut().zip(pairs).for_each(|(place, pair)| *place = pair);
                Some(read(few))
            }
            None => Some(read(&pairs.collect::<Vec<_>>())),
        }
    }

    /// The first value under a name, and how many there are.
    pub fn header(&self, map: HeaderMap, name: &[u8]) -> Option<(&[u8], usize)> {
        let mut value = EnvoyBuffer { ptr: std::ptr::null(), length: 0 };
        let mut count = 0usize;
        // SAFETY: Envoy reads the name before it returns, and writes to both places while they are here.
        let found = unsafe { abi::get_header(self.stream, map, buffer(name), &mut value, 0, &mut count) };
        // SAFETY: as for `with_headers`.
        (found && count > 0).then(|| (unsafe { raw::bytes(value) }, count))
    }

    /// Replaces all values of this name with one. False if there is no such map.
    #[must_use]
    pub fn set(&mut self, map: HeaderMap, name: &[u8], value: &[u8]) -> bool {
        // SAFETY: Envoy copies both before it returns. An empty value is not null, so it is set and not removed.
        unsafe { abi::set_header(self.stream, map, buffer(name), buffer(value)) }
    }

    /// Adds a value, beside those under this name if there are any. False if there is no such map, or the value is empty.
    #[must_use]
    pub fn add(&mut self, map: HeaderMap, name: &[u8], value: &[u8]) -> bool {
        // SAFETY: Envoy copies both before it returns.
        unsafe { abi::add_header(self.stream, map, buffer(name), buffer(value)) }
    }

    /// Removes all values under this name.
    #[must_use]
    pub fn remove(&mut self, map: HeaderMap, name: &[u8]) -> bool {
        // SAFETY: as for `set`; a null value removes.
        unsafe { abi::set_header(self.stream, map, buffer(name), ABSENT) }
    }

    /// Makes Envoy choose the route again from the changed request. Envoy chose one before this filter ran.
    pub fn clear_route_cache(&mut self) {
        // SAFETY: the stream is alive.
        unsafe { abi::clear_route_cache(self.stream) }
    }

    /// The address of what a module returned for the configuration of the request's route. It may be another module's.
    pub fn route_config(&self) -> Option<usize> {
        // SAFETY: the stream is alive.
        let config = unsafe { abi::get_route_config(self.stream) };
        (!config.is_null()).then(|| config.addr())
    }

    pub fn attribute(&self, attribute: Attribute) -> Option<&[u8]> {
        let mut value = EnvoyBuffer { ptr: std::ptr::null(), length: 0 };
        // SAFETY: Envoy writes to `value` while it is here.
        let found = unsafe { abi::get_attribute_string(self.stream, attribute, &mut value) };
        // SAFETY: as for `with_headers`.
        found.then(|| unsafe { raw::bytes(value) })
    }

    /// From 0 to one less than [`super::workers`].
    pub fn worker(&self) -> u32 {
        // SAFETY: the stream is alive.
        unsafe { abi::get_worker_index(self.stream) }
    }

    /// Sets texts under a namespace of the request's dynamic metadata.
    pub fn set_metadata<'e>(&mut self, namespace: &str, entries: impl Iterator<Item = (&'e str, &'e str)>) {
        let entries: Vec<_> = entries.map(|(key, value)| raw::header(key.as_bytes(), value.as_bytes())).collect();
        // SAFETY: Envoy copies all of them before it returns.
        unsafe {
            abi::set_metadata_strings(self.stream, buffer(namespace.as_bytes()), entries.as_ptr(), entries.len());
        }
    }

    /// Sets a list of texts under a namespace of the request's dynamic metadata. The key must be new.
    pub fn set_metadata_list<'m>(&mut self, namespace: &str, key: &str, members: impl Iterator<Item = &'m String>) {
        let (namespace, key) = (buffer(namespace.as_bytes()), buffer(key.as_bytes()));
        for member in members {
            // SAFETY: Envoy copies all of them before it returns.
            let _ = unsafe { abi::add_metadata_list_string(self.stream, namespace, key, buffer(member.as_bytes())) };
        }
    }

    /// Sets filter state of the request, as text.
    pub fn set_filter_state(&mut self, key: &str, value: &[u8]) {
        // SAFETY: Envoy copies both before it returns.
        let _ = unsafe { abi::set_filter_state_bytes(self.stream, buffer(key.as_bytes()), buffer(value)) };
    }

    /// Adds a flag for access logs. It has no space and no comma.
    pub fn add_flag(&mut self, flag: &str) {
        // SAFETY: Envoy copies the flag before it returns.
        unsafe { abi::add_custom_flag(self.stream, buffer(flag.as_bytes())) }
    }

    /// What counts in the name of this stream, beside the handle and for as long.
    pub fn meter(&self) -> Meter<'hook> {
        // SAFETY: the stream is alive until the hook ends or the handle is consumed. Metrics touch no header.
        unsafe { Meter::of_stream(self.stream) }
    }

    /// A handle that wakes this stream later, from any thread.
    pub fn scheduler(&self) -> StreamScheduler {
        // SAFETY: the stream is alive, and Envoy's scheduler holds it weakly.
        StreamScheduler::own(unsafe { abi::scheduler_new(self.stream) })
    }

    /// Answers instead of the upstream. The hook must then return that iteration stops.
    pub fn reply(self, reply: &Reply<'_>) {
        let headers: Vec<_> = reply.headers.iter().map(|(name, value)| raw::header(name, value)).collect();
        // SAFETY: Envoy copies what it keeps of all of these. The stream may be gone when this returns, and so is `self`.
        unsafe {
            abi::send_response(
                self.stream,
                u32::from(reply.status),
                headers.as_ptr(),
                headers.len(),
                buffer(reply.body),
                buffer(reply.details),
            );
        }
    }

    /// Ends the stream. The client sees a reset, or over HTTP/1 that its connection is closed.
    pub fn reset(self, details: &str) {
        // SAFETY: Envoy copies the details before it returns. The stream may be gone then, and so is `self`.
        unsafe { abi::reset_stream(self.stream, ResetReason::LocalReset, buffer(details.as_bytes())) }
    }

    /// Resumes a held request. Only in a hook that Envoy does not run for headers, body or trailers.
    pub fn resume(self) {
        // SAFETY: the stream is alive now; what follows may end it, and so `self` ends here.
        unsafe { abi::continue_decoding(self.stream) }
    }
}
