//! The access log's queue, writer thread and file. Whoever writes a line copies it into the queue and goes on; only the
//! writer ever waits for a disk or a pipe. It does not know what is in a line.
//!
//! ```text
//! write ──► queue (bounded) ──► writer thread ──► standard output, or a file opened to append
//!             │ full: dropped and counted
//! ```

use std::fs::File;
use std::io::{self, Write};
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use parking_lot::{Condvar, Mutex, MutexGuard};
use prometheus::IntCounter;

use crate::config::model;

/// Lines that wait for the writer, at most.
const LINES_MAX: usize = 8_192;

/// Bytes that wait for the writer, at most: a line has no other limit than the request head it tells of.
const BYTES_MAX: usize = 8 << 20;

/// What the queue keeps allocated after a burst.
const BYTES_KEPT: usize = 64 << 10;

/// How long the writer lets lines gather, so that a busy gateway makes a hundred writes a second and not one a line.
const GATHER: Duration = Duration::from_millis(10);

/// How long an exit waits for a disk that does not take the last lines.
const CLOSE_WAIT: Duration = Duration::from_secs(5);

/// Where lines go. Cheap when off: nothing is formatted.
pub struct AccessLog {
    on: AtomicBool,
    target: Mutex<model::AccessLog>,
    shared: Arc<Shared>,
}

struct Shared {
    queue: Mutex<Queue>,
    /// For the writer: the queue has something to do.
    filled: Condvar,
    /// For [`AccessLog::close`]: the writer has ended.
    ended: Condvar,
    dropped: IntCounter,
}

struct Queue {
    /// Whole lines, each with its line feed. `bytes.len() <= BYTES_MAX`
    bytes: Vec<u8>,
    /// `lines <= LINES_MAX`
    lines: usize,
    writer: Writer,
    switch: Option<Switch>,
}

/// Another sink takes the place of the writer's.
struct Switch {
    /// The bytes of the queue that the old sink still gets. `bytes_before <= Queue::bytes.len()`
    bytes_before: usize,
    sink: Sink,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Writer {
    /// Waits to be told that there is something to do.
    Idle,
    /// Comes back to the queue by itself.
    Busy,
    /// To end once the queue is empty.
    Closing,
    Ended,
}

enum Sink {
    Off,
    Stdout,
    File(File),
}

impl AccessLog {
    /// Opens the target and starts the writer. `dropped` counts the lines that the log must throw away.
    pub fn open(target: &model::AccessLog, dropped: IntCounter) -> io::Result<AccessLog> {
        let sink = Sink::open(target)?;
        let queue = Queue { bytes: Vec::new(), lines: 0, writer: Writer::Busy, switch: None };
        let shared =
            Arc::new(Shared { queue: Mutex::new(queue), filled: Condvar::new(), ended: Condvar::new(), dropped });
        let writer = Arc::clone(&shared);
        thread::Builder::new().name("access-log".to_owned()).spawn(move || writer.run(sink))?;
        let on = AtomicBool::new(*target != model::AccessLog::Off);
        Ok(AccessLog { on, target: Mutex::new(target.clone()), shared })
    }

    /// Queues what `line` makes, a line with its line feed; never waits for a disk.
    pub fn write(&self, line: impl FnOnce() -> Vec<u8>) {
        if self.on.load(Ordering::Relaxed) {
            self.shared.push(&line());
        }
    }

    /// Opens the file by its path again, after a rotation renamed it. On an error the old file stays.
    pub fn reopen(&self) -> io::Result<()> {
        let target = self.target.lock().clone();
        self.switch(&target)
    }

    /// Goes on with another target, after a reload. On an error the old one stays.
    pub fn switch(&self, target: &model::AccessLog) -> io::Result<()> {
        let mut current = self.target.lock();
        let sink = Sink::open(target)?;
        let mut queue = self.shared.queue.lock();
        if matches!(queue.writer, Writer::Closing | Writer::Ended) {
            return Ok(());
        }
        self.shared.switch(&mut queue, sink);
        self.on.store(*target != model::AccessLog::Off, Ordering::Relaxed);
        *current = target.clone();
        Ok(())
    }

    /// Writes what is queued and ends the writer. Lines that come later are nobody's.
    pub fn close(&self) {
        self.on.store(false, Ordering::Relaxed);
        let mut queue = self.shared.queue.lock();
        if queue.writer != Writer::Ended {
            queue.writer = Writer::Closing;
        }
        self.shared.filled.notify_one();
        let is_open = |queue: &mut Queue| queue.writer != Writer::Ended;
        if self.shared.ended.wait_while_for(&mut queue, is_open, CLOSE_WAIT).timed_out() {
            tracing::warn!(lines = queue.lines, "the access log does not take its last lines");
        }
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    fn push(&self, line: &[u8]) {
        let mut queue = self.queue.lock();
        if queue.lines == LINES_MAX || line.len() > BYTES_MAX - queue.bytes.len() {
            drop(queue);
            self.dropped.inc();
            return;
        }
        queue.bytes.extend_from_slice(line);
        queue.lines += 1;
        let half_full = queue.lines == LINES_MAX / 2;
        if queue.writer == Writer::Idle || half_full {
            self.wake(&mut queue);
        }
    }

    fn wake(&self, queue: &mut Queue) {
        if queue.writer == Writer::Idle {
            queue.writer = Writer::Busy;
        }
        self.filled.notify_one();
    }

    /// Lines that are in the queue go to the old sink, later ones to this.
    fn switch(&self, queue: &mut Queue, sink: Sink) {
        let bytes_before = queue.switch.take().map_or(queue.bytes.len(), |earlier| earlier.bytes_before);
        queue.switch = Some(Switch { bytes_before, sink });
        self.wake(queue);
    }

    /// The writer thread.
    fn run(&self, mut sink: Sink) {
        let mut batch = Vec::new();
        let mut failing = false;
        let mut queue = self.queue.lock();
        loop {
            self.wait(&mut queue);
            mem::swap(&mut queue.bytes, &mut batch);
            let lines = mem::take(&mut queue.lines);
            let switch = queue.switch.take();
            let wrote = MutexGuard::unlocked(&mut queue, || write_batch(&mut sink, &batch, switch));
            match wrote {
                Ok(()) => failing = false,
                Err(error) => {
                    self.dropped.inc_by(lines as u64);
                    if !mem::replace(&mut failing, true) {
                        tracing::warn!(%error, lines, "the access log loses lines");
                    }
                }
            }
            batch.clear();
            batch.shrink_to(BYTES_KEPT);
            if queue.writer == Writer::Closing && queue.lines == 0 {
                queue.writer = Writer::Ended;
                self.ended.notify_all();
                return;
            }
        }
    }

    /// Until there is something to do, and then [`GATHER`] longer unless it is urgent.
    fn wait(&self, queue: &mut MutexGuard<'_, Queue>) {
        if queue.lines == 0 && queue.switch.is_none() && queue.writer == Writer::Busy {
            queue.writer = Writer::Idle;
            self.filled.wait_while(queue, |queue| queue.writer == Writer::Idle);
        }
        let may_gather = |queue: &mut Queue| {
            queue.lines < LINES_MAX / 2 && queue.switch.is_none() && queue.writer != Writer::Closing
        };
        self.filled.wait_while_for(queue, may_gather, GATHER);
    }
}

fn write_batch(sink: &mut Sink, batch: &[u8], switch: Option<Switch>) -> io::Result<()> {
    let Some(switch) = switch else { return sink.write(batch) };
    let (before, after) = batch.split_at(switch.bytes_before);
    let wrote = sink.write(before);
    *sink = switch.sink;
    wrote.and(sink.write(after))
}

impl Sink {
    fn open(target: &model::AccessLog) -> io::Result<Sink> {
        match target {
            model::AccessLog::Off => Ok(Sink::Off),
            model::AccessLog::Stdout => Ok(Sink::Stdout),
            model::AccessLog::File(path) => Ok(Sink::File(File::options().append(true).create(true).open(path)?)),
        }
    }

    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        match self {
            Sink::Off => Ok(()),
            Sink::Stdout => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(lines)?;
                stdout.flush()
            }
            Sink::File(file) => file.write_all(lines),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Read;
    use std::path::{Path, PathBuf};

    use super::*;

    fn counter() -> IntCounter {
        IntCounter::new("dropped_total", "Dropped.").unwrap()
    }

    fn open(path: &Path) -> AccessLog {
        AccessLog::open(&model::AccessLog::File(path.to_owned()), counter()).unwrap()
    }

    fn folder() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        (folder, path)
    }

    #[test]
    fn close_writes_all_lines_in_order_behind_what_is_there() {
        let (_folder, path) = folder();
        fs::write(&path, "old\n").unwrap();
        let log = open(&path);
        let mut expected = "old\n".to_owned();
        for number in 0..1_000 {
            log.write(|| format!("{number}\n").into_bytes());
            expected.push_str(&format!("{number}\n"));
        }
        log.close();
        assert_eq!(fs::read_to_string(&path).unwrap(), expected);
        log.write(|| b"late\n".to_vec());
        log.close();
        drop(log);
        assert_eq!(fs::read_to_string(&path).unwrap(), expected);
    }

    #[test]
    fn lines_of_several_threads_stay_whole() {
        let (_folder, path) = folder();
        let log = open(&path);
        let line = format!("{}\n", "x".repeat(300));
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..500).for_each(|_| log.write(|| line.clone().into_bytes())));
            }
        });
        log.close();
        assert_eq!(fs::read_to_string(&path).unwrap(), line.repeat(2_000));
    }

    #[test]
    fn a_rotation_splits_the_lines_where_it_was_asked_for() {
        let (folder, path) = folder();
        let rotated = folder.path().join("access.log.1");
        let log = open(&path);
        log.write(|| b"first\n".to_vec());
        fs::rename(&path, &rotated).unwrap();
        log.reopen().unwrap();
        log.write(|| b"second\n".to_vec());
        log.close();
        assert_eq!(fs::read_to_string(&rotated).unwrap(), "first\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), "second\n");
    }

    #[test]
    fn a_target_that_cannot_be_opened_leaves_the_old_one() {
        let (folder, path) = folder();
        let log = open(&path);
        let missing = model::AccessLog::File(folder.path().join("missing/access.log"));
        assert!(log.switch(&missing).is_err());
        assert!(AccessLog::open(&missing, counter()).is_err());
        log.write(|| b"line\n".to_vec());
        log.close();
        assert_eq!(fs::read_to_string(&path).unwrap(), "line\n");
    }

    #[test]
    fn a_log_that_is_off_formats_nothing_until_it_is_switched_on() {
        let (_folder, path) = folder();
        let log = AccessLog::open(&model::AccessLog::Off, counter()).unwrap();
        log.write(|| unreachable!("the log is off"));
        log.switch(&model::AccessLog::File(path.clone())).unwrap();
        log.write(|| b"line\n".to_vec());
        log.close();
        assert_eq!(fs::read_to_string(&path).unwrap(), "line\n");
    }

    #[test]
    fn a_full_queue_drops_counts_and_never_blocks() {
        let (mut reader, writer) = io::pipe().unwrap();
        let log = AccessLog::open(&model::AccessLog::Off, counter()).unwrap();
        let pipe = Sink::File(std::os::fd::OwnedFd::from(writer).into());
        log.shared.switch(&mut log.shared.queue.lock(), pipe);
        log.on.store(true, Ordering::Relaxed);
        // Nobody reads the pipe, so the writer blocks once the pipe is full.
        let line = [b'x'; 1_023].into_iter().chain(*b"\n").collect::<Vec<u8>>();
        let written = 4 * LINES_MAX as u64;
        for _ in 0..written {
            log.write(|| line.clone());
        }
        let dropped = log.shared.dropped.get();
        assert!(dropped >= LINES_MAX as u64, "dropped {dropped}");
        let read = thread::spawn(move || {
            let mut text = Vec::new();
            reader.read_to_end(&mut text).map(|_| text.len() as u64 / 1_024)
        });
        log.close();
        drop(log);
        assert_eq!(read.join().unwrap().unwrap(), written - dropped);
    }

    #[test]
    fn a_write_that_fails_counts_its_lines() {
        let log = AccessLog::open(&model::AccessLog::File("/dev/full".into()), counter()).unwrap();
        log.write(|| b"one\n".to_vec());
        log.write(|| b"two\n".to_vec());
        log.close();
        assert_eq!(log.shared.dropped.get(), 2);
    }
}
