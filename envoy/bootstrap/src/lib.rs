//! The bootstraps in envoy/, and how their `${NAME}` are filled in: for `portcullis dev` and the tests.
#![forbid(unsafe_code)]
use serde_json::Value;

/// With the filter as a Wasm module.
pub const WASM: &str = include_str!("../../envoy.yaml");
/// With the filter as a dynamic module.
pub const NATIVE: &str = include_str!("../../envoy-native.yaml");

/// Each placeholder becomes one JSON value, which is YAML too. Comment lines are removed first, since they name
/// placeholders.
///
/// # Errors
/// A placeholder without a value, or without an end.
pub fn render(template: &str, values: &[(&str, Value)]) -> Result<String, String> {
    let mut rendered = String::new();
    for line in template.lines().filter(|line| !line.trim_start().starts_with('#')) {
        let mut rest = line;
        while let Some((before, after)) = rest.split_once("${") {
            let (name, after) = after.split_once('}').ok_or_else(|| format!("no `}}` in `{line}`"))?;
            let found = values.iter().find(|(given, _)| *given == name);
            let (_, value) = found.ok_or_else(|| format!("no value for ${{{name}}}"))?;
            rendered.push_str(before);
            rendered.push_str(&value.to_string());
            rest = after;
        }
        rendered.push_str(rest);
        rendered.push('\n');
    }
    Ok(rendered)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fills_in_json_values_and_drops_comments() {
        let template = "# ${NAME}: told here\nname: ${NAME} # kept\nboth: [${PORT}, ${PORT}]\n";
        let rendered = render(template, &[("NAME", json!("a \"b\" ${PORT}")), ("PORT", json!(1))]);
        assert_eq!(rendered.as_deref(), Ok("name: \"a \\\"b\\\" ${PORT}\" # kept\nboth: [1, 1]\n"));
    }

    #[test]
    fn refuses_a_placeholder_without_a_value() {
        assert_eq!(render("port: ${PORT}", &[]), Err("no value for ${PORT}".to_owned()));
        assert!(render("port: ${PORT", &[]).is_err());
    }
}
