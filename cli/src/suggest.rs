//! Plain words for what the reader of a configuration says, with the name that was probably meant.
use authn::config::Invalid;

/// The one of `names` that `name` is probably a misspelling of.
pub fn closest<'n>(name: &str, names: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    let fold = |text: &str| text.to_lowercase().replace(['-', '_'], "");
    let wanted = fold(name);
    names
        .into_iter()
        .map(|other| (strsim::jaro_winkler(&wanted, &fold(other)), other))
        .filter(|(alike, _)| *alike > 0.8)
        .max_by(|(one, _), (other, _)| one.total_cmp(other))
        .map(|(_, other)| other)
}

/// Without the names of types in this program's code, and with a suggestion for an unknown field.
pub fn plain(invalid: Invalid) -> Invalid {
    let field = invalid.field.split('.').filter(|part| *part != "?").collect::<Vec<_>>().join(".");
    let mut message = invalid.message;
    for (technical, plain) in [
        ("data did not match any variant of untagged enum", "has none of the forms that are taken here"),
        ("expected internally tagged enum", "expected a map"),
        ("expected adjacently tagged enum", "expected a map"),
        ("expected struct variant", "expected a map"),
        ("expected struct", "expected a map"),
        ("expected enum", "expected one of the words of this field"),
        ("expected unit variant", "expected the word alone"),
    ] {
        if let Some((before, after)) = message.split_once(technical) {
            // The name of a type follows, or nothing.
            let rest = after.trim_start_matches(|c: char| c == ' ' || c == ':' || c.is_alphanumeric());
            message = format!("{before}{plain}{rest}");
        }
    }
    if let Some((_, rest)) = message.split_once("unknown field `").or_else(|| message.split_once("unknown variant `"))
        && let Some((name, names)) = rest.split_once('`')
        && let Some(other) = closest(name, names.split('`').skip(1).step_by(2))
    {
        message = format!("{message}; did you mean `{other}`?");
    }
    Invalid { field, message }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(message: &str) -> String {
        plain(Invalid::new("a.?.b", message)).message
    }

    #[test]
    fn a_misspelt_name_is_followed_by_the_one_that_was_meant() {
        assert_eq!(closest("pluginconfig", ["url", "pluginConfig"]), Some("pluginConfig"));
        assert_eq!(closest("session-service", ["sessions", "session_service"]), Some("session_service"));
        assert_eq!(closest("xyz", ["audiences", "algorithms"]), None);
        let told = said("unknown field `audience`, expected one of `issuer`, `audiences`, `algorithms`");
        assert!(told.ends_with("; did you mean `audiences`?"), "{told}");
    }

    #[test]
    fn no_type_of_the_program_and_no_stray_question_mark_is_shown() {
        assert_eq!(plain(Invalid::new("a.?.b", "x")).field, "a.b");
        assert_eq!(said("invalid type: string, expected struct Issuer"), "invalid type: string, expected a map");
        assert_eq!(
            said("data did not match any variant of untagged enum OneOrMany"),
            "has none of the forms that are taken here"
        );
        assert_eq!(said("must not be empty"), "must not be empty");
    }
}
