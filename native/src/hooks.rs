//! The functions that Envoy calls. Each converts pointers to the types of `crate::envoy`, stops panics, and leaves
//! the work to `Configuration` and `Filter`.
#![allow(unsafe_code)]
#![allow(clippy::missing_safety_doc, reason = "only Envoy calls these, by the rules of its ABI")]

use std::cell::Cell;
use std::ffi::c_char;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::abi::{
    self, BodyStatus, ConfigPtr, EnvoyBuffer, EnvoyHeader, HeadersStatus, LocalReplyStatus, LogLevel, OursPtr,
    StreamPtr, TrailersStatus,
};
use crate::configuration::check_name;
use crate::envoy::{self, Config, Stream};
use crate::filter::{After, Filter};
use crate::generations::Generations;
use crate::outbox::Answer;
use crate::reply::OwnedReply;
use crate::routes::RouteRule;

/// A filter and its lifetime. A call of ours can end the stream, and Envoy 1.39 then destroys the filter before that
/// call returns. Later releases wait.
struct Slot {
    /// `None`: no configuration can be made, because a secret is missing.
    filter: Option<Filter>,
    /// Hooks nest: a local reply runs the hooks for response headers before it returns.
    hooks: Cell<u32>,
    gone: Cell<bool>,
    /// Without a configuration: the reply was given.
    refused: Cell<bool>,
}

#[unsafe(no_mangle)]
pub extern "C" fn envoy_dynamic_module_on_program_init() -> *const c_char {
    std::panic::set_hook(Box::new(|panic| {
        // The message is left out: it may quote what a client sent.
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        envoy::log(LogLevel::Critical, &format!("portcullis: a fault in the module at {place}"));
    }));
    abi::VERSION.as_ptr()
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn envoy_dynamic_module_on_http_filter_config_new(
    config: ConfigPtr,
    name: EnvoyBuffer,
    document: EnvoyBuffer,
) -> OursPtr {
    let made = caught(|| {
        // SAFETY: Envoy gives all three for the time of this hook, which runs on the main thread.
        let (mut config, name, document) =
            unsafe { (Config::from_hook(config), envoy::bytes(name), envoy::bytes(document)) };
        Generations::new(&mut config, name, document)
    });
    let why = match made {
        Some(Ok(generations)) => return Arc::into_raw(Arc::new(generations)).cast(),
        Some(Err(why)) => why,
        None => "a fault in the module".to_owned(),
    };
    envoy::log(LogLevel::Error, &format!("portcullis: the configuration is refused: {why}"));
    std::ptr::null()
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn envoy_dynamic_module_on_http_filter_config_destroy(ours: OursPtr) {
    if ours.is_null() {
        return;
    }
    // On any thread: the last request of a configuration that was replaced ends on its worker.
    // SAFETY: `ours` came from `config_new`, and Envoy gives it back once.
    let generations = unsafe { Arc::from_raw(ours.cast::<Generations>()) };
    let _ = caught(|| {
        generations.retire();
        drop(generations);
    });
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn envoy_dynamic_module_on_http_filter_per_route_config_new(
    name: EnvoyBuffer,
    document: EnvoyBuffer,
) -> OursPtr {
    let made = caught(|| {
        // SAFETY: Envoy gives both for the time of this hook, which runs on the main thread.
        let (name, document) = unsafe { (envoy::bytes(name), envoy::bytes(document)) };
        check_name("per_route_config_name", name)?;
        RouteRule::new(document)
    });
    let why = match made {
        Some(Ok(route)) => return Arc::into_raw(route).cast(),
        Some(Err(why)) => why,
        None => "a fault in the module".to_owned(),
    };
    envoy::log(LogLevel::Error, &format!("portcullis: the configuration of a route is refused: {why}"));
    std::ptr::null()
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn envoy_dynamic_module_on_http_filter_per_route_config_destroy(ours: OursPtr) {
    if !ours.is_null() {
        // SAFETY: `ours` came from `per_route_config_new`, and Envoy gives it back once.
        drop(unsafe { Arc::from_raw(ours.cast::<RouteRule>()) });
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn envoy_dynamic_module_on_http_filter_config_scheduled(
    config: ConfigPtr,
    ours: OursPtr,
    event: u64,
) {
    // SAFETY: as the ABI says; the hook runs on the main thread.
    unsafe { on_config(config, ours, |configuration, config| configuration.on_event(config, event)) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn envoy_dynamic_module_on_http_filter_config_http_callout_done(
    config: ConfigPtr,
    ours: OursPtr,
    callout: u64,
    result: u32,
    headers: *const EnvoyHeader,
    headers_count: usize,
    chunks: *const EnvoyBuffer,
    chunks_count: usize,
) {
    // SAFETY: as the ABI says; headers and body last until the hook ends, and so do these two.
    unsafe {
        on_config(config, ours, |configuration, config| {
            let answer = if result == abi::SUCCESS {
                Answer { headers: envoy::headers(headers, headers_count), body: envoy::chunks(chunks, chunks_count) }
            } else {
                Answer::NONE
            };
            configuration.on_answer(config, callout, &answer);
        });
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn envoy_dynamic_module_on_http_filter_new(ours: OursPtr, stream: StreamPtr) -> OursPtr {
    // SAFETY: `ours` came from `config_new` and is alive while Envoy makes filters of it.
    let generations = unsafe { &*ours.cast::<Generations>() };
    // SAFETY: Envoy gave `stream` to this hook.
    let stream = unsafe { Stream::from_hook(stream) };
    let filter = generations.enter().map(|configuration| Filter::new(configuration, &stream));
    Box::into_raw(Box::new(Slot { filter, hooks: Cell::new(0), gone: Cell::new(false), refused: Cell::new(false) }))
        .cast_const()
        .cast()
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn envoy_dynamic_module_on_http_filter_destroy(ours: OursPtr) {
    if ours.is_null() {
        return;
    }
    // SAFETY: `ours` came from `filter_new`, and Envoy gives it back once.
    let in_hook = unsafe {
        let slot = &*ours.cast::<Slot>();
        let _ = caught(|| slot.filter.as_ref().map(Filter::on_destroy));
        slot.gone.set(true);
        slot.hooks.get() > 0
    };
    // A hook about this stream is still on the stack. It frees the filter when it ends.
    if !in_hook {
        // SAFETY: no hook uses it, and none will.
        unsafe { free(ours) }
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn envoy_dynamic_module_on_http_filter_request_headers(
    stream: StreamPtr,
    ours: OursPtr,
    end_of_stream: bool,
) -> HeadersStatus {
    // SAFETY: as the ABI says.
    unsafe {
        on_stream(stream, ours, HeadersStatus::StopIteration, |filter, stream| {
            filter.on_request_headers(stream, end_of_stream)
        })
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn envoy_dynamic_module_on_http_filter_request_body(
    stream: StreamPtr,
    ours: OursPtr,
    _end_of_stream: bool,
) -> BodyStatus {
    // SAFETY: as the ABI says.
    unsafe {
        on_stream(stream, ours, BodyStatus::StopIterationNoBuffer, |filter, _| {
            (filter.on_request_body(), After::Nothing)
        })
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn envoy_dynamic_module_on_http_filter_request_trailers(
    stream: StreamPtr,
    ours: OursPtr,
) -> TrailersStatus {
    // SAFETY: as the ABI says.
    unsafe { on_stream(stream, ours, TrailersStatus::StopIteration, Filter::on_request_trailers) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn envoy_dynamic_module_on_http_filter_response_headers(
    stream: StreamPtr,
    ours: OursPtr,
    _end_of_stream: bool,
) -> HeadersStatus {
    // SAFETY: `ours` came from `filter_new`, and is freed after this hook.
    if unsafe { (*ours.cast::<Slot>()).filter.is_none() } {
        // A reply of ours, or of another filter.
        return HeadersStatus::Continue;
    }
    // SAFETY: as the ABI says.
    unsafe { on_stream(stream, ours, HeadersStatus::StopIteration, Filter::on_response_headers) }
}

#[unsafe(no_mangle)]
pub extern "C" fn envoy_dynamic_module_on_http_filter_response_body(_: StreamPtr, _: OursPtr, _: bool) -> BodyStatus {
    BodyStatus::Continue
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn envoy_dynamic_module_on_http_filter_response_trailers(
    stream: StreamPtr,
    ours: OursPtr,
) -> TrailersStatus {
    // SAFETY: as for the hook for response headers.
    if unsafe { (*ours.cast::<Slot>()).filter.is_none() } {
        return TrailersStatus::Continue;
    }
    // SAFETY: as the ABI says.
    unsafe { on_stream(stream, ours, TrailersStatus::Continue, Filter::on_response_trailers) }
}

#[unsafe(no_mangle)]
pub extern "C" fn envoy_dynamic_module_on_http_filter_stream_complete(_: StreamPtr, _: OursPtr) {}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn envoy_dynamic_module_on_http_filter_scheduled(stream: StreamPtr, ours: OursPtr, event: u64) {
    // SAFETY: as the ABI says.
    unsafe { on_stream(stream, ours, (), |filter, stream| ((), filter.on_event(stream, event))) }
}

#[unsafe(no_mangle)]
pub extern "C" fn envoy_dynamic_module_on_http_filter_local_reply(
    _: StreamPtr,
    _: OursPtr,
    _status: u32,
    _details: EnvoyBuffer,
    _reset_imminent: bool,
) -> LocalReplyStatus {
    LocalReplyStatus::Continue
}

// Envoy refuses a module without these. Nothing here causes the events that they report.

#[unsafe(no_mangle)]
pub extern "C" fn envoy_dynamic_module_on_http_filter_http_callout_done(
    _: StreamPtr,
    _: OursPtr,
    _callout: u64,
    _result: u32,
    _headers: *const EnvoyHeader,
    _headers_count: usize,
    _chunks: *const EnvoyBuffer,
    _chunks_count: usize,
) {
}

#[unsafe(no_mangle)]
pub extern "C" fn envoy_dynamic_module_on_http_filter_http_stream_headers(
    _: StreamPtr,
    _: OursPtr,
    _id: u64,
    _headers: *const EnvoyHeader,
    _headers_count: usize,
    _end_of_stream: bool,
) {
}

#[unsafe(no_mangle)]
pub extern "C" fn envoy_dynamic_module_on_http_filter_http_stream_data(
    _: StreamPtr,
    _: OursPtr,
    _id: u64,
    _chunks: *const EnvoyBuffer,
    _chunks_count: usize,
    _end_of_stream: bool,
) {
}

#[unsafe(no_mangle)]
pub extern "C" fn envoy_dynamic_module_on_http_filter_http_stream_trailers(
    _: StreamPtr,
    _: OursPtr,
    _id: u64,
    _trailers: *const EnvoyHeader,
    _trailers_count: usize,
) {
}

#[unsafe(no_mangle)]
pub extern "C" fn envoy_dynamic_module_on_http_filter_http_stream_complete(_: StreamPtr, _: OursPtr, _id: u64) {}

#[unsafe(no_mangle)]
pub extern "C" fn envoy_dynamic_module_on_http_filter_http_stream_reset(
    _: StreamPtr,
    _: OursPtr,
    _id: u64,
    _reason: u32,
) {
}

#[unsafe(no_mangle)]
pub extern "C" fn envoy_dynamic_module_on_http_filter_downstream_above_write_buffer_high_watermark(
    _: StreamPtr,
    _: OursPtr,
) {
}

#[unsafe(no_mangle)]
pub extern "C" fn envoy_dynamic_module_on_http_filter_downstream_below_write_buffer_low_watermark(
    _: StreamPtr,
    _: OursPtr,
) {
}

/// Runs `work` about a stream, and then what can end that stream. `closed` is the status of a hook that failed.
///
/// # Safety
/// Envoy gave both pointers to the hook that runs, and `ours` came from `filter_new`.
unsafe fn on_stream<S>(
    stream: StreamPtr,
    ours: OursPtr,
    closed: S,
    work: impl FnOnce(&Filter, &mut Stream<'_>) -> (S, After),
) -> S {
    // SAFETY: the filter is freed by `destroy` outside of hooks, or below, by the outermost hook.
    let slot = unsafe { &*ours.cast::<Slot>() };
    slot.hooks.set(slot.hooks.get().saturating_add(1));
    // SAFETY: the caller's promise; the handle ends with this hook.
    let mut handle = unsafe { Stream::from_hook(stream) };
    let (status, after) = match &slot.filter {
        Some(filter) => caught(|| work(filter, &mut handle)).unwrap_or_else(|| {
            let after = caught(|| filter.refuse_for_fault(&mut handle)).unwrap_or(After::Nothing);
            let _ = caught(|| filter.clean_up_after_fault(Some(handle.meter())));
            (closed, after)
        }),
        None => (closed, unconfigured(slot, &handle)),
    };
    // What follows may run other hooks about this stream before it returns, and end it.
    match after {
        After::Nothing => {}
        After::Resume => handle.resume(),
        After::Reset => handle.reset("portcullis_ended"),
        After::Reply(reply) => {
            let _ = caught(|| reply.send(handle));
        }
    }
    slot.hooks.set(slot.hooks.get().saturating_sub(1));
    if slot.hooks.get() == 0 && slot.gone.get() {
        // SAFETY: Envoy is done with it, and no hook below this one uses it. `slot` is not used again.
        unsafe { free(ours) }
    }
    status
}

/// The first hook of a request without a configuration refuses it.
fn unconfigured(slot: &Slot, stream: &Stream<'_>) -> After {
    if slot.refused.replace(true) {
        return After::Nothing;
    }
    let title = "a secret of the filter is missing";
    After::Reply(OwnedReply::unavailable("SECRET_MISSING", title).for_request(stream))
}

/// Runs `work` about a configuration.
///
/// # Safety
/// Envoy gave both pointers to the hook that runs on the main thread, and `ours` came from `config_new`.
unsafe fn on_config(config: ConfigPtr, ours: OursPtr, work: impl FnOnce(&Generations, &mut Config<'_>)) {
    // SAFETY: the caller's promise. One more owner for the time of the hook: a worker may give the last one back.
    let (configuration, mut config) = unsafe {
        Arc::increment_strong_count(ours.cast::<Generations>());
        (Arc::from_raw(ours.cast::<Generations>()), Config::from_hook(config))
    };
    if caught(|| work(&configuration, &mut config)).is_none() {
        let _ = caught(|| configuration.on_fault(Some(config.meter())));
    }
}

/// # Safety
/// `ours` came from `filter_new`, and is freed once.
unsafe fn free(ours: OursPtr) {
    // SAFETY: the caller's promise.
    let slot = unsafe { Box::from_raw(ours.cast::<Slot>().cast_mut()) };
    if let Some(filter) = &slot.filter
        && caught(|| filter.on_gone()).is_none()
    {
        let _ = caught(|| filter.clean_up_after_fault(None));
    }
    let _ = caught(|| drop(slot));
}

/// `None` after a panic. The panic hook has logged where. The state is then used only by code that fails closed.
fn caught<T>(work: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(work)).ok()
}
