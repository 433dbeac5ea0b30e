//! What is known of one followed region: as of when it is merged here, and whether it is cut off.
use std::time::{Duration, Instant};

/// A region is cut off when nothing of it was complete for so long.
pub const CUT_OFF: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, Copy)]
pub struct Status {
    /// When this instance began to follow.
    began: Instant,
    /// Everything that was acknowledged there before this is here. `None`: it was never all here.
    complete: Option<Instant>,
    /// Whether it was told that the region is cut off.
    said: bool,
}

/// What is worth telling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    CutOff,
    Back,
}

impl Status {
    pub fn new(now: Instant) -> Self {
        Self { began: now, complete: None, said: false }
    }

    pub fn complete(&self) -> Option<Instant> {
        self.complete
    }

    pub fn completed(&mut self, moment: Instant) {
        // Another instance of the region may be behind. What is here stays here.
        self.complete = Some(self.complete.map_or(moment, |complete| complete.max(moment)));
    }

    /// It is not known any more that everything is here: our own store may have lost some of it.
    pub fn doubt(&mut self, now: Instant) {
        (self.began, self.complete) = (now, None);
    }

    pub fn is_cut_off(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.complete.unwrap_or(self.began)) > CUT_OFF
    }

    /// At most once for each change.
    pub fn turn(&mut self, now: Instant) -> Option<Turn> {
        let is_cut_off = self.is_cut_off(now);
        if is_cut_off == self.said || (self.said && self.complete.is_none()) {
            return None;
        }
        self.said = is_cut_off;
        Some(if is_cut_off { Turn::CutOff } else { Turn::Back })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_is_cut_off_after_a_while_and_each_change_is_told_once() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut status = Status::new(start);
        assert_eq!((status.turn(at(30)), status.turn(at(31)), status.turn(at(32))), (None, Some(Turn::CutOff), None));
        status.completed(at(40));
        assert_eq!((status.turn(at(41)), status.turn(at(42))), (Some(Turn::Back), None));
        status.completed(at(35));
        assert_eq!(status.complete(), Some(at(40)), "an instance that is behind takes nothing back");
        status.doubt(at(50));
        assert_eq!((status.turn(at(80)), status.turn(at(81))), (None, Some(Turn::CutOff)));
        status.doubt(at(90));
        assert_eq!(status.turn(at(91)), None, "it is not back because it is doubted anew");
    }
}
