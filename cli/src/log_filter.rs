//! What the service logs, from `PORTCULLIS_LOG`.
use anyhow::{Context as _, Result, bail};
use tracing_subscriber::EnvFilter;

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// `text` is `LEVEL`, `MODULE=LEVEL`, or several of them with commas between; `info` where it says nothing else.
///
/// # Errors
/// A word that is no level. `EnvFilter` alone takes it for the name of a module and mutes all others.
pub fn parse(text: Option<&str>) -> Result<EnvFilter> {
    let text = text.unwrap_or_default();
    for directive in text.split(',').map(str::trim).filter(|directive| !directive.is_empty()) {
        let level = directive.rsplit_once('=').map_or(directive, |(_, level)| level);
        if !LEVELS.contains(&level.to_ascii_lowercase().as_str()) {
            bail!("PORTCULLIS_LOG: `{directive}` names no level; write one of {}, or MODULE=LEVEL", LEVELS.join(", "));
        }
    }
    EnvFilter::try_new(format!("info,{text}").replace(' ', "")).context("PORTCULLIS_LOG")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_modules_with_levels_are_taken() {
        for text in [None, Some(""), Some("warn"), Some("INFO"), Some("service=debug"), Some("warn, store_redis=trace")]
        {
            assert!(parse(text).is_ok(), "{text:?}");
        }
    }

    #[test]
    fn a_module_alone_leaves_the_others_at_info() {
        assert!(parse(Some("service=debug")).unwrap().to_string().split(',').any(|directive| directive == "info"));
        assert!(!parse(Some("warn")).unwrap().to_string().split(',').any(|directive| directive == "info"));
    }

    #[test]
    fn a_word_that_is_no_level_is_an_error_that_names_it() {
        for text in ["inof", "service", "service=debg", "info,wran", "=", "service="] {
            let error = parse(Some(text)).unwrap_err().to_string();
            assert!(error.contains("PORTCULLIS_LOG"), "{text}: {error}");
        }
    }
}
