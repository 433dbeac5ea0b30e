//! The query of an admin request: each parameter known, and once.
use std::ops::RangeInclusive;

use super::problem::Problem;

pub struct Query(Vec<(String, String)>);

impl Query {
    /// # Errors
    /// A parameter that is not in `known`, or is there twice.
    pub fn read(query: Option<&str>, known: &[&str]) -> Result<Self, Problem> {
        let mut pairs: Vec<(String, String)> = Vec::new();
        for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            if !known.contains(&&*name) || pairs.iter().any(|(given, _)| *given == name) {
                return Err(Problem::field(&name, "is no parameter of this request, or is given twice"));
            }
            pairs.push((name.into_owned(), value.into_owned()));
        }
        Ok(Self(pairs))
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(given, _)| given == name).map(|(_, value)| value.as_str())
    }

    /// # Errors
    /// It is not a whole number in the range.
    pub fn number(&self, name: &str, range: RangeInclusive<usize>) -> Result<Option<usize>, Problem> {
        let Some(text) = self.get(name) else { return Ok(None) };
        let number = text.parse().ok().filter(|number| range.contains(number));
        let (least, most) = range.into_inner();
        number.map(Some).ok_or_else(|| Problem::field(name, &format!("must be a whole number from {least} to {most}")))
    }
}
