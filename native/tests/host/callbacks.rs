//! The callbacks, by their names in the ABI. A pointer is one of the host's own objects.
use std::ffi::c_void;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use native::abi::{
    Attribute, EnvoyBuffer, EnvoyHeader, HeaderMap, LogLevel, ModuleBuffer, ModuleHeader, ResetReason, SchedulerPtr,
};

use super::{EnvoyConfig, EnvoyStream, Pairs, Scheduler, SentCallout, SentReply, lend};

const NOT_FOUND: u32 = 1;
const INVALID_LABELS: u32 = 2;
const FROZEN: u32 = 3;

unsafe fn taken(buffer: ModuleBuffer) -> Vec<u8> {
    if buffer.ptr.is_null() {
        Vec::new()
    } else {
        unsafe { std::slice::from_raw_parts(buffer.ptr, buffer.length) }.to_vec()
    }
}

unsafe fn text(buffer: ModuleBuffer) -> String {
    String::from_utf8(unsafe { taken(buffer) }).expect("text")
}

unsafe fn pairs(first: *const ModuleHeader, count: usize) -> Pairs {
    let headers = if count == 0 { &[] } else { unsafe { std::slice::from_raw_parts(first, count) } };
    let part = |ptr, length| unsafe { taken(ModuleBuffer { ptr, length }) };
    headers
        .iter()
        .map(|header| (part(header.name, header.name_length), part(header.value, header.value_length)))
        .collect()
}

unsafe fn config<'c>(config: *mut c_void) -> &'c EnvoyConfig {
    unsafe { &*config.cast::<EnvoyConfig>() }
}

/// Every callback about a stream runs through here.
unsafe fn stream<'s>(stream: *mut c_void) -> &'s EnvoyStream {
    let stream = unsafe { &*stream.cast::<EnvoyStream>() };
    if stream.destroyed.get() {
        stream.used_after_end.set(true);
    }
    stream
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn envoy_dynamic_module_callback_log(level: LogLevel, message: ModuleBuffer) {
    if super::QUIET.load(Ordering::Relaxed) {
        return;
    }
    let message = unsafe { text(message) };
    eprintln!("log {level:?}: {message}");
    super::LOG.lock().unwrap().push(message);
}

#[unsafe(no_mangle)]
pub extern "C" fn envoy_dynamic_module_callback_log_enabled(_level: LogLevel) -> bool {
    true
}

#[unsafe(no_mangle)]
pub extern "C" fn envoy_dynamic_module_callback_get_concurrency() -> u32 {
    1
}

#[unsafe(no_mangle)]
pub extern "C" fn envoy_dynamic_module_callback_is_validation_mode() -> bool {
    false
}

macro_rules! defines {
    ($($name:ident)*) => {$(
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(
            of: *mut c_void,
            name: ModuleBuffer,
            _labels: *const ModuleBuffer,
            labels: usize,
            id: *mut usize,
        ) -> u32 {
            let of = unsafe { config(of) };
            if of.frozen.get() {
                return FROZEN;
            }
            let mut metrics = of.metrics.borrow_mut();
            metrics.push((unsafe { text(name) }, labels));
            unsafe { *id = metrics.len() };
            0
        }
    )*};
}

defines! {
    envoy_dynamic_module_callback_http_filter_config_define_counter
    envoy_dynamic_module_callback_http_filter_config_define_gauge
    envoy_dynamic_module_callback_http_filter_config_define_histogram
}

/// How a call uses its value.
#[derive(Clone, Copy)]
enum Does {
    Add,
    Set,
}

unsafe fn counted(of: &EnvoyConfig, id: usize, labels: *const ModuleBuffer, count: usize, by: u64, does: Does) -> u32 {
    let metrics = of.metrics.borrow();
    let Some((name, defined)) = id.checked_sub(1).and_then(|place| metrics.get(place)) else { return NOT_FOUND };
    if *defined != count {
        return INVALID_LABELS;
    }
    let labels = if count == 0 { &[] } else { unsafe { std::slice::from_raw_parts(labels, count) } };
    let labels = labels.iter().map(|label| unsafe { text(*label) }).collect();
    let mut counts = of.counts.lock().unwrap();
    let value = counts.entry((name.clone(), labels)).or_default();
    *value = match does {
        Does::Add => *value + by,
        Does::Set => by,
    };
    0
}

macro_rules! counts {
    ($($name:ident $config:ident $does:ident)*) => {$(
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(
            of: *mut c_void,
            id: usize,
            labels: *const ModuleBuffer,
            count: usize,
            by: u64,
        ) -> u32 {
            unsafe { counted($config(of), id, labels, count, by, Does::$does) }
        }
    )*};
}

unsafe fn of_stream<'c>(of: *mut c_void) -> &'c EnvoyConfig {
    unsafe { &*stream(of).config }
}

counts! {
    envoy_dynamic_module_callback_http_filter_config_increment_counter config Add
    envoy_dynamic_module_callback_http_filter_config_set_gauge config Set
    envoy_dynamic_module_callback_http_filter_config_record_histogram_value config Add
    envoy_dynamic_module_callback_http_filter_increment_counter of_stream Add
    envoy_dynamic_module_callback_http_filter_set_gauge of_stream Set
    envoy_dynamic_module_callback_http_filter_record_histogram_value of_stream Add
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn envoy_dynamic_module_callback_http_get_header(
    of: *mut c_void,
    map: HeaderMap,
    name: ModuleBuffer,
    value: *mut EnvoyBuffer,
    index: usize,
    count: *mut usize,
) -> bool {
    let (name, maps) = unsafe { (taken(name), stream(of).maps.borrow()) };
    let Some(pairs) = &maps[map as usize] else { return false };
    let values: Vec<_> = pairs.iter().filter(|(given, _)| *given == name).map(|(_, value)| value).collect();
    unsafe {
        *count = values.len();
        *value = values.get(index).map_or(lend(&[]), |value| lend(value));
    }
    index < values.len()
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn envoy_dynamic_module_callback_http_get_headers_size(of: *mut c_void, map: HeaderMap) -> usize {
    unsafe { stream(of).maps.borrow()[map as usize].as_ref().map_or(0, Vec::len) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn envoy_dynamic_module_callback_http_get_headers(
    of: *mut c_void,
    map: HeaderMap,
    found: *mut EnvoyHeader,
) -> bool {
    let maps = unsafe { stream(of).maps.borrow() };
    let Some(pairs) = &maps[map as usize] else { return false };
    for (place, (name, value)) in pairs.iter().enumerate() {
        let (name, value) = (lend(name), lend(value));
        let header =
            EnvoyHeader { name: name.ptr, name_length: name.length, value: value.ptr, value_length: value.length };
        unsafe { found.add(place).write(header) };
    }
    true
}

/// An empty value removes the header, as in Envoy.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn envoy_dynamic_module_callback_http_set_header(
    of: *mut c_void,
    map: HeaderMap,
    name: ModuleBuffer,
    value: ModuleBuffer,
) -> bool {
    let mut maps = unsafe { stream(of).maps.borrow_mut() };
    let Some(pairs) = &mut maps[map as usize] else { return false };
    let (name, value) = unsafe { (taken(name), taken(value)) };
    // Lent bytes move, so that a late read is caught.
    let mut kept: Pairs = pairs.iter().filter(|(given, _)| *given != name).cloned().collect();
    if !value.is_empty() {
        kept.push((name, value));
    }
    *pairs = kept;
    true
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn envoy_dynamic_module_callback_http_add_header(
    of: *mut c_void,
    map: HeaderMap,
    name: ModuleBuffer,
    value: ModuleBuffer,
) -> bool {
    let mut maps = unsafe { stream(of).maps.borrow_mut() };
    let Some(pairs) = &mut maps[map as usize] else { return false };
    let (name, value) = unsafe { (taken(name), taken(value)) };
    if value.is_empty() {
        return false;
    }
    let mut kept = pairs.clone();
    kept.push((name, value));
    *pairs = kept;
    true
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn envoy_dynamic_module_callback_http_send_response(
    of: *mut c_void,
    status: u32,
    headers: *const ModuleHeader,
    count: usize,
    body: ModuleBuffer,
    details: ModuleBuffer,
) {
    let of = unsafe { stream(of) };
    let reply =
        unsafe { SentReply { status, headers: pairs(headers, count), body: taken(body), details: text(details) } };
    assert!(of.reply.borrow_mut().replace(reply).is_none(), "answered twice");
    if of.destroys_at_once.get() {
        of.destroy();
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn envoy_dynamic_module_callback_http_filter_continue_decoding(of: *mut c_void) {
    let of = unsafe { stream(of) };
    of.resumed.set(of.resumed.get() + 1);
    if of.destroys_at_once.get() {
        of.destroy();
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn envoy_dynamic_module_callback_http_filter_reset_stream(
    of: *mut c_void,
    reason: ResetReason,
    details: ModuleBuffer,
) {
    let of = unsafe { stream(of) };
    assert_eq!(reason, ResetReason::LocalReset);
    assert!(of.reset.borrow_mut().replace(unsafe { text(details) }).is_none(), "reset twice");
    if of.destroys_at_once.get() {
        of.destroy();
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn envoy_dynamic_module_callback_http_clear_route_cache(of: *mut c_void) {
    let of = unsafe { stream(of) };
    of.route_cleared.set(of.route_cleared.get() + 1);
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn envoy_dynamic_module_callback_http_filter_get_attribute_string(
    of: *mut c_void,
    attribute: Attribute,
    value: *mut EnvoyBuffer,
) -> bool {
    let attributes = unsafe { stream(of).attributes.borrow() };
    let Some(found) = attributes.get(&(attribute as u32)) else { return false };
    unsafe { *value = lend(found) };
    true
}

#[unsafe(no_mangle)]
pub extern "C" fn envoy_dynamic_module_callback_http_filter_get_worker_index(_: *mut c_void) -> u32 {
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn envoy_dynamic_module_callback_get_most_specific_route_config(
    of: *mut c_void,
) -> *const c_void {
    unsafe { stream(of).route.get() }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn envoy_dynamic_module_callback_http_add_custom_flag(of: *mut c_void, flag: ModuleBuffer) {
    unsafe { stream(of).metadata.borrow_mut().insert("flag".to_owned(), text(flag)) };
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn envoy_dynamic_module_callback_http_set_dynamic_metadata_string_batch(
    of: *mut c_void,
    namespace: ModuleBuffer,
    entries: *const ModuleHeader,
    count: usize,
) {
    let (of, namespace) = unsafe { (stream(of), text(namespace)) };
    for (key, value) in unsafe { pairs(entries, count) } {
        let key = format!("{namespace}/{}", String::from_utf8(key).expect("text"));
        of.metadata.borrow_mut().insert(key, String::from_utf8(value).expect("text"));
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn envoy_dynamic_module_callback_http_add_dynamic_metadata_list_string(
    of: *mut c_void,
    namespace: ModuleBuffer,
    key: ModuleBuffer,
    value: ModuleBuffer,
) -> bool {
    let key = unsafe { format!("{}/{}[]", text(namespace), text(key)) };
    unsafe { stream(of).metadata.borrow_mut().entry(key).or_default().push_str(&format!("{},", text(value))) };
    true
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn envoy_dynamic_module_callback_http_set_filter_state_bytes(
    of: *mut c_void,
    key: ModuleBuffer,
    value: ModuleBuffer,
) -> bool {
    unsafe { stream(of).filter_state.borrow_mut().insert(text(key), taken(value)) };
    true
}

fn scheduler(of: &Arc<std::sync::Mutex<Vec<u64>>>) -> SchedulerPtr {
    Box::into_raw(Box::new(Scheduler(Arc::downgrade(of)))).cast()
}

unsafe fn commit(scheduler: SchedulerPtr, event: u64) {
    let Scheduler(posted) = unsafe { &*scheduler.cast::<Scheduler>() };
    if let Some(posted) = Weak::upgrade(posted) {
        posted.lock().unwrap().push(event);
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn envoy_dynamic_module_callback_http_filter_scheduler_new(of: *mut c_void) -> SchedulerPtr {
    scheduler(unsafe { &stream(of).posted })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn envoy_dynamic_module_callback_http_filter_scheduler_commit(of: SchedulerPtr, event: u64) {
    unsafe { commit(of, event) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn envoy_dynamic_module_callback_http_filter_scheduler_delete(of: SchedulerPtr) {
    drop(unsafe { Box::from_raw(of.cast::<Scheduler>()) });
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn envoy_dynamic_module_callback_http_filter_config_scheduler_new(
    of: *mut c_void,
) -> SchedulerPtr {
    scheduler(unsafe { &config(of).posted })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn envoy_dynamic_module_callback_http_filter_config_scheduler_commit(
    of: SchedulerPtr,
    event: u64,
) {
    unsafe { commit(of, event) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn envoy_dynamic_module_callback_http_filter_config_scheduler_delete(of: SchedulerPtr) {
    drop(unsafe { Box::from_raw(of.cast::<Scheduler>()) });
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn envoy_dynamic_module_callback_http_filter_config_http_callout(
    of: *mut c_void,
    id: *mut u64,
    cluster: ModuleBuffer,
    headers: *const ModuleHeader,
    count: usize,
    body: ModuleBuffer,
    timeout_ms: u64,
) -> u32 {
    let of = unsafe { config(of) };
    let result = of.callout_result.get();
    if result == 0 {
        static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
        let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let sent = unsafe {
            *id = number;
            SentCallout {
                id: number,
                cluster: text(cluster),
                headers: pairs(headers, count),
                body: taken(body),
                timeout_ms,
            }
        };
        of.callouts.borrow_mut().push(sent);
    }
    result
}
