use super::*;

fn parse(text: &str) -> Result<Json<'_>, JsonError> {
    Json::parse(text.as_bytes())
}

fn names(path: &[&str]) -> Vec<String> {
    path.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn reads_each_kind_of_value() {
    let text = r#" {"n":null,"t":true,"f":false,"s":"x","e":"a\"\u00e9","a":[1,[]],"o":{}} "#;
    let json = parse(text).unwrap();
    let object = json.as_object().unwrap();
    assert_eq!(object.get("n"), Some(&Json::Null));
    assert_eq!(object.get("t"), Some(&Json::Bool(true)));
    assert_eq!(object.get("f"), Some(&Json::Bool(false)));
    assert_eq!(object.get("e").unwrap().as_str(), Some("a\"é"));
    assert_eq!(object.get("a").unwrap().as_array().unwrap().len(), 2);
    assert_eq!(object.get("absent"), None);
    assert_eq!(object.len(), 7);
    assert_eq!(object.iter().map(|(name, _)| name).collect::<String>(), "ntfseao");
}

#[test]
fn borrows_strings_without_escapes() {
    let json = parse(r#"["plain","esc\u0061ped"]"#).unwrap();
    let [Json::String(Cow::Borrowed("plain")), Json::String(Cow::Owned(escaped))] = json.as_array().unwrap() else {
        panic!("{json:?}");
    };
    assert_eq!(escaped, "escaped");
}

#[test]
fn tells_integers_from_fractions() {
    for (text, number) in [
        ("0", Number::Unsigned(0)),
        ("1", Number::Unsigned(1)),
        ("18446744073709551615", Number::Unsigned(u64::MAX)),
        ("-1", Number::Negative(-1)),
        ("-9223372036854775808", Number::Negative(i64::MIN)),
        ("1.0", Number::Float(1.0)),
        ("1e3", Number::Float(1000.0)),
        ("-0", Number::Float(-0.0)),
        ("18446744073709551616", Number::Float(18446744073709551616.0)),
        ("1e308", Number::Float(1e308)),
        ("1e-400", Number::Float(0.0)),
    ] {
        assert_eq!(parse(text), Ok(Json::Number(number)), "{text}");
    }
}

#[test]
fn refuses_numbers_that_are_not_finite() {
    let huge = "9".repeat(400);
    for text in ["1e309", "-1e309", "1e999999999999", huge.as_str(), "NaN", "Infinity", "-Infinity"] {
        assert_eq!(parse(text), Err(JsonError::Syntax), "{text}");
    }
}

#[test]
fn refuses_what_is_not_json() {
    for text in
        ["", " ", "{", "{}x", "{} {}", "{}\0", "[1,]", "{\"a\":1,}", "{a:1}", "'a'", "01", "+1", ".5", "1.", "tru"]
    {
        assert_eq!(parse(text), Err(JsonError::Syntax), "{text:?}");
    }
    for text in ["\u{feff}{}", "\"\n\"", r#""\x""#, r#""\ud800""#, r#""\udc00\ud800""#, "// c\n1", "{\"a\":1 \"b\":2}"]
    {
        assert_eq!(parse(text), Err(JsonError::Syntax), "{text:?}");
    }
}

#[test]
fn refuses_invalid_utf8_wherever_it_stands() {
    for text in [&b"\"\xff\""[..], b"{\"\xc3\":1}", b"\xff", b"\"\xed\xa0\x80\"", b"\"\xc0\x80\"", b"\"a\\n\xff\""] {
        assert_eq!(Json::parse(text), Err(JsonError::Syntax), "{text:?}");
    }
}

#[test]
fn refuses_a_member_twice_at_any_depth() {
    for text in [
        r#"{"a":1,"a":1}"#,
        r#"{"a":1,"b":2,"a":3}"#,
        r#"{"a":1,"\u0061":2}"#,
        r#"{"é":1,"\u00e9":2}"#,
        r#"{"😀":1,"\ud83d\ude00":2}"#,
        r#"{"":1,"":2}"#,
        r#"{"o":{"a":[{"b":1,"b":2}]}}"#,
        r#"[[{"b":1,"c":{},"b":2}]]"#,
    ] {
        assert_eq!(parse(text), Err(JsonError::Duplicate), "{text}");
    }
    // The same name in different objects, other case, and another normalisation are other names.
    for text in [r#"{"a":{"a":{"a":1}}}"#, r#"[{"a":1},{"a":1}]"#, r#"{"a":1,"A":1}"#, r#"{"é":1,"e\u0301":1}"#] {
        assert!(parse(text).is_ok(), "{text}");
    }
}

#[test]
fn finds_a_duplicate_among_few_and_among_many() {
    for count in 2..=2 * FEW_MEMBERS {
        let mut members: Vec<String> = (0..count).map(|place| format!("\"m{place}\":0")).collect();
        assert!(parse(&format!("{{{}}}", members.join(","))).is_ok(), "{count}");
        members[count - 1] = format!("\"m{}\":1", count / 3);
        assert_eq!(parse(&format!("{{{}}}", members.join(","))), Err(JsonError::Duplicate), "{count}");
    }
}

#[test]
fn finds_the_one_duplicate_among_the_most_members() {
    let members = |count: usize| (0..count).map(|i| format!("\"m{i}\":0")).collect::<Vec<_>>();
    assert!(parse(&format!("{{{}}}", members(MAX_MEMBERS).join(","))).is_ok());
    let mut twice = members(MAX_MEMBERS - 1);
    twice.push("\"m0\":0".into());
    assert_eq!(parse(&format!("{{{}}}", twice.join(","))), Err(JsonError::Duplicate));
    assert_eq!(parse(&format!("{{{}}}", members(MAX_MEMBERS + 1).join(","))), Err(JsonError::TooManyMembers));
}

#[test]
fn refuses_one_level_too_many() {
    let nested = |open: &str, close: &str, depth: usize| format!("{}0{}", open.repeat(depth), close.repeat(depth));
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        assert!(parse(&nested(open, close, MAX_DEPTH)).is_ok());
        assert_eq!(parse(&nested(open, close, MAX_DEPTH + 1)), Err(JsonError::TooDeep));
        assert_eq!(parse(&nested(open, close, 60_000)), Err(JsonError::TooDeep));
        assert_eq!(parse(&open.repeat(60_000)), Err(JsonError::TooDeep));
    }
}

#[test]
fn walks_nested_objects() {
    let json = parse(r#"{"realm_access":{"roles":["a"]},"a.b":1,"s":"x"}"#).unwrap();
    assert_eq!(json.path(&names(&["realm_access", "roles"])).unwrap().to_text(), r#"["a"]"#);
    assert_eq!(json.path(&names(&["a.b"])), Some(&Json::Number(Number::Unsigned(1))));
    assert_eq!(json.path(&[]), Some(&json));
    let nulls = parse(r#"{"a":null,"o":{"a":null}}"#).unwrap();
    for path in [&["a"][..], &["a", "b"], &["o", "a"]] {
        assert_eq!(nulls.path(&names(path)), None, "{path:?}");
    }
    for path in [&["a", "b"][..], &["s", "x"], &["realm_access", "roles", "0"], &["realm_access", ""]] {
        assert_eq!(json.path(&names(path)), None, "{path:?}");
    }
}

#[test]
fn writes_compact_text_that_reads_back_the_same() {
    let text = r#"{"z":1,"a":[null,true,-5,1.5,1.0,"x"],"o":{"k":{}},"q":"a\"\\\n\u0001é😀"}"#;
    let json = parse(text).unwrap();
    assert_eq!(json.to_text(), text);
    assert_eq!(parse(&json.to_text()), Ok(json));
}
