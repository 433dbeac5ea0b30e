//! What the doctor found, as text and as JSON.
use serde_json::{Value, json};

use crate::outcome::printable;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// It will fail, or protects less than it should.
    Warning,
    /// Requests are refused or unchecked because of it, or soon will be.
    Error,
}

/// One fault.
#[derive(Debug)]
pub struct Finding {
    /// One word, or a code of docs/faults.md.
    pub name: &'static str,
    pub severity: Severity,
    pub what: String,
    pub why: &'static str,
    pub mend: String,
    pub link: String,
}

#[derive(Debug, Default)]
pub struct Report {
    pub findings: Vec<Finding>,
    /// What was looked at and is in order.
    passed: Vec<(&'static str, String)>,
    /// What was not looked at, and what it needs.
    skipped: Vec<(&'static str, String)>,
}

impl Severity {
    fn name(self) -> &'static str {
        match self {
            Severity::Warning => "warning",
            Severity::Error => "error",
        }
    }
}

impl Report {
    pub fn passed(&mut self, check: &'static str, says: impl Into<String>) {
        self.passed.push((check, says.into()));
    }

    pub fn skipped(&mut self, check: &'static str, needs: impl Into<String>) {
        self.skipped.push((check, needs.into()));
    }

    pub fn found(&mut self, finding: Finding) {
        self.findings.push(finding);
    }

    /// The worst comes first.
    pub fn sort(&mut self) {
        self.findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    }

    pub fn worst(&self) -> Option<Severity> {
        self.findings.iter().map(|finding| finding.severity).max()
    }

    pub fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (check, says) in &self.passed {
            lines.push(format!("ok       {check:<12} {}", printable(says)));
        }
        for (check, needs) in &self.skipped {
            let give = if needs.starts_with("--") { "give " } else { "" };
            lines.push(format!("skipped  {check:<12} {give}{}", printable(needs)));
        }
        for Finding { name, severity, what, why, mend, link } in &self.findings {
            lines.push(format!("{:<8} {name}: {}", severity.name(), printable(what)));
            lines.push(format!("           why:  {why}"));
            lines.push(format!("           mend: {}", printable(mend)));
            lines.push(format!("           see:  {link}"));
        }
        lines.push(match self.findings.len() {
            0 => "nothing found".to_owned(),
            count => format!("{count} found"),
        });
        lines
    }

    pub fn as_json(&self) -> Value {
        let pairs = |pairs: &[(&str, String)]| -> Vec<Value> {
            pairs.iter().map(|(check, says)| json!({ "check": check, "says": says })).collect()
        };
        let findings = self.findings.iter().map(|finding| {
            json!({
                "name": finding.name, "severity": finding.severity.name(), "what": finding.what, "why": finding.why,
                "mend": finding.mend, "link": finding.link,
            })
        });
        json!({
            "ok": self.findings.is_empty(), "findings": findings.collect::<Vec<_>>(), "passed": pairs(&self.passed),
            "skipped": pairs(&self.skipped),
        })
    }
}
