//! The only host calls, each fallible. The SDK's own wrappers panic on an unexpected status and on text that is not
//! UTF-8, and a panic in the proxy is an outage.
#![allow(unsafe_code)]

use std::time::Duration;

use authn::time::{Monotonic, Now, UnixSeconds};
use proxy_wasm::types::{BufferType, Status, StreamType};
pub use proxy_wasm::types::{LogLevel, MapType, MetricType};

use crate::pairs;

pub use driver::HostError;

type Result<T> = std::result::Result<T, HostError>;

const OK: u32 = Status::Ok as u32;
const NOT_FOUND: u32 = Status::NotFound as u32;
pub const CAS_MISMATCH: HostError = HostError(Status::CasMismatch as u32);
pub const INTERNAL_FAILURE: HostError = HostError(Status::InternalFailure as u32);

#[cfg(target_arch = "wasm32")]
mod imports {
    unsafe extern "C" {
        pub fn proxy_log(level: u32, message: *const u8, size: usize) -> u32;
        pub fn proxy_get_current_time_nanoseconds(time: *mut u64) -> u32;
        pub fn proxy_set_tick_period_milliseconds(period: u32) -> u32;
        pub fn proxy_get_buffer_bytes(kind: u32, start: usize, max: usize, data: *mut *mut u8, size: *mut usize)
        -> u32;
        pub fn proxy_get_header_map_pairs(map: u32, data: *mut *mut u8, size: *mut usize) -> u32;
        pub fn proxy_get_header_map_value(
            map: u32,
            name: *const u8,
            name_size: usize,
            data: *mut *mut u8,
            size: *mut usize,
        ) -> u32;
        pub fn proxy_replace_header_map_value(
            map: u32,
            name: *const u8,
            name_size: usize,
            value: *const u8,
            value_size: usize,
        ) -> u32;
        pub fn proxy_add_header_map_value(
            map: u32,
            name: *const u8,
            name_size: usize,
            value: *const u8,
            value_size: usize,
        ) -> u32;
        pub fn proxy_remove_header_map_value(map: u32, name: *const u8, name_size: usize) -> u32;
        pub fn proxy_get_property(path: *const u8, path_size: usize, data: *mut *mut u8, size: *mut usize) -> u32;
        pub fn proxy_set_property(path: *const u8, path_size: usize, value: *const u8, value_size: usize) -> u32;
        pub fn proxy_get_shared_data(
            key: *const u8,
            key_size: usize,
            data: *mut *mut u8,
            size: *mut usize,
            cas: *mut u32,
        ) -> u32;
        pub fn proxy_set_shared_data(
            key: *const u8,
            key_size: usize,
            value: *const u8,
            value_size: usize,
            cas: u32,
        ) -> u32;
        pub fn proxy_http_call(
            cluster: *const u8,
            cluster_size: usize,
            headers: *const u8,
            headers_size: usize,
            body: *const u8,
            body_size: usize,
            trailers: *const u8,
            trailers_size: usize,
            timeout: u32,
            call: *mut u32,
        ) -> u32;
        pub fn proxy_continue_stream(stream: u32) -> u32;
        pub fn proxy_close_stream(stream: u32) -> u32;
        pub fn proxy_send_local_response(
            status: u32,
            details: *const u8,
            details_size: usize,
            body: *const u8,
            body_size: usize,
            headers: *const u8,
            headers_size: usize,
            grpc_status: i32,
        ) -> u32;
        pub fn proxy_define_metric(kind: u32, name: *const u8, name_size: usize, metric: *mut u32) -> u32;
        pub fn proxy_increment_metric(metric: u32, offset: i64) -> u32;
        pub fn proxy_record_metric(metric: u32, value: u64) -> u32;
        pub fn proxy_set_effective_context(context: u32) -> u32;
        pub fn proxy_call_foreign_function(
            name: *const u8,
            name_size: usize,
            argument: *const u8,
            argument_size: usize,
            result: *mut *mut u8,
            result_size: *mut usize,
        ) -> u32;
    }

    #[link(wasm_import_module = "wasi_snapshot_preview1")]
    unsafe extern "C" {
        pub fn clock_time_get(clock: u32, precision: u64, time: *mut u64) -> u32;
    }
}

/// Natively there is no host: this build is only for linting and for tests without a host.
#[cfg(not(target_arch = "wasm32"))]
#[rustfmt::skip]
mod imports {
    const NO_HOST: u32 = super::Status::InternalFailure as u32;
    pub unsafe fn proxy_log(_: u32, _: *const u8, _: usize) -> u32 { NO_HOST }
    pub unsafe fn proxy_get_current_time_nanoseconds(_: *mut u64) -> u32 { NO_HOST }
    pub unsafe fn proxy_set_tick_period_milliseconds(_: u32) -> u32 { NO_HOST }
    pub unsafe fn proxy_get_buffer_bytes(_: u32, _: usize, _: usize, _: *mut *mut u8, _: *mut usize) -> u32 { NO_HOST }
    pub unsafe fn proxy_get_header_map_pairs(_: u32, _: *mut *mut u8, _: *mut usize) -> u32 { NO_HOST }
    pub unsafe fn proxy_get_header_map_value(_: u32, _: *const u8, _: usize, _: *mut *mut u8, _: *mut usize) -> u32 { NO_HOST }
    pub unsafe fn proxy_replace_header_map_value(_: u32, _: *const u8, _: usize, _: *const u8, _: usize) -> u32 { NO_HOST }
    pub unsafe fn proxy_add_header_map_value(_: u32, _: *const u8, _: usize, _: *const u8, _: usize) -> u32 { NO_HOST }
    pub unsafe fn proxy_remove_header_map_value(_: u32, _: *const u8, _: usize) -> u32 { NO_HOST }
    pub unsafe fn proxy_get_property(_: *const u8, _: usize, _: *mut *mut u8, _: *mut usize) -> u32 { NO_HOST }
    pub unsafe fn proxy_set_property(_: *const u8, _: usize, _: *const u8, _: usize) -> u32 { NO_HOST }
    pub unsafe fn proxy_get_shared_data(_: *const u8, _: usize, _: *mut *mut u8, _: *mut usize, _: *mut u32) -> u32 { NO_HOST }
    pub unsafe fn proxy_set_shared_data(_: *const u8, _: usize, _: *const u8, _: usize, _: u32) -> u32 { NO_HOST }
    #[allow(clippy::too_many_arguments)]
    pub unsafe fn proxy_http_call(_: *const u8, _: usize, _: *const u8, _: usize, _: *const u8, _: usize, _: *const u8, _: usize, _: u32, _: *mut u32) -> u32 { NO_HOST }
    pub unsafe fn proxy_continue_stream(_: u32) -> u32 { NO_HOST }
    pub unsafe fn proxy_close_stream(_: u32) -> u32 { NO_HOST }
    #[allow(clippy::too_many_arguments)]
    pub unsafe fn proxy_send_local_response(_: u32, _: *const u8, _: usize, _: *const u8, _: usize, _: *const u8, _: usize, _: i32) -> u32 { NO_HOST }
    pub unsafe fn proxy_define_metric(_: u32, _: *const u8, _: usize, _: *mut u32) -> u32 { NO_HOST }
    pub unsafe fn proxy_increment_metric(_: u32, _: i64) -> u32 { NO_HOST }
    pub unsafe fn proxy_record_metric(_: u32, _: u64) -> u32 { NO_HOST }
    pub unsafe fn proxy_set_effective_context(_: u32) -> u32 { NO_HOST }
    pub unsafe fn proxy_call_foreign_function(_: *const u8, _: usize, _: *const u8, _: usize, _: *mut *mut u8, _: *mut usize) -> u32 { NO_HOST }
    pub unsafe fn clock_time_get(_: u32, _: u64, _: *mut u64) -> u32 { NO_HOST }
}

pub fn log(level: LogLevel, message: &str) {
    // Nothing can be done about a log line that cannot be written.
    let _ = unsafe { imports::proxy_log(level as u32, message.as_ptr(), message.len()) };
}

/// Both clocks for the price of one: the wall clock is read when this is set, and extrapolated by the monotonic one. If
/// the wall clock is set, this is noticed at the next tick.
#[derive(Debug)]
pub struct Clock {
    /// Nanoseconds.
    wall_ahead: u64,
}

impl Clock {
    /// # Errors
    /// Without either clock no request can be judged.
    pub fn start() -> Result<Self> {
        let mut clock = Self { wall_ahead: 0 };
        clock.set()?;
        Ok(clock)
    }

    pub fn set(&mut self) -> Result<Now> {
        let mut wall = 0u64;
        check(unsafe { imports::proxy_get_current_time_nanoseconds(&mut wall) })?;
        self.wall_ahead = wall.wrapping_sub(monotonic()?.0);
        self.now()
    }

    pub fn now(&self) -> Result<Now> {
        let monotonic = monotonic()?;
        let wall = Duration::from_nanos(monotonic.0.wrapping_add(self.wall_ahead));
        Ok(Now { wall: UnixSeconds(wall.as_secs()), monotonic })
    }
}

fn monotonic() -> Result<Monotonic> {
    const MONOTONIC: u32 = 1;
    let mut time = 0u64;
    check(unsafe { imports::clock_time_get(MONOTONIC, 1, &mut time) })?;
    Ok(Monotonic(time))
}

pub fn set_tick_period(period: Duration) -> Result<()> {
    let millis = u32::try_from(period.as_millis()).unwrap_or(u32::MAX);
    check(unsafe { imports::proxy_set_tick_period_milliseconds(millis) })
}

pub fn plugin_configuration() -> Result<Vec<u8>> {
    buffer(BufferType::PluginConfiguration, usize::MAX)
}

/// At most `max` bytes of the body of the current call's answer.
pub fn call_body(max: usize) -> Result<Vec<u8>> {
    buffer(BufferType::HttpCallResponseBody, max)
}

fn buffer(kind: BufferType, max: usize) -> Result<Vec<u8>> {
    returned(|data, size| unsafe { imports::proxy_get_buffer_bytes(kind as u32, 0, max, data, size) })
        .map(Option::unwrap_or_default)
}

/// A complete header map, in the form that [`pairs::read`] takes.
pub fn header_map(map: MapType) -> Result<Vec<u8>> {
    returned(|data, size| unsafe { imports::proxy_get_header_map_pairs(map as u32, data, size) })
        .map(Option::unwrap_or_default)
}

/// The first value under this name.
pub fn header(map: MapType, name: &[u8]) -> Result<Option<Vec<u8>>> {
    returned(|data, size| unsafe {
        imports::proxy_get_header_map_value(map as u32, name.as_ptr(), name.len(), data, size)
    })
}

/// Sets one value that replaces all values under this name.
pub fn set_header(map: MapType, name: &[u8], value: &[u8]) -> Result<()> {
    check(unsafe {
        imports::proxy_replace_header_map_value(map as u32, name.as_ptr(), name.len(), value.as_ptr(), value.len())
    })
}

/// Adds a value, beside those under this name if there are any.
pub fn add_header(map: MapType, name: &[u8], value: &[u8]) -> Result<()> {
    check(unsafe {
        imports::proxy_add_header_map_value(map as u32, name.as_ptr(), name.len(), value.as_ptr(), value.len())
    })
}

/// Removes all values under this name.
pub fn remove_header(map: MapType, name: &[u8]) -> Result<()> {
    check(unsafe { imports::proxy_remove_header_map_value(map as u32, name.as_ptr(), name.len()) })
}

/// A property by its path; absent is `None`.
pub fn property(path: &[&str]) -> Result<Option<Vec<u8>>> {
    let path = path.join("\0");
    returned(|data, size| unsafe { imports::proxy_get_property(path.as_ptr(), path.len(), data, size) })
}

/// Sets filter state of the effective context's request. Its name is not split at dots.
pub fn set_property(name: &str, value: &[u8]) -> Result<()> {
    check(unsafe { imports::proxy_set_property(name.as_ptr(), name.len(), value.as_ptr(), value.len()) })
}

/// A shared entry and the number for a compare-and-set of it.
pub fn shared(key: &str) -> Result<Option<(Vec<u8>, u32)>> {
    let mut cas = 0u32;
    let value = returned(|data, size| unsafe {
        imports::proxy_get_shared_data(key.as_ptr(), key.len(), data, size, &mut cas)
    })?;
    Ok(value.map(|value| (value, cas)))
}

/// # Errors
/// [`CAS_MISMATCH`] when the entry has changed since `cas` was read; 0 overwrites.
pub fn set_shared(key: &str, value: &[u8], cas: u32) -> Result<()> {
    check(unsafe { imports::proxy_set_shared_data(key.as_ptr(), key.len(), value.as_ptr(), value.len(), cas) })
}

/// Sends a request to a cluster; the answer comes to the context that is effective now, under the returned number.
///
/// # Errors
/// At once if the cluster is unknown or has no endpoint: no callback follows then.
pub fn call(cluster: &str, headers: &[(&[u8], &[u8])], body: &[u8], timeout: Duration) -> Result<u32> {
    let headers = pairs::write(headers);
    let trailers = pairs::write(&[]);
    // 0 would mean no timeout at all.
    let millis = u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX).max(1);
    let mut call = 0u32;
    check(unsafe {
        imports::proxy_http_call(
            cluster.as_ptr(),
            cluster.len(),
            headers.as_ptr(),
            headers.len(),
            body.as_ptr(),
            body.len(),
            trailers.as_ptr(),
            trailers.len(),
            millis,
            &mut call,
        )
    })?;
    Ok(call)
}

/// Lets the paused request of the effective context continue.
pub fn resume_request() -> Result<()> {
    check(unsafe { imports::proxy_continue_stream(StreamType::HttpRequest as u32) })
}

/// Resets the stream of the effective context, after this callback. Call it once for a stream.
pub fn reset_stream() -> Result<()> {
    check(unsafe { imports::proxy_close_stream(StreamType::HttpRequest as u32) })
}

/// Ends the request of the effective context. `details` shows in access logs as RESPONSE_CODE_DETAILS.
pub fn answer(status: u16, details: &str, headers: &[(&[u8], &[u8])], body: &[u8]) -> Result<()> {
    let headers = pairs::write(headers);
    check(unsafe {
        imports::proxy_send_local_response(
            u32::from(status),
            details.as_ptr(),
            details.len(),
            body.as_ptr(),
            body.len(),
            headers.as_ptr(),
            headers.len(),
            -1,
        )
    })
}

pub fn define_metric(kind: MetricType, name: &str) -> Result<u32> {
    let mut metric = 0u32;
    check(unsafe { imports::proxy_define_metric(kind as u32, name.as_ptr(), name.len(), &mut metric) })?;
    Ok(metric)
}

/// `by` must not be 0: the host treats that as a bad argument.
pub fn add_to_metric(metric: u32, by: i64) -> Result<()> {
    check(unsafe { imports::proxy_increment_metric(metric, by) })
}

pub fn record_metric(metric: u32, value: u64) -> Result<()> {
    check(unsafe { imports::proxy_record_metric(metric, value) })
}

/// Makes the following calls apply to this context.
pub fn make_effective(context: u32) -> Result<()> {
    check(unsafe { imports::proxy_set_effective_context(context) })
}

/// Calls a function of this host beyond the ABI.
///
/// # Errors
/// The host does not have it, does not allow it, or it failed.
pub fn call_foreign(name: &str, argument: &[u8]) -> Result<Vec<u8>> {
    let mut absent = false;
    let result = returned(|data, size| {
        let status = unsafe {
            imports::proxy_call_foreign_function(
                name.as_ptr(),
                name.len(),
                argument.as_ptr(),
                argument.len(),
                data,
                size,
            )
        };
        absent = status == NOT_FOUND;
        status
    })?;
    if absent { Err(HostError(NOT_FOUND)) } else { Ok(result.unwrap_or_default()) }
}

/// Makes Envoy choose the route again, by the request as it is now.
///
/// Envoy chose one before this filter ran, and keeps it. For modules of ABI 0.2.1, like this one, it chooses again at
/// every change of a header; for those of a later ABI it does not, since Envoy 1.33. The matched, routed and forwarded
/// request must be the same, so this does not rely on the ABI.
pub fn clear_route_cache() -> Result<()> {
    call_foreign("clear_route_cache", &[]).map(drop)
}

fn check(status: u32) -> Result<()> {
    if status == OK { Ok(()) } else { Err(HostError(status)) }
}

/// Takes ownership of a buffer that the host filled through our allocator.
fn returned(call: impl FnOnce(*mut *mut u8, *mut usize) -> u32) -> Result<Option<Vec<u8>>> {
    let mut data: *mut u8 = std::ptr::null_mut();
    let mut size = 0usize;
    match call(&mut data, &mut size) {
        OK if data.is_null() => Ok(None),
        // SAFETY: the host got `data` from `proxy_on_memory_allocate`, which reserves exactly `size` bytes as a Vec
        // does, filled all of them, and keeps no reference.
        OK => Ok(Some(unsafe { Vec::from_raw_parts(data, size, size) })),
        NOT_FOUND => Ok(None),
        status => Err(HostError(status)),
    }
}
