//! One connection to Redis, and the gateway's name on it. It does not know when anything is to be said.
//!
//! A link that failed once is not used again. The next one has another name, so that nothing that was said under the old one,
//! or is still on its way, can be taken for what is so now.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Cmd, IntoConnectionInfo, Pipeline, RedisError};
use tokio::time::timeout;

use super::words::{ASK, Keys, Question, TELL, Verdict, pace_us};
use crate::config::model::SharedLimits;
use crate::limits::Told;

/// For what no client waits for: to connect, to renew the lease, to tell counts.
const UNHURRIED: Duration = Duration::from_secs(2);

/// Counts that are told in one go. More would keep a handshake's question waiting behind them.
pub const TOLD_AT_ONCE: usize = 200;

pub struct Link {
    connection: MultiplexedConnection,
    rules: SharedLimits,
    keys: Keys,
    gateway: String,
    /// Digests under which Redis has the scripts.
    ask: String,
    tell: String,
    /// How long a client's counts are kept of which nothing is said.
    keep: Duration,
}

/// Why Redis is of no use.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    #[error("{0}")]
    Redis(#[from] RedisError),
    #[error("cannot read the password: {0}")]
    Password(std::io::Error),
    #[error("the answer is none of those expected")]
    Answer,
    #[error("the lease ran out, so other gateways count what is open here no more")]
    Lease,
    #[error("too much happened at once to be told")]
    Torn,
}

impl Failure {
    /// Of [`SHARED_LIMITS_FAILURES`](crate::observe::metrics::SHARED_LIMITS_FAILURES).
    pub fn code(&self) -> &'static str {
        match self {
            Failure::Timeout(_) => "timeout",
            Failure::Redis(error) if error.is_timeout() => "timeout",
            Failure::Redis(error) if error.is_io_error() || error.is_connection_dropped() => "connection",
            Failure::Redis(_) | Failure::Answer | Failure::Password(_) => "answer",
            Failure::Lease | Failure::Torn => "lost",
        }
    }
}

impl Link {
    /// Connects, takes a name and gives up the one before. `keep` is how long a client's counts stay of which nothing is said.
    ///
    /// # Errors
    /// When Redis cannot be reached or does not do what is asked.
    pub async fn open(rules: &SharedLimits, before: Option<&str>, keep: Duration) -> Result<Link, Failure> {
        let connection = timeout(UNHURRIED, connect(rules)).await.map_err(|_| Failure::Timeout(UNHURRIED))??;
        let keys = Keys { prefix: rules.prefix.clone() };
        let gateway = format!("{:016x}", fastrand::u64(..));
        let mut link =
            Link { connection, rules: rules.clone(), keys, gateway, ask: String::new(), tell: String::new(), keep };
        let mut first = redis::pipe();
        first.cmd("SCRIPT").arg("LOAD").arg(ASK).cmd("SCRIPT").arg("LOAD").arg(TELL);
        if let Some(before) = before {
            first.del(link.keys.lease(before)).ignore();
        }
        first.add_command(link.lease("NX")).ignore();
        (link.ask, link.tell) = link.unhurried(&first).await?;
        Ok(link)
    }

    pub fn gateway(&self) -> &str {
        &self.gateway
    }

    /// # Errors
    /// When there is no answer in the time that a handshake has for it.
    pub async fn ask(&self, question: &Question<'_>) -> Result<Verdict, Failure> {
        let Question { route, client, pace, tunnels } = *question;
        let (interval_us, window_us) = pace_us(pace);
        let (limit, own, change) = tunnels.map_or((0, 0, 0), |(limit, count)| (limit, count.slots, count.change));
        let mut command = redis::cmd("EVALSHA");
        command.arg(&self.ask).arg(2).arg(self.keys.handshakes(route, client)).arg(self.keys.tunnels(route, client));
        command.arg(interval_us).arg(window_us).arg(limit).arg(own).arg(change);
        command.arg(&self.gateway).arg(ms(self.keep)).arg(self.keys.leases());
        let mut connection = self.connection.clone();
        let answer = timeout(self.rules.timeout, command.query_async(&mut connection)).await;
        let numbers = answer.map_err(|_| Failure::Timeout(self.rules.timeout))??;
        Verdict::read(numbers).ok_or(Failure::Answer)
    }

    /// # Errors
    /// When not all of it was heard.
    pub async fn tell(&self, counts: &[Told]) -> Result<(), Failure> {
        for counts in counts.chunks(TOLD_AT_ONCE) {
            let mut pipeline = redis::pipe();
            for told in counts {
                let command = pipeline.cmd("EVALSHA").arg(&self.tell).arg(1);
                command.arg(self.keys.tunnels(&told.route, told.client)).arg(&self.gateway);
                command.arg(told.count.slots).arg(told.count.change).arg(ms(self.keep)).ignore();
            }
            self.unhurried::<()>(&pipeline).await?;
        }
        Ok(())
    }

    /// Lives on for the length of the lease.
    ///
    /// # Errors
    /// When Redis does not know the gateway any more: it was too late, or Redis began anew.
    pub async fn renew(&self) -> Result<(), Failure> {
        let mut pipeline = redis::pipe();
        pipeline.add_command(self.lease("XX"));
        let (renewed,): (Option<String>,) = self.unhurried(&pipeline).await?;
        renewed.map(|_| ()).ok_or(Failure::Lease)
    }

    /// What was told under this name counts no more.
    pub async fn give_up(&self) {
        let mut pipeline = redis::pipe();
        pipeline.del(self.keys.lease(&self.gateway)).ignore();
        // Otherwise the lease runs out.
        let _ = self.unhurried::<()>(&pipeline).await;
    }

    fn lease(&self, condition: &str) -> Cmd {
        let mut command = redis::cmd("SET");
        command.arg(self.keys.lease(&self.gateway)).arg(1).arg(condition).arg("PX").arg(ms(self.rules.lease));
        command
    }

    async fn unhurried<T: redis::FromRedisValue>(&self, pipeline: &Pipeline) -> Result<T, Failure> {
        let mut connection = self.connection.clone();
        let answer = timeout(UNHURRIED, pipeline.query_async(&mut connection)).await;
        Ok(answer.map_err(|_| Failure::Timeout(UNHURRIED))??)
    }
}

async fn connect(rules: &SharedLimits) -> Result<MultiplexedConnection, Failure> {
    let mut info = rules.redis.as_deref().unwrap_or_default().into_connection_info()?;
    if let Some(path) = rules.password_file.clone() {
        let read = tokio::task::spawn_blocking(move || std::fs::read_to_string(path)).await;
        let text = read.map_err(std::io::Error::other).flatten().map_err(Failure::Password)?;
        let settings = info.redis_settings().clone().set_password(text.lines().next().unwrap_or_default());
        info = info.set_redis_settings(settings);
    }
    // How long is waited for an answer is said with each question.
    let config = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
    Ok(Client::open(info)?.get_multiplexed_async_connection_with_config(&config).await?)
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
