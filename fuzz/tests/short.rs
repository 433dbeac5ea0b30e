//! Each target for a short time, with the same inputs each time.
#![allow(clippy::panic, reason = "a test fails by a panic")]
use fuzz::{TARGETS, run};

fn short(name: &str) {
    let target = TARGETS.iter().find(|target| target.name == name).unwrap_or_else(|| panic!("no target {name}"));
    run(target, target.inputs);
}

#[test]
fn an_accepted_path_has_one_reading() {
    short("path");
}

#[test]
fn accepted_json_has_one_reading() {
    short("json");
}

#[test]
fn a_token_is_the_canonical_text_of_its_parts() {
    short("jws");
}

#[test]
fn header_maps_have_one_reading_and_are_cleared() {
    short("headers");
}

#[test]
fn check_messages_are_read_in_full_or_refused() {
    short("check");
}

#[test]
fn engines_agree() {
    short("engines");
}
