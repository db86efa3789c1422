//! The threads of processes as `/proc` shows them: name, state, and where in the kernel they wait.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use contract::vitals::ThreadCounts;
use contract::{ProcessRecord, ThreadRecord};

use crate::guard::heal::vitals::group::{numbered, stat};

/// Threads that are counted, and those that are described.
const MAX_COUNTED: usize = 4096;
const MAX_THREADS: usize = 64;
/// Bytes of names and functions in a record.
const MAX_BYTES: usize = 8 * 1024;
/// Functions of a kernel stack, and characters of a name.
const MAX_FRAMES: usize = 12;
const MAX_NAME: usize = 64;
/// What is read of one file.
const FILE_BYTES: u64 = 4096;

/// Reads the threads of those processes.
pub fn read(proc: &Path, processes: &[i32]) -> ProcessRecord {
    let mut counts = ThreadCounts::default();
    let mut threads: Vec<(char, PathBuf)> = Vec::new();
    for pid in processes {
        let task = proc.join(pid.to_string()).join("task");
        for thread in numbered(&task).take(MAX_COUNTED - threads.len()) {
            let thread = task.join(thread.to_string());
            if let Some(stat) = stat(&thread) {
                counts.count(stat.state);
                threads.push((stat.state, thread));
            }
        }
    }
    // Those that no signal reaches, then those that compute. The main thread of a process is its first.
    threads.sort_by_key(|(state, _)| match state {
        'D' => 0,
        'R' => 1,
        'S' => 2,
        _ => 3,
    });
    let mut left = MAX_BYTES;
    let dump = threads.iter().take(MAX_THREADS).map(|(state, thread)| describe(*state, thread));
    let dump = dump
        .take_while(|thread| match left.checked_sub(size(thread)) {
            Some(rest) => {
                left = rest;
                true
            }
            None => false,
        })
        .collect();
    ProcessRecord { threads: (!threads.is_empty()).then_some(counts), dump, log: Vec::new() }
}

fn describe(state: char, thread: &Path) -> ThreadRecord {
    let text = |name: &str| file(&thread.join(name)).unwrap_or_default();
    let wchan = Some(plain(&text("wchan"))).filter(|wchan| !wchan.is_empty() && wchan != "0");
    let stack = text("stack").lines().take(MAX_FRAMES).filter_map(function).collect();
    ThreadRecord { name: plain(&text("comm")), state, wchan, stack }
}

/// The function of a line like `[<0>] futex_wait_queue+0x60/0x90`.
fn function(frame: &str) -> Option<String> {
    let name = frame.split_whitespace().nth(1)?.split('+').next()?;
    Some(plain(name)).filter(|name| !name.is_empty())
}

fn plain(text: &str) -> String {
    text.trim().chars().filter(|letter| !letter.is_control()).take(MAX_NAME).collect()
}

fn size(thread: &ThreadRecord) -> usize {
    let functions: usize = thread.stack.iter().map(|name| name.len() + 3).sum();
    thread.name.len() + thread.wchan.as_ref().map_or(0, String::len) + functions + 32
}

fn file(path: &Path) -> Option<String> {
    let mut text = Vec::new();
    fs::File::open(path).ok()?.take(FILE_BYTES).read_to_end(&mut text).ok()?;
    Some(String::from_utf8_lossy(&text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn thread(proc: &Path, pid: i32, tid: usize, state: char, files: &[(&str, &str)]) {
        let folder = proc.join(format!("{pid}/task/{tid}"));
        fs::create_dir_all(&folder).unwrap();
        let stat = format!(
            "{tid} (python3) {state} 1 7 7 0 -1 4194304 100 0 0 0 1 5 3 2 20 0 2 0 900 1000000 256 \
             18446744073709551615 0 0 0 0 0 0 0 0 0 0 0 0 17 1 0 0 0 0 0 0 0 0 0 0 0 0 0\n"
        );
        fs::write(folder.join("stat"), stat).unwrap();
        for (name, text) in files {
            fs::write(folder.join(name), text).unwrap();
        }
    }

    #[test]
    fn threads_that_wait_in_the_kernel_come_first() {
        let proc = tempfile::tempdir().unwrap();
        thread(proc.path(), 7, 7, 'S', &[("comm", "python3\n"), ("wchan", "futex_wait_queue")]);
        thread(proc.path(), 7, 8, 'R', &[("comm", "worker\n"), ("wchan", "0"), ("stack", "")]);
        let stack = "[<0>] uvm_va_space_down_write+0x10/0x90\n[<0>] do_syscall_64+0x5c/0x90\nodd\n";
        thread(
            proc.path(),
            9,
            9,
            'D',
            &[("comm", "cuda\u{1b}-EvtHandlr\n"), ("wchan", "uvm"), ("stack", stack)],
        );
        let record = read(proc.path(), &[7, 9, 11]);
        let counts = ThreadCounts { running: 1, sleeping: 1, blocked: 1, ..ThreadCounts::default() };
        assert_eq!(record.threads, Some(counts));
        let blocked = ThreadRecord {
            name: "cuda-EvtHandlr".into(),
            state: 'D',
            wchan: Some("uvm".into()),
            stack: vec!["uvm_va_space_down_write".into(), "do_syscall_64".into()],
        };
        assert_eq!(record.dump[0], blocked);
        assert_eq!((record.dump[1].name.as_str(), record.dump[1].wchan.as_deref()), ("worker", None));
        assert_eq!(record.dump[2].wchan.as_deref(), Some("futex_wait_queue"));
        assert_eq!(read(proc.path(), &[11]), ProcessRecord::default());
    }

    #[test]
    fn the_record_is_bounded() {
        let proc = tempfile::tempdir().unwrap();
        let frame = format!("[<0>] {}+0x1/0x2\n", "f".repeat(60));
        for tid in 1..=200 {
            let files = [("comm", "x"), ("wchan", "w"), ("stack", &frame.repeat(40))];
            thread(proc.path(), 7, tid, 'S', if tid % 2 == 0 { &files } else { &files[..2] });
        }
        let record = read(proc.path(), &[7]);
        assert_eq!(record.threads.unwrap().sleeping, 200);
        assert!(record.dump.len() <= MAX_THREADS && !record.dump.is_empty());
        assert!(record.dump.iter().all(|thread| thread.stack.len() <= MAX_FRAMES));
        let bytes: usize = record.dump.iter().map(size).sum();
        assert!(bytes <= MAX_BYTES, "{bytes}");
        assert!(serde_json::to_string(&record.dump).unwrap().len() < 2 * MAX_BYTES);
    }
}
