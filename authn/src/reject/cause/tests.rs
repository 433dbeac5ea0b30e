use super::*;

#[test]
fn each_cause_has_a_text_of_its_own_that_a_quoted_log_field_can_hold() {
    for (index, cause) in Cause::ALL.iter().enumerate() {
        let text = cause.text();
        assert!(!text.is_empty() && text.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b'"'), "{text}");
        assert!(!Cause::ALL.iter().take(index).any(|other| other.text() == text), "twice: {text}");
    }
}

#[test]
fn each_cause_and_each_word_of_the_service_is_in_the_docs() {
    let docs = include_str!("../../../../docs/faults.md");
    for cause in Cause::ALL {
        assert!(docs.contains(&format!("| {} |", cause.text())), "run `make docs`: {cause}");
    }
    for error in StoreError::ALL {
        let row = format!("| `{}` | {} |", error.name(), Cause::from(error));
        assert!(docs.contains(&row), "run `make docs`: {row}");
    }
}

#[test]
fn each_fault_has_a_cause() {
    for reason in RejectReason::ALL {
        assert!(Cause::ALL.iter().any(|cause| cause.reason() == *reason), "{}", reason.code());
    }
}

#[test]
fn the_bounds_that_causes_name_are_those_that_hold() {
    use jose::json::{MAX_DEPTH, MAX_MEMBERS};
    for (cause, bound) in [
        (Cause::HeaderTooDeep, MAX_DEPTH),
        (Cause::PayloadTooDeep, MAX_DEPTH),
        (Cause::HeaderTooManyMembers, MAX_MEMBERS),
        (Cause::PayloadTooManyMembers, MAX_MEMBERS),
    ] {
        assert!(cause.text().contains(&format!(" {bound} ")), "{cause}");
    }
    assert!(Cause::KidTooLong.advice().contains(&jose::MAX_KID_BYTES.to_string()));
    assert!(Cause::TooManyHeaders.advice().contains(&crate::request::MAX_HEADERS.to_string()));
    assert_eq!(crate::introspection::MAX_REPLY_BYTES, 32 * 1024);
}
