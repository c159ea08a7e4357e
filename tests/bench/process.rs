//! A peer's processes as `/proc` shows them: who belongs to it, what CPU time it used, what memory it holds.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::failure::{During, Failure};
use crate::guard;

/// A started program with all its descendants; they end with this value.
pub struct Process {
    child: Child,
}

/// What every thread of a process tree has used of its core up to one moment.
pub struct CpuSample {
    by_thread: BTreeMap<u32, CpuUse>,
}

/// Use of a core, as the scheduler counts it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuUse {
    /// User and system.
    pub time: Duration,
    /// How often it was put on the core: after it had slept, or after someone else had the core.
    pub turns: u64,
}

impl CpuSample {
    /// What the threads used since an earlier sample. A thread that ended in between is not counted: workers live as
    /// long as their process, and the short-lived threads of a runtime end because they had nothing to do.
    pub fn since(&self, earlier: &CpuSample) -> CpuUse {
        let mut used = CpuUse::default();
        for (thread, now) in &self.by_thread {
            let before = earlier.by_thread.get(thread).copied().unwrap_or_default();
            used.time += now.time.saturating_sub(before.time);
            used.turns += now.turns.saturating_sub(before.turns);
        }
        used
    }
}

impl Process {
    pub fn new(child: Child) -> Self {
        guard::watch(child.id());
        Self { child }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    pub fn cpu(&self) -> Result<CpuSample, Failure> {
        let mut by_thread = BTreeMap::new();
        for process in tree(self.id()).during("reading the process tree")? {
            for thread in numbers_in(&PathBuf::from(format!("/proc/{process}/task"))) {
                let file = PathBuf::from(format!("/proc/{process}/task/{thread}/schedstat"));
                let Ok(text) = fs::read_to_string(&file) else {
                    // It ended between the listing and here.
                    continue;
                };
                let used = schedstat(&text).ok_or(Failure::Proc { file })?;
                by_thread.insert(thread, used);
            }
        }
        Ok(CpuSample { by_thread })
    }

    /// Proportional set size of the whole tree, in bytes.
    pub fn memory(&self) -> Result<u64, Failure> {
        let mut bytes = 0;
        for process in tree(self.id()).during("reading the process tree")? {
            let file = PathBuf::from(format!("/proc/{process}/smaps_rollup"));
            let text = fs::read_to_string(&file).during(file.display().to_string())?;
            let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
            let kib: Option<u64> = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok());
            bytes += kib.ok_or(Failure::Proc { file })? * 1024;
        }
        Ok(bytes)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        kill_tree(self.id());
        // Nothing is left to do about a child that cannot be waited for.
        let _ = self.child.wait();
        guard::forget(self.child.id());
    }
}

/// Ends a process and its descendants at once; the root first, so that it cannot start its workers again.
pub fn kill_tree(root: u32) {
    for process in tree(root).unwrap_or_else(|_| vec![root]) {
        if let Some(pid) = i32::try_from(process).ok().and_then(Pid::from_raw) {
            // One that is gone already is as good as one that is killed now.
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

/// The file's three numbers: nanoseconds on a core, nanoseconds of waiting for one, turns.
fn schedstat(text: &str) -> Option<CpuUse> {
    let mut numbers = text.split_whitespace().map(str::parse::<u64>);
    let time = Duration::from_nanos(numbers.next()?.ok()?);
    let turns = numbers.nth(1)?.ok()?;
    Some(CpuUse { time, turns })
}

/// The process and all its descendants, each before its children.
fn tree(root: u32) -> io::Result<Vec<u32>> {
    let mut found = vec![root];
    let mut next = 0;
    while let Some(process) = found.get(next) {
        for thread in numbers_in(&PathBuf::from(format!("/proc/{process}/task"))) {
            let children = format!("/proc/{}/task/{thread}/children", found[next]);
            match fs::read_to_string(&children) {
                Ok(list) => found.extend(list.split(' ').filter_map(|id| id.parse::<u32>().ok())),
                // Without this file a worker process would be missed silently.
                Err(error) if next == 0 && thread == root => return Err(error),
                Err(_) => {}
            }
        }
        next += 1;
    }
    Ok(found)
}

/// The entries of a folder whose names are numbers; none if the folder is gone.
fn numbers_in(folder: &Path) -> Vec<u32> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}
