use std::io;
use std::sync::mpsc;

use super::*;

const ILLEGAL: &[u8] = b"RuntimeError: CUDA error: an illegal memory access was encountered\n";
const DRIVER: &[u8] = b"RuntimeError: The NVIDIA driver on your system is too old\n";

/// Keeps what is written; the first write waits until it may go on.
struct Sink {
    written: Arc<Mutex<Vec<u8>>>,
    gate: Option<mpsc::Receiver<()>>,
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(gate) = self.gate.take() {
            let _ = gate.recv();
        }
        self.written.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn output(gate: Option<mpsc::Receiver<()>>) -> (Output, Arc<Mutex<Vec<u8>>>) {
    let written = Arc::default();
    let sink = Sink { written: Arc::clone(&written), gate };
    (Output::new("stt-0", Arc::new(Catalogue::new(&[])), sink), written)
}

#[tokio::test]
async fn every_line_is_passed_on_in_order() {
    let (output, written) = output(None);
    let input: String = (0..1000).map(|at| format!("line {at}\n")).collect();
    output.follow(input.as_bytes()).await;
    let words = output.last_words(Instant::now());
    assert_eq!((words.dropped, words.finding), (0, None));
    drop(output); // writes what waits
    assert_eq!(String::from_utf8(written.lock().clone()).unwrap(), input);
}

#[tokio::test]
async fn a_sink_that_blocks_holds_up_nothing_and_losses_are_counted() {
    let (open, gate) = mpsc::channel();
    let (output, written) = output(Some(gate));
    let lines = MAX_WAITING + 500;
    let input = "x\n".repeat(lines);
    output.follow(input.as_bytes()).await;
    let dropped = output.last_words(Instant::now()).dropped as usize;
    assert!((400..=500).contains(&dropped), "{dropped} of {lines}");
    open.send(()).unwrap();
    drop(output);
    assert_eq!(written.lock().len(), 2 * (lines - dropped));
}

#[tokio::test]
async fn a_known_text_is_a_hint_and_not_repeated_at_once() {
    let (output, _) = output(None);
    let mut hints = output.hints();
    let now = Instant::now();
    output.line(ILLEGAL, now);
    output.line(ILLEGAL, now);
    output.line(DRIVER, now);
    let hint = hints.try_recv().unwrap();
    assert_eq!((hint.class, hint.signature.as_str()), (Class::Sticky, "illegal_address"));
    assert!(hint.line.contains("illegal memory access") && !hint.line.ends_with('\n'));
    assert!(hints.try_recv().is_err(), "one in 30 seconds");
    output.line(ILLEGAL, now + HINT_PERIOD);
    assert!(hints.try_recv().is_err(), "the same text");
    output.line(DRIVER, now + HINT_PERIOD);
    assert_eq!(hints.try_recv().unwrap().class, Class::Environment);
    output.line(ILLEGAL, now + SAME_HINT_PERIOD);
    assert_eq!(hints.try_recv().unwrap().class, Class::Sticky);
    // A new process is not the one that was hinted at.
    output.begin();
    output.line(ILLEGAL, now + SAME_HINT_PERIOD);
    assert!(hints.try_recv().is_ok());
}

#[tokio::test]
async fn a_flood_is_not_searched_whole() {
    let (output, _) = output(None);
    let mut hints = output.hints();
    let now = Instant::now();
    for _ in 0..SEARCHED_A_SECOND {
        output.line(b"x\n", now);
    }
    output.line(ILLEGAL, now);
    assert!(hints.try_recv().is_err());
    let finding = output.last_words(now).finding;
    assert_eq!(finding, Some((Class::Sticky, "illegal_address".to_owned())), "found among the last lines");
    output.line(ILLEGAL, now + Duration::from_secs(1));
    assert!(hints.try_recv().is_ok());
}

#[test]
fn an_unfit_environment_is_remembered_as_the_reason_of_an_exit() {
    let (output, _) = output(None);
    let now = Instant::now();
    output.line(DRIVER, now);
    for _ in 0..KEPT_LINES {
        output.line(b"CUDA error: unknown error\n", now);
    }
    let reason = Some((Class::Environment, "driver_too_old".to_owned()));
    assert_eq!(output.last_words(now).finding, reason);
    let later = now + REASON_TTL + Duration::from_secs(1);
    let ambiguous = Some((Class::Ambiguous, "cuda_unknown".to_owned()));
    assert_eq!(output.last_words(later).finding, ambiguous);
    output.begin();
    assert_eq!(output.last_words(now), LastWords::default());
}

#[test]
fn what_is_kept_is_short_redacted_and_about_the_fault() {
    let (output, _) = output(None);
    let now = Instant::now();
    for at in 0..3 * KEPT_LINES {
        output.line(format!("ERROR {at}: {} \"my secret diary\"\n", "x ".repeat(100)).as_bytes(), now);
    }
    output.line(b"INFO transcript: my secret diary\n", now);
    output.line(&[b'e'; 3 * KEPT_BYTES], now);
    let words = output.last_words(now);
    assert_eq!(words.lines.len(), KEPT_LINES - 2);
    assert!(words.lines.iter().all(|line| line.len() <= KEPT_BYTES && !line.contains("diary")));
    assert!(words.lines[0].starts_with("ERROR 202:"), "{}", words.lines[0]);
}

#[test]
fn new_rules_count_at_once() {
    let (output, _) = output(None);
    let now = Instant::now();
    output.line(b"my own fault\n", now);
    assert_eq!(output.last_words(now).finding, None);
    let rule = crate::config::SignatureRule { contains: "my own fault".into(), class: Class::Sticky };
    output.configure(Arc::new(Catalogue::new(&[rule])));
    assert_eq!(output.last_words(now).finding.unwrap().0, Class::Sticky);
}
