//! The part of Envoy's dynamic-module ABI that this module uses: types, constants and callbacks. Nothing here calls
//! them. Written from Envoy's `abi.h` of ABI v0.2.0.
//!
//! Only callbacks that Envoy 1.39 also exports are declared. The loader binds all of them at once, and a missing one
//! keeps the module from loading. A callback of later releases is looked up at run time.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_void};

/// The return value of `on_program_init` in [`crate::hooks`]. Envoy warns about an unknown version, and accepts a
/// module of the release before its own.
pub const VERSION: &CStr = c"v0.2.0";

/// Envoy's `DynamicModuleHttpFilterConfig`.
pub type ConfigPtr = *mut c_void;
/// Envoy's `DynamicModuleHttpFilter`.
pub type StreamPtr = *mut c_void;
/// Our object. A hook made it, and every later hook gets it.
pub type OursPtr = *const c_void;
/// Made by Envoy, freed by us.
pub type SchedulerPtr = *mut c_void;

/// Bytes that Envoy owns: they last as long as the callback that gives them says. `ptr` may be null where `length` is 0.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct EnvoyBuffer {
    pub ptr: *const u8,
    pub length: usize,
}

/// Bytes that we own. Envoy copies what it keeps.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct ModuleBuffer {
    pub ptr: *const u8,
    pub length: usize,
}

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct EnvoyHeader {
    pub name: *const u8,
    pub name_length: usize,
    pub value: *const u8,
    pub value_length: usize,
}

/// Also the ABI's key-value pair, which has the same members.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct ModuleHeader {
    pub name: *const u8,
    pub name_length: usize,
    pub value: *const u8,
    pub value_length: usize,
}

#[repr(u32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeaderMap {
    Request = 0,
    RequestTrailers = 1,
    Response = 2,
    ResponseTrailers = 3,
}

#[repr(u32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    Trace = 0,
    Debug = 1,
    Info = 2,
    Warn = 3,
    Error = 4,
    Critical = 5,
}

/// The attributes that are read here, by their place in the ABI's list.
#[repr(u32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attribute {
    SourceAddress = 24,
    ConnectionUriSanPeerCertificate = 37,
    ConnectionSha256PeerCertificateDigest = 38,
}

/// What Envoy does after the hook for request or response headers.
#[repr(u32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadersStatus {
    Continue = 0,
    /// After a local reply.
    StopIteration = 1,
    /// Body and trailers wait too, in a buffer that stops the client when it is full.
    StopAllIterationAndWatermark = 4,
}

#[repr(u32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyStatus {
    Continue = 0,
    StopIterationAndWatermark = 2,
    StopIterationNoBuffer = 3,
}

#[repr(u32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrailersStatus {
    Continue = 0,
    StopIteration = 1,
}

#[repr(u32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LocalReplyStatus {
    Continue = 0,
}

/// Why a stream is reset.
#[repr(u32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResetReason {
    LocalReset = 0,
}

/// Results come as numbers: a value that this file does not know must not be undefined behaviour.
pub type MetricsResult = u32;
pub type CalloutInitResult = u32;
pub type CalloutResult = u32;

/// Of each of the three.
pub const SUCCESS: u32 = 0;

/// `envoy_dynamic_module_type_http_callout_init_result`.
pub const CALLOUT_INIT_RESULTS: [&str; 5] = [
    "success",
    "a request header is missing",
    "there is no such cluster",
    "the callout has a number that is taken",
    "no request can be made: the cluster has no endpoint, or its limits are reached",
];

/// `envoy_dynamic_module_callback_http_filter_config_generic_secret_subscribe`, since Envoy 1.40: configuration, name of the
/// secret, `ConfigSource` as JSON or nothing. Returns the number of the secret, or 0.
pub type SubscribeSecret = unsafe extern "C" fn(ConfigPtr, ModuleBuffer, ModuleBuffer) -> usize;
/// `envoy_dynamic_module_callback_http_filter_config_get_generic_secret`, since Envoy 1.40: configuration, number, value.
pub type GetSecret = unsafe extern "C" fn(ConfigPtr, usize, *mut EnvoyBuffer) -> bool;

/// Their names.
pub const SUBSCRIBE_SECRET: &CStr = c"envoy_dynamic_module_callback_http_filter_config_generic_secret_subscribe";
pub const GET_SECRET: &CStr = c"envoy_dynamic_module_callback_http_filter_config_get_generic_secret";

unsafe extern "C" {
    /// The C library's. With a null handle it looks in the program and everything that it loaded.
    pub fn dlsym(handle: *mut c_void, symbol: *const c_char) -> *mut c_void;

    #[link_name = "envoy_dynamic_module_callback_log"]
    pub fn log(level: LogLevel, message: ModuleBuffer);
    #[link_name = "envoy_dynamic_module_callback_log_enabled"]
    pub fn log_enabled(level: LogLevel) -> bool;
    #[link_name = "envoy_dynamic_module_callback_get_concurrency"]
    pub fn get_concurrency() -> u32;

    #[link_name = "envoy_dynamic_module_callback_http_filter_config_define_counter"]
    pub fn define_counter(
        config: ConfigPtr,
        name: ModuleBuffer,
        labels: *const ModuleBuffer,
        labels_count: usize,
        id: *mut usize,
    ) -> MetricsResult;
    #[link_name = "envoy_dynamic_module_callback_http_filter_config_define_gauge"]
    pub fn define_gauge(
        config: ConfigPtr,
        name: ModuleBuffer,
        labels: *const ModuleBuffer,
        labels_count: usize,
        id: *mut usize,
    ) -> MetricsResult;
    #[link_name = "envoy_dynamic_module_callback_http_filter_config_define_histogram"]
    pub fn define_histogram(
        config: ConfigPtr,
        name: ModuleBuffer,
        labels: *const ModuleBuffer,
        labels_count: usize,
        id: *mut usize,
    ) -> MetricsResult;
    #[link_name = "envoy_dynamic_module_callback_http_filter_config_increment_counter"]
    pub fn config_increment_counter(
        config: ConfigPtr,
        id: usize,
        labels: *const ModuleBuffer,
        labels_count: usize,
        by: u64,
    ) -> MetricsResult;
    #[link_name = "envoy_dynamic_module_callback_http_filter_config_set_gauge"]
    pub fn config_set_gauge(
        config: ConfigPtr,
        id: usize,
        labels: *const ModuleBuffer,
        labels_count: usize,
        to: u64,
    ) -> MetricsResult;
    #[link_name = "envoy_dynamic_module_callback_http_filter_config_record_histogram_value"]
    pub fn config_record_histogram(
        config: ConfigPtr,
        id: usize,
        labels: *const ModuleBuffer,
        labels_count: usize,
        value: u64,
    ) -> MetricsResult;
    #[link_name = "envoy_dynamic_module_callback_http_filter_increment_counter"]
    pub fn increment_counter(
        stream: StreamPtr,
        id: usize,
        labels: *const ModuleBuffer,
        labels_count: usize,
        by: u64,
    ) -> MetricsResult;
    #[link_name = "envoy_dynamic_module_callback_http_filter_set_gauge"]
    pub fn set_gauge(
        stream: StreamPtr,
        id: usize,
        labels: *const ModuleBuffer,
        labels_count: usize,
        to: u64,
    ) -> MetricsResult;
    #[link_name = "envoy_dynamic_module_callback_http_filter_record_histogram_value"]
    pub fn record_histogram(
        stream: StreamPtr,
        id: usize,
        labels: *const ModuleBuffer,
        labels_count: usize,
        value: u64,
    ) -> MetricsResult;

    #[link_name = "envoy_dynamic_module_callback_http_get_header"]
    pub fn get_header(
        stream: StreamPtr,
        map: HeaderMap,
        name: ModuleBuffer,
        value: *mut EnvoyBuffer,
        index: usize,
        count: *mut usize,
    ) -> bool;
    #[link_name = "envoy_dynamic_module_callback_http_get_headers_size"]
    pub fn get_headers_size(stream: StreamPtr, map: HeaderMap) -> usize;
    #[link_name = "envoy_dynamic_module_callback_http_get_headers"]
    pub fn get_headers(stream: StreamPtr, map: HeaderMap, headers: *mut EnvoyHeader) -> bool;
    #[link_name = "envoy_dynamic_module_callback_http_set_header"]
    pub fn set_header(stream: StreamPtr, map: HeaderMap, name: ModuleBuffer, value: ModuleBuffer) -> bool;
    #[link_name = "envoy_dynamic_module_callback_http_add_header"]
    pub fn add_header(stream: StreamPtr, map: HeaderMap, name: ModuleBuffer, value: ModuleBuffer) -> bool;
    #[link_name = "envoy_dynamic_module_callback_http_send_response"]
    pub fn send_response(
        stream: StreamPtr,
        status: u32,
        headers: *const ModuleHeader,
        headers_count: usize,
        body: ModuleBuffer,
        details: ModuleBuffer,
    );
    #[link_name = "envoy_dynamic_module_callback_http_filter_continue_decoding"]
    pub fn continue_decoding(stream: StreamPtr);
    #[link_name = "envoy_dynamic_module_callback_http_filter_reset_stream"]
    pub fn reset_stream(stream: StreamPtr, reason: ResetReason, details: ModuleBuffer);
    #[link_name = "envoy_dynamic_module_callback_http_clear_route_cache"]
    pub fn clear_route_cache(stream: StreamPtr);
    #[link_name = "envoy_dynamic_module_callback_get_most_specific_route_config"]
    pub fn get_route_config(stream: StreamPtr) -> OursPtr;
    #[link_name = "envoy_dynamic_module_callback_http_filter_get_attribute_string"]
    pub fn get_attribute_string(stream: StreamPtr, attribute: Attribute, value: *mut EnvoyBuffer) -> bool;
    #[link_name = "envoy_dynamic_module_callback_http_filter_get_worker_index"]
    pub fn get_worker_index(stream: StreamPtr) -> u32;

    #[link_name = "envoy_dynamic_module_callback_http_set_dynamic_metadata_string_batch"]
    pub fn set_metadata_strings(
        stream: StreamPtr,
        namespace: ModuleBuffer,
        entries: *const ModuleHeader,
        entries_count: usize,
    );

    #[link_name = "envoy_dynamic_module_callback_http_add_dynamic_metadata_list_string"]
    pub fn add_metadata_list_string(
        stream: StreamPtr,
        namespace: ModuleBuffer,
        key: ModuleBuffer,
        value: ModuleBuffer,
    ) -> bool;
    #[link_name = "envoy_dynamic_module_callback_http_set_filter_state_bytes"]
    pub fn set_filter_state_bytes(stream: StreamPtr, key: ModuleBuffer, value: ModuleBuffer) -> bool;

    #[link_name = "envoy_dynamic_module_callback_http_add_custom_flag"]
    pub fn add_custom_flag(stream: StreamPtr, flag: ModuleBuffer);

    #[link_name = "envoy_dynamic_module_callback_http_filter_scheduler_new"]
    pub fn scheduler_new(stream: StreamPtr) -> SchedulerPtr;
    #[link_name = "envoy_dynamic_module_callback_http_filter_scheduler_commit"]
    pub fn scheduler_commit(scheduler: SchedulerPtr, event: u64);
    #[link_name = "envoy_dynamic_module_callback_http_filter_scheduler_delete"]
    pub fn scheduler_delete(scheduler: SchedulerPtr);
    #[link_name = "envoy_dynamic_module_callback_http_filter_config_scheduler_new"]
    pub fn config_scheduler_new(config: ConfigPtr) -> SchedulerPtr;
    #[link_name = "envoy_dynamic_module_callback_http_filter_config_scheduler_commit"]
    pub fn config_scheduler_commit(scheduler: SchedulerPtr, event: u64);
    #[link_name = "envoy_dynamic_module_callback_http_filter_config_scheduler_delete"]
    pub fn config_scheduler_delete(scheduler: SchedulerPtr);
    #[link_name = "envoy_dynamic_module_callback_http_filter_config_http_callout"]
    pub fn config_http_callout(
        config: ConfigPtr,
        callout: *mut u64,
        cluster: ModuleBuffer,
        headers: *const ModuleHeader,
        headers_count: usize,
        body: ModuleBuffer,
        timeout_ms: u64,
    ) -> CalloutInitResult;
}
