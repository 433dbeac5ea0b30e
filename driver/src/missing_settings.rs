//! Logs missing proxy settings, once for the whole process, and counts the requests that show them.
use authn::request::proxy_settings::{Setting, Settings};

use crate::counts::{Counter, Counts};
use crate::host::{Host, Level, PutError};

/// One byte for all workers and configurations of the process: the warnings that were logged. Others can write it too,
/// since shared data of Istio's plugins is one namespace. At most that makes a worker repeat a warning, or omit it.
const SHARED: &str = "portcullis.missing_proxy_settings";
const CAS_TRIES: u32 = 3;

/// The warnings that this worker knows to be logged.
#[derive(Debug, Default)]
pub struct MissingSettings {
    said: Settings,
}

/// A compare-and-set needs an existing entry.
pub fn prepare(host: &mut impl Host) {
    if let Ok(None) = host.shared_get(SHARED) {
        let _ = host.shared_put(SHARED, &[0], 0);
    }
}

impl MissingSettings {
    pub fn on_request(&mut self, host: &mut impl Host, missing: Settings, counts: &mut Counts) {
        for setting in missing.iter() {
            counts.count(Counter::MissingProxySetting(setting));
            if !self.said.has(setting) {
                self.said = self.said.with(setting);
                say(host, setting);
            }
        }
    }
}

fn say(host: &mut impl Host, setting: Setting) {
    if is_first(host, setting) {
        let (name, sign) = (setting.name(), setting.sign());
        host.log(
            Level::Warn,
            format_args!(
                "portcullis: the proxy lacks setting={name}: {sign} has arrived. See \"Settings of the proxy\" in \
                 docs/operations.md. Said once; portcullis_missing_proxy_settings counts"
            ),
        );
    }
}

fn is_first(host: &mut impl Host, setting: Setting) -> bool {
    for _ in 0..CAS_TRIES {
        // Without shared data, each worker logs it once.
        let Ok(Some((bytes, cas))) = host.shared_get(SHARED) else { return true };
        let said = Settings::from_bits(bytes.first().copied().unwrap_or_default());
        if said.has(setting) {
            return false;
        }
        match host.shared_put(SHARED, &[said.with(setting).bits()], cas) {
            Err(PutError::Changed) => {}
            Ok(()) | Err(PutError::Host(_)) => return true,
        }
    }
    true
}
