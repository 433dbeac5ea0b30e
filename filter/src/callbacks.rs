//! The callbacks of the host. Each function here is renamed from `portcullis_…` to `proxy_…` after linking, and every
//! other callback is removed, since the host pays for each one that a module exports.
#![allow(unsafe_code)]

use proxy_wasm::types::Action;

use crate::host::{self, MapType};
use crate::root::Next;
use crate::vm;

#[unsafe(no_mangle)]
extern "C" fn portcullis_on_context_create(context: u32, parent: u32) {
    vm::create_context(context, parent);
}

#[unsafe(no_mangle)]
extern "C" fn portcullis_on_configure(context: u32, _size: usize) -> bool {
    vm::configure(context)
}

#[unsafe(no_mangle)]
extern "C" fn portcullis_on_tick(root: u32) {
    vm::on_tick(root);
}

#[unsafe(no_mangle)]
extern "C" fn portcullis_on_request_headers(context: u32, _headers: usize, end: bool) -> Action {
    match vm::on_request_headers(context, end) {
        Some(Next::Continue) => Action::Continue,
        Some(Next::ContinueCookieSession) => {
            vm::mark_cookie_session(context);
            Action::Continue
        }
        Some(Next::Wait | Next::Answered) => Action::Pause,
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
    if vm::is_held(context) { Action::Pause } else { Action::Continue }
}

#[unsafe(no_mangle)]
extern "C" fn portcullis_on_request_trailers(context: u32, _trailers: usize) -> Action {
    vm::clear_trailers(context);
    if vm::is_held(context) { Action::Pause } else { Action::Continue }
}

/// Responses to a browser's session must stay out of every cache, whatever the upstream says.
#[unsafe(no_mangle)]
extern "C" fn portcullis_on_response_headers(context: u32, _headers: usize, _end: bool) -> Action {
    if vm::forget_cookie_session(context) {
        let map = MapType::HttpResponseHeaders;
        let hardened: [(&[u8], &[u8]); 3] = [
            (b"cache-control", b"no-store"),
            (b"x-content-type-options", b"nosniff"),
            (b"referrer-policy", b"same-origin"),
        ];
        for (name, value) in hardened {
            let _ = host::set_header(map, name, value);
        }
    }
    Action::Continue
}

#[unsafe(no_mangle)]
extern "C" fn portcullis_on_http_call_response(root: u32, call: u32, _headers: usize, _body: usize, _trailers: usize) {
    vm::on_call_answered(root, call);
}

#[unsafe(no_mangle)]
extern "C" fn portcullis_on_delete(context: u32) {
    vm::delete_context(context);
}
