//! The output of the walk: headings, requests, answers, marks, and the table at the end. It also counts.
use std::fmt::Display;
use std::io::IsTerminal as _;

pub struct Show {
    colours: bool,
    steps: Vec<Step>,
}

struct Step {
    heading: &'static str,
    held: usize,
    failed: Vec<String>,
    measured: Vec<String>,
}

impl Show {
    /// With colours on a terminal, unless NO_COLOR (no-color.org) is set and not empty.
    pub fn new() -> Self {
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { colours: std::io::stdout().is_terminal() && !unwanted, steps: Vec::new() }
    }

    pub fn heading(&mut self, heading: &'static str) {
        self.steps.push(Step { heading, held: 0, failed: Vec::new(), measured: Vec::new() });
        println!("\n{}", self.painted("1", format!("{}. {heading}", self.steps.len())));
    }

    pub fn say(&self, line: impl Display) {
        println!("     {line}");
    }

    /// A command.
    pub fn typed(&self, line: impl Display) {
        println!("   {} {line}", self.painted("36", "$"));
    }

    /// A command that is repeated until the answer changes.
    pub fn repeated(&self, line: impl Display) {
        self.typed(format!("{line}, again and again"));
    }

    /// The answer.
    pub fn answered(&self, line: impl Display) {
        println!("   {} {line}", self.painted("36", "<"));
    }

    /// Whether a claim holds.
    pub fn claim(&mut self, holds: bool, claim: impl Display) {
        let mark = if holds { self.painted("32", "ok ") } else { self.painted("1;31", "NOT") };
        println!(" {mark} {claim}");
        let Some(step) = self.steps.last_mut() else { return };
        if holds {
            step.held += 1;
        } else {
            step.failed.push(claim.to_string());
        }
    }

    /// A figure for the table.
    pub fn measured(&mut self, figure: String) {
        if let Some(step) = self.steps.last_mut() {
            step.measured.push(figure);
        }
    }

    /// Returns whether every claim of every step held.
    pub fn table(&self) -> bool {
        println!("\n{}", self.painted("1", "What was shown"));
        let width = self.steps.iter().map(|step| step.heading.chars().count()).max().unwrap_or(0);
        for (place, step) in self.steps.iter().enumerate() {
            let ok = step.failed.is_empty() && step.held > 0;
            let mark = if ok { self.painted("32", "ok ") } else { self.painted("1;31", "NOT") };
            let figures = step.measured.join(", ");
            let heading = step.heading;
            let line = format!(
                " {mark} {}. {heading:width$}  {:2} checks  {figures}",
                place + 1,
                step.held + step.failed.len()
            );
            println!("{}", line.trim_end());
            for failed in &step.failed {
                println!("        {failed}");
            }
        }
        self.steps.iter().all(|step| step.failed.is_empty() && step.held > 0)
    }

    fn painted(&self, colour: &str, text: impl Display) -> String {
        if self.colours { format!("\u{1b}[{colour}m{text}\u{1b}[0m") } else { text.to_string() }
    }
}
