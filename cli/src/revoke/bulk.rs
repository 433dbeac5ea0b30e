//! `portcullis revoke bulk`: sends a file in parts, prints an answer for each line, and remembers how far it got.
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use anyhow::{Context, Result, bail};
use aws_lc_rs::digest::{self, SHA256};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use ureq::http::Method;

use crate::admin::{Client, parsed, reason};
use crate::outcome::{Outcome, say};

/// Lines per request: few enough that all answers fit the sockets' buffers while the rest is still being sent.
const LINES: usize = 500;

/// The lines before the first that was not revoked. The next run sends all others again, which does no harm.
#[derive(Clone)]
struct Finished {
    lines: u64,
    /// Of these lines, so that another file is noticed.
    digest: digest::Context,
}

impl Finished {
    fn none() -> Self {
        Self { lines: 0, digest: digest::Context::new(&SHA256) }
    }

    fn add(&mut self, line: &str) {
        self.lines += 1;
        self.digest.update(line.as_bytes());
        self.digest.update(b"\n");
    }

    /// How many there are, and the first digits of their digest.
    fn text(&self) -> String {
        let digest = self.digest.clone().finish();
        let digits: String = digest.as_ref().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        format!("{} {digits}\n", self.lines)
    }

    /// Skips the lines that an earlier run has finished. A number without a digest was written by hand.
    fn skip(resume: &Path, lines: &mut impl Iterator<Item = std::io::Result<String>>) -> Result<Self> {
        let mut finished = Self::none();
        let text = match fs::read_to_string(resume) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(finished),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", resume.display())),
        };
        let shown = resume.display();
        let mut words = text.split_whitespace();
        let number = words.next().and_then(|number| number.parse::<u64>().ok());
        let number = number.with_context(|| format!("{shown} holds no number of lines"))?;
        for _ in 0..number {
            match lines.next().transpose()? {
                Some(line) => finished.add(&line),
                None => bail!("{shown} says that {number} lines were revoked, and the file has {}", finished.lines),
            }
        }
        if words.next().is_some() && text != finished.text() {
            bail!("{shown} is about another file: the first {number} lines are not those that were revoked");
        }
        Ok(finished)
    }
}

/// Each line's answer has the number of the line in the file.
pub fn run(client: &Client, file: &Path, new_issuer: bool, dry_run: bool, resume: Option<&Path>) -> Result<Outcome> {
    let input: Box<dyn Read> = if file == Path::new("-") {
        Box::new(std::io::stdin())
    } else {
        Box::new(fs::File::open(file).with_context(|| format!("cannot read {}", file.display()))?)
    };
    let mut lines = BufReader::new(input).lines();
    let mut finished = resume.map_or(Ok(Finished::none()), |resume| Finished::skip(resume, &mut lines))?;
    let done = finished.lines;
    if dry_run {
        return would_send(lines, done);
    }
    let bar = progress(file, done);
    let (mut before, mut written, mut failed, mut unconfirmed) = (done, 0_u64, 0_u64, false);
    loop {
        let piece = lines.by_ref().take(LINES).collect::<std::io::Result<Vec<_>>>()?;
        if piece.is_empty() {
            break;
        }
        let body = match new_issuer {
            true => piece.iter().map(|line| with_new_issuer(line)).collect::<Vec<_>>().join("\n"),
            false => piece.join("\n"),
        };
        let answer = client.exchange(Method::POST, "/v1/revocations/bulk", body);
        let text = match answer {
            Ok((200, text)) => text,
            other => return Ok(client.tell(other.map(|(status, text)| (status, parsed(&text))))),
        };
        let mut summed = false;
        // The place in this piece of the first line that was not revoked.
        let mut first_failed = None;
        for line in text.lines() {
            let mut answer = parsed(line);
            if let Some(summary) = answer.get("summary") {
                written += summary["written"].as_u64().unwrap_or(0);
                failed += summary["failed"].as_u64().unwrap_or(0);
                summed = summary.get("cut").is_none();
                continue;
            }
            let of_piece = answer["line"].as_u64().unwrap_or(0);
            let number = before + of_piece;
            answer["line"] = number.into();
            if let Some(error) = answer.get("error") {
                first_failed.get_or_insert(of_piece.saturating_sub(1));
                unconfirmed |= error["status"].as_u64().is_some_and(|status| status >= 500);
            }
            if client.json {
                say(&answer.to_string());
            } else if let Some(error) = answer.get("error") {
                eprintln!("line {number}: {}", reason(error));
            }
        }
        if !summed {
            eprintln!("portcullis: the service's answer ended early, after line {before}");
            return Ok(Outcome::Unconfirmed);
        }
        if finished.lines == before {
            let count = first_failed.map_or(piece.len(), |at| usize::try_from(at).unwrap_or(0));
            piece.iter().take(count).for_each(|line| finished.add(line));
            if let Some(resume) = resume {
                fs::write(resume, finished.text()).with_context(|| format!("cannot write {}", resume.display()))?;
            }
        }
        before += piece.len() as u64;
        bar.set_position(before);
    }
    bar.finish_and_clear();
    if before == 0 {
        eprintln!("portcullis: nothing matched: the file has no line");
    } else if before == done {
        eprintln!("portcullis: nothing to do: all {done} lines were revoked before");
    }
    if client.json {
        say(&json!({ "summary": { "lines": before, "written": written, "failed": failed } }).to_string());
    } else {
        say(&format!("{written} revoked, {failed} failed"));
    }
    if resume.is_some() && failed > 0 {
        eprintln!("portcullis: the next run begins at line {}, the first that was not revoked", finished.lines + 1);
    }
    Ok(match (failed, unconfirmed) {
        (0, _) => Outcome::Done,
        (_, true) => Outcome::Unconfirmed,
        (_, false) => Outcome::Refused,
    })
}

/// Reads the lines as the service would, as far as that needs no service.
fn would_send(lines: impl Iterator<Item = std::io::Result<String>>, done: u64) -> Result<Outcome> {
    let (mut good, mut bad, mut number) = (0_u64, 0_u64, done);
    for line in lines {
        number += 1;
        let line = line?;
        // The service ignores it.
        if line.trim().is_empty() {
            continue;
        }
        match serde_json::from_str::<Value>(&line) {
            Ok(Value::Object(_)) => good += 1,
            Ok(_) => {
                bad += 1;
                eprintln!("line {number}: it is not a JSON object");
            }
            Err(error) => {
                bad += 1;
                eprintln!("line {number}: it is not JSON: {error}");
            }
        }
    }
    say(&format!("{good} lines would be sent, {bad} cannot be read, {done} were revoked before"));
    Ok(if bad == 0 { Outcome::Done } else { Outcome::Refused })
}

/// Hidden where standard error is no terminal.
fn progress(file: &Path, done: u64) -> ProgressBar {
    let count = || Some(BufReader::new(fs::File::open(file).ok()?).lines().count() as u64);
    let style = ProgressStyle::with_template("{bar:30} {pos} of {len} lines, {eta} left");
    let bar = match count() {
        Some(count) if file != Path::new("-") => ProgressBar::new(count),
        _ => ProgressBar::no_length(),
    };
    bar.set_position(done);
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// A line that is not an object is sent unchanged, and the service reports its error.
fn with_new_issuer(line: &str) -> String {
    match serde_json::from_str(line) {
        Ok(Value::Object(mut members)) => {
            members.insert("new_issuer".to_owned(), true.into());
            Value::Object(members).to_string()
        }
        _ => line.to_owned(),
    }
}
