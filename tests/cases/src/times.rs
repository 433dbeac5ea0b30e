//! Claims with times relative to now: `{now}`, `{now+60}`.
use serde_json::{Map, Value};

pub(crate) fn merge(base: &mut Value, changes: &Map<String, Value>, now: u64) {
    let Value::Object(base) = base else { return };
    for (name, change) in changes {
        let mut change = change.clone();
        number_times(&mut change, now);
        match change {
            Value::Null => {
                base.remove(name);
            }
            // YAML's null takes a claim away; this stands for JSON's.
            Value::String(text) if text == "{null}" => {
                base.insert(name.clone(), Value::Null);
            }
            change => {
                base.insert(name.clone(), change);
            }
        }
    }
}

/// `"{now+60}"` becomes a number.
fn number_times(value: &mut Value, now: u64) {
    match value {
        Value::String(text) if text.starts_with("{now") && text.ends_with('}') => {
            if let Ok(number) = at(text, now).parse::<serde_json::Number>() {
                *value = Value::Number(number);
            }
        }
        Value::Array(members) => members.iter_mut().for_each(|member| number_times(member, now)),
        Value::Object(members) => members.values_mut().for_each(|member| number_times(member, now)),
        _ => {}
    }
}

/// Replaces `{now}`, `{now+60}`, `{now-60}`, and `{now+0.5}` with its fraction.
pub(crate) fn at(text: &str, now: u64) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(start) = rest.find("{now") {
        let Some(length) = rest[start..].find('}') else { break };
        let offset = &rest[start + 4..start + length];
        out.push_str(&rest[..start]);
        match offset.parse::<i64>() {
            _ if offset.is_empty() => out.push_str(&now.to_string()),
            Ok(offset) => out.push_str(&now.saturating_add_signed(offset).to_string()),
            Err(_) => {
                let offset: f64 = offset.parse().unwrap_or_else(|_| panic!("`{text}` has no offset after {{now"));
                out.push_str(&format!("{:.1}", now as f64 + offset));
            }
        }
        rest = &rest[start + length + 1..];
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_filled_in() {
        assert_eq!(at("{now}|{now+5}|{now-5}|{now+0.5}|x", 100), "100|105|95|100.5|x");
    }
}
