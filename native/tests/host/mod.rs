//! A fake Envoy: the callbacks of its ABI, over streams and configurations that a test can inspect. Bytes that Envoy
//! lends are freed or overwritten as soon as the ABI allows, so that a sanitizer, or Miri where it can run, sees a late
//! use. A call about an ended stream is recorded and fails the test.
#![allow(dead_code, clippy::missing_safety_doc, clippy::not_unsafe_ptr_arg_deref)]

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ffi::c_void;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};

use native::abi::{EnvoyBuffer, EnvoyHeader, HeadersStatus, OursPtr};
use native::hooks;

mod callbacks;

pub type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

/// Metrics by name and labels.
type Counts = BTreeMap<(String, Vec<String>), u64>;

/// The headers and the body of an answer.
pub type Answered<'a> = (&'a [(&'a str, &'a str)], &'a [u8]);

/// What the module has logged in this process.
static LOG: Mutex<Vec<String>> = Mutex::new(Vec::new());

static QUIET: AtomicBool = AtomicBool::new(false);

/// From now on, nothing is logged.
pub fn be_quiet() {
    QUIET.store(true, Ordering::Relaxed);
}

/// The lines that contain `part`.
pub fn logged(part: &str) -> Vec<String> {
    LOG.lock().unwrap().iter().filter(|line| line.contains(part)).cloned().collect()
}

/// One filter configuration. Envoy frees it when the last stream of it ends.
pub struct Config {
    /// Boxed, since the module knows its address.
    envoy: Box<EnvoyConfig>,
    ours: OursPtr,
}

pub struct EnvoyConfig {
    metrics: RefCell<Vec<(String, usize)>>,
    frozen: Cell<bool>,
    counts: Mutex<Counts>,
    /// Events posted to the main thread.
    posted: Arc<Mutex<Vec<u64>>>,
    callouts: RefCell<Vec<SentCallout>>,
    /// The start result of the next callouts; 0 is success.
    callout_result: Cell<u32>,
}

#[derive(Debug, Clone)]
pub struct SentCallout {
    pub id: u64,
    pub cluster: String,
    pub headers: Pairs,
    pub body: Vec<u8>,
    pub timeout_ms: u64,
}

/// One request. It is over when it is dropped.
pub struct Stream<'c> {
    config: &'c Config,
    envoy: Box<EnvoyStream>,
    ours: OursPtr,
    ended: bool,
}

pub struct EnvoyStream {
    config: *const EnvoyConfig,
    /// 0 request, 1 request trailers, 2 response, 3 response trailers.
    maps: RefCell<[Option<Pairs>; 4]>,
    reply: RefCell<Option<SentReply>>,
    /// The details of its reset.
    reset: RefCell<Option<String>>,
    resumed: Cell<u32>,
    route_cleared: Cell<u32>,
    metadata: RefCell<BTreeMap<String, String>>,
    filter_state: RefCell<BTreeMap<String, Vec<u8>>>,
    attributes: RefCell<BTreeMap<u32, Vec<u8>>>,
    /// The configuration of its route.
    route: Cell<*const c_void>,
    posted: Arc<Mutex<Vec<u64>>>,
    /// As Envoy 1.39: a call that ends the stream destroys the filter before it returns.
    destroys_at_once: Cell<bool>,
    ours: Cell<OursPtr>,
    destroyed: Cell<bool>,
    used_after_end: Cell<bool>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SentReply {
    pub status: u32,
    pub headers: Pairs,
    pub body: Vec<u8>,
    pub details: String,
}

impl SentReply {
    pub fn header(&self, name: &str) -> Option<String> {
        let found = self.headers.iter().find(|(given, _)| given == name.as_bytes())?;
        Some(String::from_utf8_lossy(&found.1).into_owned())
    }
}

/// A scheduler of the module holds this weakly, as in Envoy.
pub struct Scheduler(Weak<Mutex<Vec<u64>>>);

impl Config {
    /// Loads the module with a document. `None`: the module refuses it.
    pub fn load(document: &str) -> Option<Self> {
        Self::load_as("portcullis", document.as_bytes())
    }

    pub fn load_as(name: &str, document: &[u8]) -> Option<Self> {
        let envoy = Box::new(EnvoyConfig {
            metrics: RefCell::default(),
            frozen: Cell::new(false),
            counts: Mutex::default(),
            posted: Arc::default(),
            callouts: RefCell::default(),
            callout_result: Cell::new(0),
        });
        // Freed as soon as the hook has returned.
        let (name, document) = (name.as_bytes().to_vec(), document.to_vec());
        let ours = unsafe {
            hooks::envoy_dynamic_module_on_http_filter_config_new(pointer(&*envoy), lend(&name), lend(&document))
        };
        envoy.frozen.set(true);
        (!ours.is_null()).then_some(Self { envoy, ours })
    }

    /// What the module makes of a route's configuration. Null if it refuses it.
    pub fn route_config(document: &str) -> *const c_void {
        let document = document.as_bytes().to_vec();
        unsafe { hooks::envoy_dynamic_module_on_http_filter_per_route_config_new(lend(b"portcullis"), lend(&document)) }
    }

    /// Envoy has no route with it any more.
    pub fn forget_route_config(ours: *const c_void) {
        unsafe { hooks::envoy_dynamic_module_on_http_filter_per_route_config_destroy(ours) };
    }

    pub fn stream(&self, headers: &[(&str, &str)]) -> Stream<'_> {
        let pairs = headers.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec())).collect();
        let envoy = Box::new(EnvoyStream {
            config: &raw const *self.envoy,
            maps: RefCell::new([Some(pairs), None, None, None]),
            reply: RefCell::default(),
            reset: RefCell::default(),
            resumed: Cell::default(),
            route_cleared: Cell::default(),
            metadata: RefCell::default(),
            filter_state: RefCell::default(),
            attributes: RefCell::default(),
            route: Cell::new(ptr::null()),
            posted: Arc::default(),
            destroys_at_once: Cell::default(),
            ours: Cell::new(ptr::null()),
            destroyed: Cell::default(),
            used_after_end: Cell::default(),
        });
        let ours = unsafe { hooks::envoy_dynamic_module_on_http_filter_new(self.ours, pointer(&*envoy)) };
        assert!(!ours.is_null(), "Envoy would run hooks on nothing");
        envoy.ours.set(ours);
        Stream { config: self, envoy, ours, ended: false }
    }

    /// Runs what was posted to the main thread.
    pub fn run_main(&self) {
        self.run_main_events(|_| true);
    }

    /// Runs those events, and drops the others.
    pub fn run_main_events(&self, is_wanted: impl Fn(u64) -> bool) {
        let events = std::mem::take(&mut *self.envoy.posted.lock().unwrap());
        for event in events.into_iter().filter(|event| is_wanted(*event)) {
            unsafe {
                hooks::envoy_dynamic_module_on_http_filter_config_scheduled(pointer(&*self.envoy), self.ours, event);
            }
        }
    }

    /// An event on the main thread that nothing posted.
    pub fn main_event(&self, event: u64) {
        unsafe { hooks::envoy_dynamic_module_on_http_filter_config_scheduled(pointer(&*self.envoy), self.ours, event) }
    }

    pub fn callouts(&self) -> Vec<SentCallout> {
        std::mem::take(&mut *self.envoy.callouts.borrow_mut())
    }

    pub fn refuse_callouts(&self, result: u32) {
        self.envoy.callout_result.set(result);
    }

    /// Answers a callout; `None` is a reset.
    pub fn answer(&self, id: u64, answer: Option<Answered<'_>>) {
        let mut headers: Vec<_> = Vec::new();
        let mut chunks = Vec::new();
        if let Some((pairs, body)) = answer {
            headers.extend(pairs.iter().map(|(name, value)| EnvoyHeader {
                name: name.as_ptr(),
                name_length: name.len(),
                value: value.as_ptr(),
                value_length: value.len(),
            }));
            // In two pieces, as it may come.
            let (first, second) = body.split_at(body.len() / 2);
            chunks.extend([first, second].map(lend));
        }
        unsafe {
            hooks::envoy_dynamic_module_on_http_filter_config_http_callout_done(
                pointer(&*self.envoy),
                self.ours,
                id,
                u32::from(answer.is_none()),
                if headers.is_empty() { ptr::null() } else { headers.as_ptr() },
                headers.len(),
                if chunks.is_empty() { ptr::null() } else { chunks.as_ptr() },
                chunks.len(),
            );
        }
    }

    pub fn count(&self, name: &str, labels: &[&str]) -> u64 {
        let labels = labels.iter().map(|&label| label.to_owned()).collect();
        self.envoy.counts.lock().unwrap().get(&(name.to_owned(), labels)).copied().unwrap_or(0)
    }
}

impl Drop for Config {
    fn drop(&mut self) {
        unsafe { hooks::envoy_dynamic_module_on_http_filter_config_destroy(self.ours) }
    }
}

impl Stream<'_> {
    pub fn destroys_at_once(self) -> Self {
        self.envoy.destroys_at_once.set(true);
        self
    }

    /// The configuration of its route, as a module made it.
    pub fn route(self, config: *const c_void) -> Self {
        self.envoy.route.set(config);
        self
    }

    pub fn attribute(self, attribute: native::abi::Attribute, value: &[u8]) -> Self {
        self.envoy.attributes.borrow_mut().insert(attribute as u32, value.to_vec());
        self
    }

    pub fn request_headers(&self, ends: bool) -> HeadersStatus {
        unsafe { hooks::envoy_dynamic_module_on_http_filter_request_headers(pointer(&*self.envoy), self.ours, ends) }
    }

    pub fn response_headers(&self, headers: &[(&str, &str)]) {
        let pairs = headers.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec())).collect();
        self.envoy.maps.borrow_mut()[2] = Some(pairs);
        unsafe {
            hooks::envoy_dynamic_module_on_http_filter_response_headers(pointer(&*self.envoy), self.ours, true);
        }
    }

    /// Runs what was posted to this stream's worker.
    pub fn run_worker(&self) {
        let events = std::mem::take(&mut *self.envoy.posted.lock().unwrap());
        for event in events {
            if !self.envoy.destroyed.get() {
                unsafe {
                    hooks::envoy_dynamic_module_on_http_filter_scheduled(pointer(&*self.envoy), self.ours, event);
                }
            }
        }
    }

    /// The module keeps a scheduler for it.
    pub fn is_parked(&self) -> bool {
        Arc::weak_count(&self.envoy.posted) > 0
    }

    pub fn reply(&self) -> Option<SentReply> {
        self.envoy.reply.borrow().clone()
    }

    /// The details of its reset.
    pub fn reset(&self) -> Option<String> {
        self.envoy.reset.borrow().clone()
    }

    pub fn resumed(&self) -> u32 {
        self.envoy.resumed.get()
    }

    /// The request as the upstream gets it.
    pub fn headers(&self) -> Pairs {
        self.envoy.maps.borrow()[0].clone().unwrap_or_default()
    }

    /// The answer as the client gets it.
    pub fn response(&self) -> Pairs {
        self.envoy.maps.borrow()[2].clone().unwrap_or_default()
    }

    pub fn header(&self, name: &str) -> Option<String> {
        let maps = self.envoy.maps.borrow();
        let found = maps[0].as_ref()?.iter().find(|(given, _)| given == name.as_bytes())?;
        Some(String::from_utf8_lossy(&found.1).into_owned())
    }

    pub fn metadata(&self, key: &str) -> Option<String> {
        self.envoy.metadata.borrow().get(key).cloned()
    }

    /// The stream ends.
    pub fn end(mut self) {
        self.finish();
    }

    fn finish(&mut self) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        assert!(!self.envoy.used_after_end.get(), "the module used a stream that had ended");
        if !self.envoy.destroyed.get() {
            hooks::envoy_dynamic_module_on_http_filter_stream_complete(pointer(&*self.envoy), self.ours);
            self.envoy.destroy();
        }
    }
}

impl Drop for Stream<'_> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.finish();
        }
    }
}

impl EnvoyStream {
    fn destroy(&self) {
        if !self.destroyed.replace(true) {
            unsafe { hooks::envoy_dynamic_module_on_http_filter_destroy(self.ours.get()) }
        }
    }
}

fn pointer<T>(of: &T) -> *mut c_void {
    (&raw const *of).cast_mut().cast()
}

fn lend(bytes: &[u8]) -> EnvoyBuffer {
    EnvoyBuffer { ptr: if bytes.is_empty() { ptr::null() } else { bytes.as_ptr() }, length: bytes.len() }
}
