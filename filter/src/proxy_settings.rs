//! Says once for the whole process which settings of the proxy are missing, and counts the requests that showed it.
use authn::request::proxy_settings::{Setting, Settings};

use crate::host::{self, LogLevel};
use crate::metrics::{Counter, Metrics};

/// One byte, for all virtual machines and configurations of the process: what was said already. Others can write it too
/// (shared data of Istio's plugins is one namespace); the most they reach is that a virtual machine says it once more, or
/// does not say it.
const SHARED: &str = "portcullis.missing_proxy_settings";
const CAS_TRIES: u32 = 3;

/// What this virtual machine knows to have been said.
#[derive(Debug, Default)]
pub struct MissingSettings {
    said: Settings,
}

impl MissingSettings {
    pub fn new() -> Self {
        // A compare-and-set needs something to compare with.
        if let Ok(None) = host::shared(SHARED) {
            let _ = host::set_shared(SHARED, &[0], 0);
        }
        Self::default()
    }

    pub fn on_request(&mut self, missing: Settings, metrics: &mut Metrics) {
        if missing.is_empty() {
            return;
        }
        for setting in missing.iter() {
            metrics.count(Counter::MissingProxySetting(setting));
            if !self.said.has(setting) {
                self.said = self.said.with(setting);
                self.say(setting);
            }
        }
    }

    fn say(&self, setting: Setting) {
        if is_first(setting) {
            let (name, sign) = (setting.name(), setting.sign());
            let text = format!(
                "portcullis: the proxy lacks setting={name}: {sign} has arrived. See \"Settings of the proxy\" in \
                 docs/operations.md. Said once; portcullis_missing_proxy_settings counts"
            );
            host::log(LogLevel::Warn, &text);
        }
    }
}

fn is_first(setting: Setting) -> bool {
    for _ in 0..CAS_TRIES {
        // Without shared data, each virtual machine says it once.
        let Ok(Some((bytes, cas))) = host::shared(SHARED) else { return true };
        let said = Settings::from_bits(bytes.first().copied().unwrap_or_default());
        if said.has(setting) {
            return false;
        }
        match host::set_shared(SHARED, &[said.with(setting).bits()], cas) {
            Err(host::CAS_MISMATCH) => {}
            Ok(()) | Err(_) => return true,
        }
    }
    true
}
