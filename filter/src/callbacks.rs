//! The callbacks of the host. Each function here is renamed from `portcullis_…` to `proxy_…` after linking, and every
//! other callback is removed, since the host pays for each one that a module exports.
#![allow(unsafe_code)]

use proxy_wasm::types::Action;

use crate::{contexts, host};

#[unsafe(no_mangle)]
extern "C" fn portcullis_on_context_create(context: u32, parent: u32) {
    contexts::create(context, parent);
}

#[unsafe(no_mangle)]
extern "C" fn portcullis_on_configure(context: u32, _size: usize) -> bool {
    contexts::configure(context)
}

#[unsafe(no_mangle)]
extern "C" fn portcullis_on_tick(root: u32) {
    contexts::with_plugin(root, |plugin| plugin.on_tick());
}

#[unsafe(no_mangle)]
extern "C" fn portcullis_on_request_headers(context: u32, _headers: usize, end: bool) -> Action {
    match contexts::on_request_headers(context, end) {
        Some(driver::Action::Continue) => Action::Continue,
        Some(driver::Action::Pause | driver::Action::Replied) => Action::Pause,
        None => {
            // There is no configuration. If the answer fails, the host leaves the request paused, which fails closed
            // too.
            let headers: [(&[u8], &[u8]); 2] = [(b"content-type", b"application/problem+json"), (b"retry-after", b"1")];
            let body = br#"{"type":"about:blank","title":"the filter has no configuration","status":503}"#;
            let _ = host::answer(503, "NOT_CONFIGURED", &headers, body);
            Action::Pause
        }
    }
}

// Continue here would release a request that still waits in its headers.
#[unsafe(no_mangle)]
extern "C" fn portcullis_on_request_body(context: u32, _size: usize, _end: bool) -> Action {
    if contexts::is_held(context) { Action::Pause } else { Action::Continue }
}

#[unsafe(no_mangle)]
extern "C" fn portcullis_on_request_trailers(context: u32, _trailers: usize) -> Action {
    contexts::with_plugin_of(context, |plugin| plugin.on_request_trailers());
    if contexts::is_held(context) { Action::Pause } else { Action::Continue }
}

/// The filter's own replies come here too.
#[unsafe(no_mangle)]
extern "C" fn portcullis_on_response_headers(context: u32, _headers: usize, _end: bool) -> Action {
    contexts::with_plugin_of(context, |plugin| plugin.on_response_headers(context));
    Action::Continue
}

#[unsafe(no_mangle)]
extern "C" fn portcullis_on_response_trailers(context: u32, _trailers: usize) -> Action {
    contexts::with_plugin_of(context, |plugin| plugin.on_response_trailers(context));
    Action::Continue
}

#[unsafe(no_mangle)]
extern "C" fn portcullis_on_http_call_response(root: u32, call: u32, _headers: usize, _body: usize, _trailers: usize) {
    contexts::with_plugin(root, |plugin| plugin.on_callout_answered(call));
}

#[unsafe(no_mangle)]
extern "C" fn portcullis_on_delete(context: u32) {
    contexts::delete(context);
}
