//! How many bytes a session asks for ahead: as many as the way to the server holds, found out as they arrive.
//!
//! A server nearby is kept busy by the first few; over 50 ms, a gigabit needs six megabytes under way. What came while one
//! answer was on its way is what the way holds, or what it was given to hold: twice that is asked for next, until more is
//! of no use. How many of these bytes there may be at once in all, the transfer's budget decides.

use std::time::Duration;

use tokio::time::Instant;

/// Granularity of the window, in bytes.
pub const UNIT: u32 = 1024;

/// Bytes that no window exceeds: 50 ms at 2 Gbit/s, with as much again to find out that there is more.
const WIDEST: u64 = 16 * 1024 * 1024;

/// What is known of the way to the server.
#[derive(Debug)]
pub struct Pace {
    /// Bytes that may be under way.
    width: u64,
    /// The shortest time that an answer took.
    round_trip: Duration,
    /// Bytes of data received so far.
    received: u64,
}

/// The moment at which something was asked.
#[derive(Debug, Clone, Copy)]
pub struct Asked {
    at: Instant,
    received: u64,
}

impl Pace {
    /// Of a window of `width` bytes.
    pub fn new(width: u64) -> Self {
        Self { width, round_trip: Duration::MAX, received: 0 }
    }

    pub fn ask(&self, now: Instant) -> Asked {
        Asked { at: now, received: self.received }
    }

    /// An answer with so many bytes of data came. Returns by how many [`UNIT`]s the window grows.
    pub fn answered(&mut self, asked: Asked, now: Instant, bytes: u64) -> usize {
        let took = now.saturating_duration_since(asked.at);
        self.round_trip = self.round_trip.min(took);
        self.received += bytes;
        if bytes == 0 || took.is_zero() {
            return 0;
        }
        let meanwhile = (self.received - asked.received) as f64;
        let way_holds = meanwhile * self.round_trip.as_secs_f64() / took.as_secs_f64();
        let width = ((2.0 * way_holds) as u64).min(WIDEST);
        let units = width.saturating_sub(self.width) / u64::from(UNIT);
        self.width += units * u64::from(UNIT);
        units as usize // at most WIDEST / UNIT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const READ: u64 = 64 << 10;

    /// The width after a while of reads over a way of so much delay and so many bytes a second.
    fn width(round_trip: Duration, bytes_per_second: f64) -> u64 {
        let mut pace = Pace::new(4 * MIB);
        let mut now = Instant::now();
        // When each read that is under way was asked for, and when its answer comes.
        let mut under_way = std::collections::VecDeque::new();
        let mut line_is_free = now;
        for _ in 0..20_000 {
            while (under_way.len() as u64 + 1) * READ <= pace.width {
                line_is_free =
                    line_is_free.max(now + round_trip) + Duration::from_secs_f64(READ as f64 / bytes_per_second);
                under_way.push_back((pace.ask(now), line_is_free));
            }
            let (asked, arrival) = under_way.pop_front().expect("a window holds one read at least");
            now = arrival;
            pace.answered(asked, now, READ);
        }
        pace.width
    }

    #[test]
    fn a_server_nearby_needs_no_more_than_there_was() {
        assert_eq!(width(Duration::from_micros(100), 1e9), 4 * MIB);
    }

    #[test]
    fn a_fast_server_far_away_is_asked_for_what_the_way_holds_and_as_much_again() {
        // 125 MB/s for 50 ms are 6.25 MB.
        let width = width(Duration::from_millis(50), 125e6) as f64;
        assert!((12e6..14e6).contains(&width), "{width}");
    }

    #[test]
    fn no_window_exceeds_the_widest() {
        assert_eq!(width(Duration::from_millis(200), 1e9), WIDEST);
    }

    #[test]
    fn a_slow_server_far_away_is_not_asked_for_more() {
        assert_eq!(width(Duration::from_millis(200), 1e6), 4 * MIB);
    }
}
