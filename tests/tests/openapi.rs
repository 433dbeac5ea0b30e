//! The generated API descriptions are OpenAPI 3.1, and those in docs/ are the current ones.
use std::path::Path;
use std::process::Command;

use tests::Service;

#[test]
fn the_api_descriptions_are_valid_and_current() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let made = std::env::temp_dir().join(format!("portcullis-openapi-{}", std::process::id()));
    std::fs::create_dir_all(&made).unwrap();
    let (_, said, code) = Service::portcullis(&["docs", "--dir", made.to_str().unwrap()]);
    assert_eq!(code, 0, "{said}");
    for name in ["openapi-admin.json", "openapi-data.json"] {
        let [committed, current] = [root.join("docs"), made.clone()].map(|dir| dir.join(name));
        let read = |path: &Path| std::fs::read_to_string(path).unwrap();
        assert!(read(&committed) == read(&current), "docs/{name} is old: run `make docs`");
        let python = root.join(".venv/bin/python");
        let mut validate = Command::new(if python.exists() { python } else { "python3".into() });
        let validated = validate
            .env("PYTHONPATH", root.join(".venv/packages"))
            .args(["-m", "openapi_spec_validator"])
            .arg(&current)
            .output()
            .unwrap();
        let said = [validated.stdout, validated.stderr].concat();
        assert!(validated.status.success(), "{}", String::from_utf8_lossy(&said));
    }
    std::fs::remove_dir_all(made).unwrap();
}
