//! Durations as written: a number and a unit, `250ms`, `2s`, `5m`, `24h`, `7d`.
use std::time::Duration;

use serde::{Deserialize, Deserializer, de};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConfigDuration(pub Duration);

impl ConfigDuration {
    pub const fn from_secs(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    pub const fn from_millis(millis: u64) -> Self {
        Self(Duration::from_millis(millis))
    }

    /// # Errors
    /// Not a whole number with one of the units, or too large.
    pub fn parse(text: &str) -> Result<Self, String> {
        wire::parse_duration(text).map(Self)
    }
}

impl<'de> Deserialize<'de> for ConfigDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = ConfigDuration;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a duration as in 250ms, 2s, 5m, 24h, 7d")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<ConfigDuration, E> {
                ConfigDuration::parse(text).map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Visitor)
    }
}

/// In the largest unit that divides it, as a person would write it.
#[cfg(feature = "schema")]
impl serde::Serialize for ConfigDuration {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let millis = self.0.as_millis();
        let (per_unit, unit) = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")]
            .into_iter()
            .find(|(per_unit, _)| millis >= *per_unit && millis.is_multiple_of(*per_unit))
            .unwrap_or((1, "ms"));
        serializer.collect_str(&format_args!("{}{unit}", millis.checked_div(per_unit).unwrap_or(millis)))
    }
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for ConfigDuration {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "description": "A whole number and a unit, as in 250ms, 2s, 5m, 24h, 7d.", "type": "string", "pattern": "^[0-9]+(ms|s|m|h|d)$" })
    }
}
