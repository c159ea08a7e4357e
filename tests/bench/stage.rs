//! Where the load plays: turns the one loop that serves backend and clients, for an operation count or for a time.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use crate::cases::Carrier;
use crate::echo::Echo;
use crate::failure::{During, Failure};
use crate::http2_load::Http2Load;
use crate::identity::Identity;
use crate::load::{Job, Load};
use crate::poll::{Poll, Ready, Token};

/// No job takes longer, whatever the peer does.
const JOB_TIME_MAX: Duration = Duration::from_mins(1);

pub struct Stage {
    poll: Poll,
    ready: Vec<Ready>,
    echo: Echo,
    /// Which of the two is aimed and works.
    carrier: Carrier,
    load: Load,
    http2: Http2Load,
}

/// What a job took, apart from what it took the gateway.
#[derive(Clone, Copy, Debug)]
pub struct Performed {
    pub wall: Duration,
    /// CPU time of clients and backend together.
    pub load_cpu: Duration,
}

impl Stage {
    pub fn new(identity: Rc<Identity>) -> Result<Self, Failure> {
        let poll = Poll::new().during("making an epoll")?;
        let echo = Echo::new(&poll).during("listening as the backend")?;
        let (load, http2) = (Load::new(identity), Http2Load::new());
        Ok(Self { poll, ready: Vec::new(), echo, carrier: Carrier::Plain, load, http2 })
    }

    pub fn backend(&self) -> Result<SocketAddr, Failure> {
        self.echo.address().during("reading the backend's address")
    }

    /// Closes every connection of the load and turns to another gateway.
    pub fn aim(&mut self, carrier: Carrier, gateway: SocketAddr) {
        self.carrier = carrier;
        match carrier {
            Carrier::Plain => self.load.aim(gateway),
            Carrier::Tls => self.load.aim_with_tls(gateway),
            Carrier::Http2 => self.http2.aim(gateway),
        }
    }

    pub fn perform(&mut self, job: Job, count: u64, at_once: usize) -> Result<Performed, Failure> {
        let began = Instant::now();
        let cpu = thread_cpu();
        self.begin(job, count, at_once)?;
        while self.done() < count {
            if began.elapsed() > JOB_TIME_MAX {
                let done = self.done();
                return Err(Failure::TooSlow { done, count, after: JOB_TIME_MAX });
            }
            self.turn(Duration::from_secs(1))?;
        }
        Ok(Performed { wall: began.elapsed(), load_cpu: thread_cpu().saturating_sub(cpu) })
    }

    /// Serves whatever comes, Pings among it, for so long.
    pub fn rest(&mut self, time: Duration) -> Result<(), Failure> {
        let end = Instant::now() + time;
        self.begin(Job::Rest, 0, 0)?;
        while let Some(left) = end.checked_duration_since(Instant::now()) {
            self.turn(left)?;
        }
        Ok(())
    }

    fn begin(&mut self, job: Job, count: u64, at_once: usize) -> Result<(), Failure> {
        match self.carrier {
            Carrier::Plain | Carrier::Tls => self.load.begin(&self.poll, job, count, at_once),
            Carrier::Http2 => self.http2.begin(&self.poll, job, count, at_once),
        }
    }

    fn done(&self) -> u64 {
        match self.carrier {
            Carrier::Plain | Carrier::Tls => self.load.done(),
            Carrier::Http2 => self.http2.done(),
        }
    }

    fn turn(&mut self, timeout: Duration) -> Result<(), Failure> {
        let mut events = std::mem::take(&mut self.ready);
        self.poll.wait(&mut events, timeout).during("waiting for events")?;
        for &ready in &events {
            match ready.token {
                Token::Listener => self.echo.accept(&self.poll).during("accepting as the backend")?,
                Token::Echo(slot) => self.echo.serve(slot, ready),
                Token::Client(slot) => match self.carrier {
                    Carrier::Plain | Carrier::Tls => self.load.ready(&self.poll, slot, ready)?,
                    Carrier::Http2 => self.http2.ready(slot)?,
                },
            }
        }
        self.ready = events;
        Ok(())
    }
}

fn thread_cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}
