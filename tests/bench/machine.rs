//! What the benchmark asks of the machine for itself: two cores and enough files.

use std::io;

use rustix::process::{Resource, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Which core the gateways run on and which the load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cores {
    pub gateway: usize,
    pub load: usize,
}

impl Cores {
    /// The first and the last of those that this process may use; on a machine with one core they are the same.
    pub fn choose() -> io::Result<Self> {
        let allowed = sched_getaffinity(None)?;
        let mut cores = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core));
        let gateway = cores.next().unwrap_or(0);
        Ok(Self { gateway, load: cores.next_back().unwrap_or(gateway) })
    }
}

/// Pins the calling thread; threads and processes that it starts later inherit it.
pub fn pin(core: usize) -> io::Result<()> {
    let mut cores = CpuSet::new();
    cores.set(core);
    sched_setaffinity(None, &cores)?;
    Ok(())
}

/// Lets this process and its children open as many files as the machine grants.
pub fn raise_file_limit() -> io::Result<()> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit)?;
    Ok(())
}
