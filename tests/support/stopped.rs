//! One thread of a process held still, as a disk that hangs holds it: by ptrace(2).

use std::{
    fs,
    sync::mpsc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crate::clock::BOUND;

/// A thread that stands still until this is dropped.
#[derive(Debug)]
pub struct Stopped {
    release: Option<mpsc::Sender<()>>,
    tracer: Option<JoinHandle<()>>,
}

impl Stopped {
    /// The thread of this name. `None` where this is not allowed (ptrace_scope, containers).
    ///
    /// # Panics
    /// If there is no such thread.
    pub fn thread(pid: u32, name: &str) -> Option<Self> {
        let tid = tid_of(pid, name);
        let (release, released) = mpsc::channel();
        let (stopped, stops) = mpsc::channel();
        // A thread has one tracer, which is a thread as well.
        let tracer = thread::spawn(move || {
            let none = std::ptr::null_mut::<libc::c_void>();
            // SAFETY: numbers and null pointers only; the tracee is a child's thread.
            let seized = unsafe {
                libc::ptrace(libc::PTRACE_SEIZE, tid, none, none) == 0
                    && libc::ptrace(libc::PTRACE_INTERRUPT, tid, none, none) == 0
                    && libc::waitpid(tid, std::ptr::null_mut(), libc::__WALL) == tid
            };
            let _ = stopped.send(seized);
            if seized {
                let _ = released.recv();
                // SAFETY: as above. It may have been killed meanwhile.
                unsafe { libc::ptrace(libc::PTRACE_DETACH, tid, none, none) };
            }
        });
        let this = Self { release: Some(release), tracer: Some(tracer) };
        stops.recv().unwrap_or(false).then_some(this)
    }
}

/// A thread gives itself its name, a moment after it has been begun.
fn tid_of(pid: u32, name: &str) -> i32 {
    let begin = Instant::now();
    loop {
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("/proc");
        let is_it = |task: &fs::DirEntry| {
            let comm = fs::read_to_string(task.path().join("comm"));
            comm.is_ok_and(|comm| comm.trim() == name)
        };
        if let Some(task) = tasks.flatten().find(is_it) {
            return task.file_name().to_string_lossy().parse().expect("a number");
        }
        assert!(begin.elapsed() < BOUND, "no thread {name}");
        thread::sleep(Duration::from_millis(5));
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        self.release = None;
        if let Some(tracer) = self.tracer.take() {
            let _ = tracer.join();
        }
    }
}
