//! Makes sure that no peer outlives the benchmark: its processes end on a signal and when the run takes too long.
//! (A return or a panic ends them by `Drop`.)

use std::io;
use std::process;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use tokio::runtime;
use tokio::signal::unix::{SignalKind, signal};

use crate::process::kill_tree;

/// Root processes that are running now.
static WATCHED: Mutex<Vec<u32>> = Mutex::new(Vec::new());

pub fn watch(process: u32) {
    WATCHED.lock().unwrap_or_else(PoisonError::into_inner).push(process);
}

pub fn forget(process: u32) {
    WATCHED.lock().unwrap_or_else(PoisonError::into_inner).retain(|watched| *watched != process);
}

/// Starts a thread that ends everything on SIGINT, SIGTERM or SIGHUP, and after `time_limit`.
pub fn stand(time_limit: Duration) -> io::Result<()> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut interrupt, mut terminate, mut hangup) = {
        let _inside = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?, signal(SignalKind::hangup())?)
    };
    thread::Builder::new().name("guard".to_owned()).spawn(move || {
        let why = runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => "interrupted".to_owned(),
                _ = terminate.recv() => "terminated".to_owned(),
                _ = hangup.recv() => "hung up".to_owned(),
                () = tokio::time::sleep(time_limit) => format!("not done after {time_limit:?}"),
            }
        });
        eprintln!("bench: {why}");
        for process in WATCHED.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            kill_tree(*process);
        }
        process::exit(1);
    })?;
    Ok(())
}
