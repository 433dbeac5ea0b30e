//! `portcullis completions`: a shell's completion script, generated from the command.
use clap::{Args, Command};
use clap_complete::Shell;

use crate::outcome::{Outcome, say};

#[derive(Args)]
pub struct Completions {
    /// The shell that reads the script.
    shell: Shell,
}

impl Completions {
    pub fn run(self, mut command: Command) -> Outcome {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut command, "portcullis", &mut script);
        say(String::from_utf8_lossy(&script).trim_end());
        Outcome::Done
    }
}
