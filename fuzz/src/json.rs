//! JSON that is accepted has one reading, and is what serde_json reads.
use jose::json::{Json, JsonError, MAX_DEPTH, Number};
use serde_json::Value;

use crate::target::owned;

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    owned(&[
        br#"{"iss":"https://issuer.example","sub":"a","exp":1700000300,"aud":["a","b"],"roles":{"x":{"y":[true,null]}}}"#,
        br#"{"a":1,"a":2}"#,
        br#"{"a":1,"\u0061":2}"#,
        br#"{"\ud83d\ude00":"\ud83d","n":[0,-0,-1,1.5,1e3,1E-2,18446744073709551615,18446744073709551616,1e999]}"#,
        br#"[[[[[[[[[[[[[[[[[0]]]]]]]]]]]]]]]]]"#,
        b" \t\r\n{ } ",
        b"\"a\xc3\xa9\xff\"",
        b"{}{}",
        b"nul",
    ])
}

pub fn json(input: &[u8]) {
    let theirs = serde_json::from_slice::<Value>(input);
    match Json::parse(input) {
        Ok(ours) => {
            // serde_json keeps the last of two members, so a duplicate would differ.
            let theirs = theirs.expect("serde_json reads what we read");
            assert!(is_same(&ours, &theirs), "{ours:?} is {theirs:?}");
            assert!(depth(&theirs) <= MAX_DEPTH);
            let text = ours.to_text();
            let again = Json::parse(text.as_bytes());
            // serde_json reads a float with an error in its last place, so it may change when it is read again.
            assert!(
                again.as_ref() == Ok(&ours) || (again.is_ok() && has_float(&theirs)),
                "{text} is read as {again:?}"
            );
        }
        Err(JsonError::Syntax) => assert!(theirs.is_err(), "we refuse {theirs:?} as no JSON"),
        Err(JsonError::Duplicate | JsonError::TooDeep | JsonError::TooManyMembers) => {}
    }
}

fn is_same(ours: &Json<'_>, theirs: &Value) -> bool {
    match (ours, theirs) {
        (Json::Null, Value::Null) => true,
        (Json::Bool(ours), Value::Bool(theirs)) => ours == theirs,
        (Json::Number(ours), Value::Number(theirs)) => match ours {
            Number::Unsigned(ours) => theirs.as_u64() == Some(*ours),
            Number::Negative(ours) => theirs.as_i64() == Some(*ours),
            Number::Float(ours) => theirs.is_f64() && theirs.as_f64() == Some(*ours),
        },
        (Json::String(ours), Value::String(theirs)) => ours == theirs,
        (Json::Array(ours), Value::Array(theirs)) => {
            ours.len() == theirs.len() && ours.iter().zip(theirs).all(|(ours, theirs)| is_same(ours, theirs))
        }
        (Json::Object(ours), Value::Object(theirs)) => {
            let is_there = |(name, ours)| theirs.get(name).is_some_and(|theirs| is_same(ours, theirs));
            ours.len() == theirs.len() && ours.iter().all(is_there)
        }
        _ => false,
    }
}

fn has_float(value: &Value) -> bool {
    match value {
        Value::Number(number) => number.is_f64(),
        Value::Array(values) => values.iter().any(has_float),
        Value::Object(members) => members.values().any(has_float),
        _ => false,
    }
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(values) => 1 + values.iter().map(depth).max().unwrap_or(0),
        Value::Object(members) => 1 + members.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}
