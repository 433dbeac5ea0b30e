//! The login that a rule requires, and the one that is demanded of a session, compiled.
use crate::claims::step_up::StepUp;
use crate::config;
use crate::config::{ConfigDuration, Invalid, Mode, whole_seconds};

const MAX_ACR_VALUES: usize = 16;
const ZERO: ConfigDuration = ConfigDuration::from_secs(0);
const SHORTEST_AGE: ConfigDuration = ConfigDuration::from_secs(1);
const LONGEST_AGE: ConfigDuration = ConfigDuration::from_secs(30 * 24 * 60 * 60);

pub(super) fn compile_step_up(document: &config::StepUp) -> Result<StepUp, Invalid> {
    if document.acr_values.is_empty() && document.max_age.is_none() {
        return Err(Invalid::new("step_up", "give `acr_values`, `max_age` or both"));
    }
    let acr_values = acr_values(&document.acr_values)?;
    let seconds = |age| whole_seconds(age, SHORTEST_AGE, LONGEST_AGE, "step_up.max_age");
    let max_age = document.max_age.map(seconds).transpose()?;
    Ok(StepUp { acr_values, max_age, mode: document.mode })
}

pub(super) fn compile_demanded(document: &config::Demanded) -> Result<StepUp, Invalid> {
    let acr_values = acr_values(&document.acr_values)?;
    let max_age = whole_seconds(document.max_age, ZERO, LONGEST_AGE, "step_up.max_age")?;
    Ok(StepUp { acr_values, max_age: Some(max_age), mode: Mode::Enforce })
}

fn acr_values(values: &[String]) -> Result<Vec<String>, Invalid> {
    if values.len() > MAX_ACR_VALUES {
        return Err(Invalid::new("step_up.acr_values", format!("at most {MAX_ACR_VALUES}")));
    }
    for (index, value) in values.iter().enumerate() {
        // They are separated by spaces in the challenge, within quotes.
        if value.is_empty() || !value.bytes().all(|byte| matches!(byte, 0x21 | 0x23..=0x5b | 0x5d..=0x7e)) {
            let message = "must be printable ASCII without spaces, quotes and backslashes";
            return Err(Invalid::new(format!("step_up.acr_values[{index}]"), message));
        }
    }
    Ok(values.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_in_a_challenge_is_refused_with_its_field() {
        for (document, error) in [
            ("{}", "step_up: give `acr_values`"),
            (r#"{"mode":"report"}"#, "step_up: give `acr_values`"),
            (r#"{"acr_values":["ok",""]}"#, "step_up.acr_values[1]: must be"),
            (r#"{"acr_values":["a b"]}"#, "step_up.acr_values[0]: must be"),
            (r#"{"acr_values":["a\"b"]}"#, "step_up.acr_values[0]: must be"),
            (r#"{"max_age":"0s"}"#, "step_up.max_age: must be within"),
            (r#"{"max_age":"1500ms"}"#, "step_up.max_age: must be whole seconds"),
            (r#"{"max_age":"31d"}"#, "step_up.max_age: must be within"),
        ] {
            let refused = compile_step_up(&serde_json::from_str(document).unwrap()).unwrap_err().to_string();
            assert!(refused.starts_with(error), "{document}: {refused}");
        }
    }
}
