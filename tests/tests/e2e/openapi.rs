//! The API descriptions in docs/, which another test holds to the code, are OpenAPI 3.1.
use std::process::Command;

use harness::project;

#[test]
fn the_api_descriptions_are_valid() {
    let python = project().join(".venv/bin/python");
    let validated = Command::new(if python.exists() { python } else { "python3".into() })
        .env("PYTHONPATH", project().join(".venv/packages"))
        .args(["-m", "openapi_spec_validator"])
        .args(["openapi-admin.json", "openapi-data.json"].map(|name| project().join("docs").join(name)))
        .output()
        .expect("python runs");
    let said = [validated.stdout, validated.stderr].concat();
    assert!(validated.status.success(), "{}", String::from_utf8_lossy(&said));
}
