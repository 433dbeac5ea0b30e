//! Everything that is wrong with a configuration, and not only the first thing. The reader stops at the first one: it is
//! noted and taken out, and the rest is read again.
use authn::config::Invalid;
use serde_json::Value;

/// More than anybody mends at once.
const MOST: usize = 50;

/// `first` is what is wrong with `tree`; `next` judges a tree. What only follows from something that was taken out is not
/// among the rest.
pub fn after(first: Invalid, tree: &Value, next: impl Fn(&Value) -> Option<Invalid>) -> Vec<Invalid> {
    let mut tree = tree.clone();
    let mut all = vec![first];
    while all.len() < MOST {
        let Some(last) = all.last() else { break };
        if !take_out(&mut tree, &last.field) {
            break;
        }
        let Some(invalid) = next(&tree) else { break };
        let follows = all.iter().any(|earlier| {
            // The parent now lacks what was taken out, or what is named elsewhere is gone.
            earlier.field == invalid.field || is_below(&earlier.field, &invalid.field)
        });
        if follows {
            break;
        }
        all.push(invalid);
    }
    all
}

fn is_below(field: &str, parent: &str) -> bool {
    field.strip_prefix(parent).is_some_and(|rest| parent.is_empty() || rest.starts_with(['.', '[']))
}

/// Takes out the member of a map that `field` names. An element of a list is emptied of nothing, since the places of the
/// others would change.
fn take_out(tree: &mut Value, field: &str) -> bool {
    let Some((parent, last)) = field.rsplit_once('.').or(Some(("", field))).filter(|(_, last)| !last.is_empty()) else {
        return false;
    };
    if last.contains('[') {
        return false;
    }
    let mut place = tree;
    for part in parent.split('.').filter(|part| !part.is_empty()) {
        let mut names = part.split('[');
        let name = names.next().unwrap_or_default();
        let Some(member) = place.get_mut(name) else { return false };
        place = member;
        for index in names {
            let index = index.trim_end_matches(']').parse::<usize>();
            let Some(element) = index.ok().and_then(|index| place.get_mut(index)) else { return false };
            place = element;
        }
    }
    place.as_object_mut().is_some_and(|members| members.remove(last).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_member_is_taken_out_by_its_path() {
        let mut tree = json!({ "a": [{ "b": 1, "c": { "d": 2 } }], "e": 3 });
        assert!(take_out(&mut tree, "a[0].c.d") && take_out(&mut tree, "e"));
        assert_eq!(tree, json!({ "a": [{ "b": 1, "c": {} }] }));
        for absent in ["", "x", "a[0]", "a[1].b", "a[0].x", "a[0].b.c"] {
            assert!(!take_out(&mut tree, absent), "{absent}");
        }
    }

    #[test]
    fn errors_are_found_until_one_follows_from_what_was_taken_out() {
        let judge = |tree: &Value| {
            for field in ["x", "y"] {
                if tree.get(field).is_some() {
                    return Some(Invalid::new(field, "unknown"));
                }
            }
            tree.get("needed").is_none().then(|| Invalid::new("", "missing field `needed`"))
        };
        let tree = json!({ "x": 1, "y": 2 });
        let fields: Vec<String> =
            after(judge(&tree).unwrap(), &tree, judge).into_iter().map(|invalid| invalid.field).collect();
        assert_eq!(fields, ["x", "y"]);
    }
}
