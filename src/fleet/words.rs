//! What is said to Redis and what its answers mean: keys, scripts and numbers. It opens nothing.
//!
//! ```text
//! <prefix>gateway:<gateway>            there while the gateway lives: a lease that its heart renews
//! <prefix>tunnels:<route>:<client>     a hash: gateway → "<tunnels> <change>", worth nothing without the gateway's lease
//! <prefix>handshakes:<route>:<client>  until when the client's bucket is paid, in microseconds of Redis' own clock
//! ```
//!
//! A gateway says how many tunnels it has, not how many more: whatever is said twice, or late, or not at all is put right by
//! what is said next. The number of the change tells which of two counts is the newer.

use std::time::Duration;

use crate::limits::{Client, Count, Pace};

/// May this client open a tunnel at this route?
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    pub route: &'a str,
    pub client: Client,
    pub pace: Option<Pace>,
    /// How many it may have, and how many it has at this gateway, this one included.
    pub tunnels: Option<(u32, Count)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Yes,
    /// It has as many as it may.
    TooMany,
    TooFast {
        wait: Duration,
    },
}

impl Verdict {
    /// The two numbers that [`ASK`] answers with. `None` if they are not.
    pub fn read(numbers: (u64, u64)) -> Option<Verdict> {
        match numbers {
            (0, _) => Some(Verdict::Yes),
            (1, wait_us) => Some(Verdict::TooFast { wait: Duration::from_micros(wait_us) }),
            (2, _) => Some(Verdict::TooMany),
            _ => None,
        }
    }
}

/// Takes a token and counts a tunnel, or does neither and says why. What gateways without a lease said is cleared away here.
pub const ASK: &str = r"
local interval, window = tonumber(ARGV[1]), tonumber(ARGV[2])
local limit, own, change = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local gateway, keep, leases = ARGV[6], ARGV[7], ARGV[8]
if interval > 0 then
  local time = redis.call('TIME')
  local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
  local paid = tonumber(redis.call('GET', KEYS[1]) or '0')
  paid = math.min(math.max(paid, now), now + window) + interval
  if paid > now + window then return {1, paid - now - window} end
  redis.call('SET', KEYS[1], string.format('%.0f', paid), 'PX', math.ceil((paid - now) / 1000))
end
if limit > 0 then
  local sum, newest = own, 0
  local counts = redis.call('HGETALL', KEYS[2])
  for at = 1, #counts, 2 do
    local count, when = string.match(counts[at + 1], '^(%d+) (%d+)$')
    if counts[at] == gateway then
      newest = tonumber(when)
    elseif redis.call('EXISTS', leases .. counts[at]) == 1 then
      sum = sum + tonumber(count)
    else
      redis.call('HDEL', KEYS[2], counts[at])
    end
  end
  if sum > limit then return {2, 0} end
  if change > newest then
    redis.call('HSET', KEYS[2], gateway, ARGV[4] .. ' ' .. ARGV[5])
  end
  redis.call('PEXPIRE', KEYS[2], keep)
end
return {0, 0}
";

/// Puts down a count, unless a newer one is there.
pub const TELL: &str = r"
local gateway, own, change, keep = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]
local known = redis.call('HGET', KEYS[1], gateway)
if known and tonumber(string.match(known, ' (%d+)$')) > change then return 0 end
if own == '0' then
  redis.call('HDEL', KEYS[1], gateway)
else
  redis.call('HSET', KEYS[1], gateway, own .. ' ' .. ARGV[3])
  redis.call('PEXPIRE', KEYS[1], keep)
end
return 1
";

/// The names of keys.
#[derive(Clone, Debug)]
pub struct Keys {
    pub prefix: String,
}

impl Keys {
    /// What the keys of all leases begin with.
    pub fn leases(&self) -> String {
        format!("{}gateway:", self.prefix)
    }

    pub fn lease(&self, gateway: &str) -> String {
        format!("{}gateway:{gateway}", self.prefix)
    }

    pub fn tunnels(&self, route: &str, client: Client) -> String {
        format!("{}tunnels:{route}:{client}", self.prefix)
    }

    pub fn handshakes(&self, route: &str, client: Client) -> String {
        format!("{}handshakes:{route}:{client}", self.prefix)
    }
}

/// Interval and window in microseconds, which Lua's numbers hold exactly; 0 where nothing is to be taken.
pub fn pace_us(pace: Option<Pace>) -> (u64, u64) {
    let Some(pace) = pace else { return (0, 0) };
    let us = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX).max(1);
    let interval = us(pace.interval());
    // As many intervals as there are tokens.
    let tokens = pace.window().as_nanos() / pace.interval().as_nanos().max(1);
    (interval, interval.saturating_mul(u64::try_from(tokens).unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::model::Rate;

    fn check_pace(count: u32, per: Duration, expected: (u64, u64)) {
        assert_eq!(pace_us(Some(Pace::new(Rate { count, per }))), expected);
    }

    #[test]
    fn a_bucket_holds_as_many_there_as_here() {
        check_pace(1, Duration::from_secs(1), (1_000_000, 1_000_000));
        check_pace(3, Duration::from_secs(1), (333_333, 999_999));
        check_pace(1_000_000, Duration::from_secs(1), (1, 1_000_000));
        check_pace(20, Duration::from_secs(3600), (180_000_000, 3_600_000_000));
        assert_eq!(pace_us(None), (0, 0));
    }

    #[test]
    fn an_answer_is_one_of_three() {
        assert_eq!(Verdict::read((0, 0)), Some(Verdict::Yes));
        assert_eq!(Verdict::read((1, 1_500)), Some(Verdict::TooFast { wait: Duration::from_micros(1_500) }));
        assert_eq!(Verdict::read((2, 0)), Some(Verdict::TooMany));
        assert_eq!(Verdict::read((3, 0)), None);
    }
}
