//! Generic secrets of SDS. Envoy 1.39 does not have them, so the two callbacks are looked up at run time.
use std::ffi::{CStr, c_void};
use std::sync::OnceLock;

use super::Config;
use super::raw::{self, ABSENT, buffer};
use crate::abi::{self, EnvoyBuffer, GetSecret, SubscribeSecret};

/// A secret that one configuration has subscribed to.
#[derive(Debug, Clone, Copy)]
pub struct SecretId(usize);

#[derive(Clone, Copy)]
struct Callbacks {
    subscribe: SubscribeSecret,
    get: GetSecret,
}

/// Does this Envoy have them?
pub fn has_secrets() -> bool {
    callbacks().is_some()
}

impl Config<'_> {
    /// Only while the configuration is being made. `source` is a `ConfigSource` as JSON; without it the secret is a static
    /// one. `None` if Envoy refuses, with its reason in the log.
    pub fn subscribe_secret(&mut self, name: &str, source: Option<&str>) -> Option<SecretId> {
        let source = source.map_or(ABSENT, |source| buffer(source.as_bytes()));
        // SAFETY: Envoy copies both before it returns, and takes null for an absent source.
        let number = unsafe { (callbacks()?.subscribe)(self.raw(), buffer(name.as_bytes()), source) };
        (number != 0).then_some(SecretId(number))
    }

    /// The secret as it is now. `None` if it has not come, or is empty.
    pub fn secret(&self, id: SecretId) -> Option<&[u8]> {
        let mut value = EnvoyBuffer { ptr: std::ptr::null(), length: 0 };
        // SAFETY: Envoy writes to `value` while it is here.
        let found = unsafe { (callbacks()?.get)(self.raw(), id.0, &mut value) };
        // SAFETY: Envoy replaces the bytes only on this thread, in an event of its own, which comes after this hook.
        let value = found.then(|| unsafe { raw::bytes(value) })?;
        (!value.is_empty()).then_some(value)
    }
}

fn callbacks() -> Option<Callbacks> {
    static CALLBACKS: OnceLock<Option<Callbacks>> = OnceLock::new();
    *CALLBACKS.get_or_init(|| {
        let (subscribe, get) = (find(abi::SUBSCRIBE_SECRET)?, find(abi::GET_SECRET)?);
        // SAFETY: Envoy's functions of these names have these types in every release that has them (abi.h).
        unsafe {
            Some(Callbacks {
                subscribe: std::mem::transmute::<*mut c_void, SubscribeSecret>(subscribe),
                get: std::mem::transmute::<*mut c_void, GetSecret>(get),
            })
        }
    })
}

fn find(name: &CStr) -> Option<*mut c_void> {
    // SAFETY: the name ends with a zero, and a null handle is RTLD_DEFAULT.
    let found = unsafe { abi::dlsym(std::ptr::null_mut(), name.as_ptr()) };
    (!found.is_null()).then_some(found)
}
