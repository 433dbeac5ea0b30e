//! A filter on the proxy-wasm SDK that does nothing: what any Wasm filter costs before it decides anything.
use proxy_wasm::traits::{Context, HttpContext};

struct Noop;

impl Context for Noop {}
impl HttpContext for Noop {}

proxy_wasm::main! {{
    proxy_wasm::set_http_context(|_, _| Box::new(Noop));
}}
