//! `portcullis top`: what proxies and services do now, from their metrics. On a terminal it is live; a pipe gets lines.
//!
//! Exit codes: 0 done; 1 failed; 2 wrong usage; 3 nothing that was named answers (with `--once`).
use std::io::IsTerminal as _;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use clap::Args;
use driver::CalloutReply as _;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use wire::parse_duration;

use crate::exposition::Scrape;
use crate::outcome::{Outcome, say, url, wrong_usage};
use crate::peers::{Peers, TlsArgs};

mod between;
mod model;
mod plain;
mod screen;

use model::{Kind, Watched};
use screen::View;

#[derive(Args)]
pub struct Top {
    /// The admin interface of an Envoy with the filter. Repeatable.
    #[arg(long = "envoy", value_name = "URL", value_parser = url)]
    envoys: Vec<String>,
    /// The admin listener of a service. Repeatable.
    #[arg(long = "service", value_name = "URL", value_parser = url)]
    services: Vec<String>,
    /// The time between two looks; 500ms to 5m.
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = interval)]
    interval: Duration,
    /// Look twice, print the tables once, and exit.
    #[arg(long)]
    once: bool,
    /// Print lines, as into a pipe.
    #[arg(long)]
    plain: bool,
    #[command(flatten)]
    tls: TlsArgs,
}

/// Each is asked by a thread of its own at each look.
const MAX_WATCHED: usize = 64;
/// A key is answered within this time.
const KEYS: Duration = Duration::from_millis(100);

/// The answers of one look, in the order of what is watched.
type Look = (Duration, Vec<Result<Scrape, String>>);

impl Top {
    pub fn run(self) -> Result<Outcome> {
        let proxies = self.envoys.iter().map(|url| Watched::new(Kind::Proxy, url));
        let services = self.services.iter().map(|url| Watched::new(Kind::Service, url));
        let watched: Vec<Watched> = proxies.chain(services).collect();
        if watched.is_empty() {
            wrong_usage("--envoy or --service is needed");
        }
        if watched.len() > MAX_WATCHED {
            wrong_usage(&format!("at most {MAX_WATCHED} proxies and services can be watched"));
        }
        let urls = watched.iter().map(Watched::metrics_url).collect();
        let looks = looks(self.tls.peers()?, urls, self.interval);
        match self.once || self.plain || !std::io::stdout().is_terminal() {
            true => print(watched, &looks, self.once),
            false => live(watched, &looks),
        }
    }
}

/// Looks in the background, one look at a time. One that nobody has taken yet delays the next.
fn looks(peers: Peers, urls: Vec<String>, interval: Duration) -> Receiver<Look> {
    let (send, looks) = sync_channel(0);
    thread::spawn(move || {
        let start = Instant::now();
        loop {
            let at = start.elapsed();
            let answers = thread::scope(|scope| {
                let asking: Vec<_> = urls.iter().map(|url| scope.spawn(|| scrape(&peers, url, interval))).collect();
                let answers = asking.into_iter().map(|one| one.join().unwrap_or_else(|_| Err("panicked".to_owned())));
                answers.collect::<Vec<_>>()
            });
            if send.send((at, answers)).is_err() {
                return;
            }
            thread::sleep(interval.saturating_sub(start.elapsed().saturating_sub(at)));
        }
    });
    looks
}

fn scrape(peers: &Peers, url: &str, interval: Duration) -> Result<Scrape, String> {
    let answer = peers.get(url, interval.clamp(Duration::from_secs(1), Duration::from_secs(5)))?;
    match answer.status() {
        Some(200) => Ok(Scrape::parse(&String::from_utf8_lossy(&answer.body))),
        status => Err(format!("HTTP status {}", status.unwrap_or_default())),
    }
}

fn take(watched: &mut [Watched], (at, answers): Look) {
    for (one, answer) in watched.iter_mut().zip(answers) {
        one.observe(at, answer);
    }
}

/// Lines after each look from the second on: the first has no rates.
fn print(mut watched: Vec<Watched>, looks: &Receiver<Look>, once: bool) -> Result<Outcome> {
    take(&mut watched, looks.recv().context("the looks ended")?);
    loop {
        take(&mut watched, looks.recv().context("the looks ended")?);
        let sections = model::sections(&watched, None, unix_seconds());
        plain::lines(&sections).iter().for_each(|line| say(line));
        if once {
            let is_any = watched.iter().any(Watched::is_reachable);
            return Ok(if is_any { Outcome::Done } else { Outcome::Unconfirmed });
        }
        say("");
        // Otherwise a closed pipe would not end it.
        if std::io::Write::flush(&mut std::io::stdout()).is_err() {
            return Ok(Outcome::Done);
        }
    }
}

fn live(mut watched: Vec<Watched>, looks: &Receiver<Look>) -> Result<Outcome> {
    let mut terminal = ratatui::try_init().context("cannot use the terminal; try --plain")?;
    let done = watch(&mut terminal, &mut watched, looks);
    ratatui::restore();
    done.map(|()| Outcome::Done)
}

fn watch(terminal: &mut ratatui::DefaultTerminal, watched: &mut [Watched], looks: &Receiver<Look>) -> Result<()> {
    let proxies = watched.iter().filter(|one| one.kind == Kind::Proxy).count();
    let mut view = View { has_color: std::env::var_os("NO_COLOR").is_none(), ..View::default() };
    let mut only: Option<usize> = None;
    loop {
        let of = only.and_then(|index| watched.get(index)).map_or("all proxies", |one| one.url.as_str());
        let heading = format!("portcullis top: rules and faults of {of}");
        let sections = model::sections(watched, only, unix_seconds());
        terminal.draw(|frame| screen::draw(frame, &heading, &sections, view))?;
        // A resize is an event too, and is drawn at once.
        if event::poll(KEYS)? {
            match event::read()? {
                Event::Key(key) if key.kind == KeyEventKind::Press => match key.code {
                    KeyCode::Char('q') | KeyCode::Esc => return Ok(()),
                    KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return Ok(()),
                    KeyCode::Char('p') => view.is_paused = !view.is_paused,
                    KeyCode::Tab => only = next(only, proxies),
                    KeyCode::Up => view.offset = view.offset.saturating_sub(1),
                    KeyCode::Down => view.offset = lines_of_rules(&sections).min(view.offset + 1),
                    KeyCode::Home => view.offset = 0,
                    _ => {}
                },
                _ => {}
            }
        }
        match looks.recv_timeout(Duration::ZERO) {
            // While it is paused, looks are taken and not shown.
            Ok(_) if view.is_paused => {}
            Ok(look) => take(watched, look),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => anyhow::bail!("the looks ended"),
        }
    }
}

/// All proxies, then each, then all.
fn next(only: Option<usize>, proxies: usize) -> Option<usize> {
    let next = only.map_or(0, |index| index + 1);
    (next < proxies).then_some(next)
}

fn lines_of_rules(sections: &[model::Section]) -> usize {
    let rules = sections.iter().find(|section| section.title == "Rules");
    rules.map_or(0, |rules| rules.lines.len().saturating_sub(1))
}

fn unix_seconds() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

fn interval(text: &str) -> Result<Duration, String> {
    let interval = parse_duration(text)?;
    match (Duration::from_millis(500)..=Duration::from_secs(300)).contains(&interval) {
        true => Ok(interval),
        false => Err("must be 500ms to 5m".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    use super::*;

    /// Answers each request with the next of these, and then no more.
    fn server(answers: Vec<String>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for answer in answers {
                let (mut stream, _) = listener.accept().unwrap();
                let _ = stream.read(&mut [0; 4096]).unwrap();
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        format!("http://{address}")
    }

    fn answer(status: &str, body: &str) -> String {
        format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len())
    }

    #[test]
    fn looks_are_taken_until_nobody_wants_them_and_say_what_failed() {
        let peers = TlsArgs::default().peers().unwrap();
        let good = server(vec![answer("200 OK", "portcullis_checks_sent 1\n"), answer("404 Not Found", "")]);
        let looks = looks(peers, vec![good], Duration::from_millis(20));
        let (first, answers) = looks.recv().unwrap();
        assert!(answers[0].as_ref().is_ok_and(|scrape| !scrape.is_empty()));
        let (second, answers) = looks.recv().unwrap();
        assert_eq!(answers[0].as_ref().unwrap_err(), "HTTP status 404");
        assert!(second >= first + Duration::from_millis(20));
        let (_, answers) = looks.recv().unwrap();
        assert!(answers[0].as_ref().unwrap_err().contains("http://127.0.0.1:"), "{answers:?}");
    }

    #[test]
    fn tab_goes_through_the_proxies_and_back_to_all() {
        assert_eq!([next(None, 2), next(Some(0), 2), next(Some(1), 2)], [Some(0), Some(1), None]);
        assert_eq!(next(None, 0), None);
    }
}
